package sigma

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Extension is what the types that `stormbell: type` adds have of their own.
// Durations are in milliseconds, 0 is not given.
type Extension struct {
	// Forget is how long a heartbeat that has stopped stays known.
	Forget int64
	// History is how long a value stays known, or a group that shows none.
	History int64
	// Learn is how old a group must be before it can fire.
	Learn int64
	// MaxSpeed in km/h and MinDistance in km, of impossible travel.
	MaxSpeed, MinDistance int64
	// Baseline is how far back a rate is compared.
	Baseline int64
	// Ratio is by how much, in thousandths, a rate must exceed its baseline.
	Ratio int64
	// Min is the least count that fires, however low the baseline.
	Min int64
	// Median says that the baseline is the median of its periods, not their mean.
	Median bool
	// Tactics is how many a risk must have; Scores are what rules add to it, by
	// level.
	Tactics int64
	Scores  [5]int64
}

// Bounds of the extensions.
const (
	// MaxPeriods is how many periods a baseline may have.
	MaxPeriods = 10_080
	// HalfEarth is how far apart two places can lie, in km, rounded up.
	HalfEarth = 20_038

	defaultSpeed    = 900
	minSpeed        = 100
	maxSpeed        = 100_000
	defaultDistance = 500
	maxDistance     = 20_000
	maxRatio        = 1_000_000
	maxLeast        = 100_000
)

// extensions are the types that `stormbell: type` adds.
func extensions() []CorrelationType {
	return []CorrelationType{Absence, NewValue, ImpossibleTravel, Rate, Risk}
}

// A form is what the value of an extension key looks like.
type form uint8

const (
	formDuration form = iota + 1
	formReference
	formReferences
	formField
	formFields
	formWhole
	formNumber
	formChoice
	formBoolean
	formAliases
	formThreshold
	formScores
)

// extensionKey describes a key of `stormbell:`: the parser and the JSON Schema
// both go by it.
type extensionKey struct {
	name     string
	form     form
	required bool
	least    int64    // of formWhole and formNumber
	most     int64    // likewise
	choices  []string // of formChoice
	about    string
}

// refinementKeys may stand beside `correlation:`.
func refinementKeys() []extensionKey {
	return []extensionKey{
		latenessKey(), shadowKey(), riskKey(),
		{name: "suppress", form: formDuration, about: "Width of an alert's bucket, at least the timespan: one alert for each."},
		{name: "updates", form: formBoolean, about: "At its bucket's close an alert is told again, with what it came to; of rules that fire at once only."},
		{name: "ties", form: formChoice, choices: []string{"strict"}, about: "Events of the same millisecond are not ordered; of temporal_ordered only."},
		{name: "window", form: formChoice, choices: []string{string(Sliding), string(Tumbling), string(Session)}, about: "Windows that end at each event, which is the default, that lie next to each other, or between silences."},
		{name: "gap", form: formDuration, about: "Longest silence within a session, at most the timespan; of `window: session` only."},
	}
}

func latenessKey() extensionKey {
	return extensionKey{name: "lateness", form: formDuration, about: "How late events may be for this rule, in place of what their sources say, be that less or more."}
}

func shadowKey() extensionKey {
	return extensionKey{name: "shadow", form: formBoolean, about: "Its alerts are counted and go to nobody."}
}

// extensionKeys are the keys of a rule of this type, but for `type`.
func extensionKeys(t CorrelationType) []extensionKey {
	if t == Risk {
		return riskKeys()
	}
	common := []extensionKey{
		{name: "group-by", form: formFields, about: "Fields that make up a group; an event without one of them is not counted."},
		{name: "aliases", form: formAliases, about: "Alias to rule to field, where rules call a field differently."},
		{name: "generate", form: formBoolean, about: "The referred rules alert by themselves too."},
		latenessKey(), shadowKey(), riskKey(),
		{name: "suppress", form: formDuration, about: "At most one alert of a group in each bucket of this width, by the time of its event."},
	}
	rules := extensionKey{name: "rules", form: formReferences, required: true, about: "Ids or names of the rules whose events count."}
	var own []extensionKey
	switch t {
	case Absence:
		own = []extensionKey{
			{name: "trigger", form: formReference, about: "Rule whose event demands another; without it, each event of missing demands the next."},
			{name: "missing", form: formReference, required: true, about: "Rule whose event must come."},
			{name: "timespan", form: formDuration, required: true, about: "Within which it must come."},
			{name: "forget", form: formDuration, about: "How long a heartbeat that has stopped stays listed, at least the timespan; without trigger only."},
		}
	case NewValue:
		own = []extensionKey{
			rules,
			{name: "field", form: formFields, required: true, about: "Field whose value is new; several are one tuple."},
			{name: "history", form: formDuration, required: true, about: "How long a value stays known; a group without events for so long is forgotten."},
			{name: "learn", form: formDuration, about: "How old a group must be before a new value is told, at most the history, which is the default."},
		}
	case ImpossibleTravel:
		own = []extensionKey{
			rules,
			{name: "location", form: formField, required: true, about: "Field with an IP address, or the name of an AWS region."},
			{name: "max-speed", form: formWhole, least: minSpeed, most: maxSpeed, about: "In km/h; 900 by default."},
			{name: "min-distance", form: formWhole, least: 1, most: maxDistance, about: "In km; nearer places are the same; 500 by default."},
			{name: "timespan", form: formDuration, about: "How far apart the two events may lie, where that is less than half round the Earth takes."},
		}
	case Rate:
		own = []extensionKey{
			rules,
			{name: "timespan", form: formDuration, required: true, about: "Length of a period."},
			{name: "baseline", form: formDuration, required: true, about: "How far back the count is compared: 2 to 10,080 whole periods."},
			{name: "ratio", form: formNumber, required: true, least: 1, most: maxRatio, about: "How many times the baseline a count must be."},
			{name: "min", form: formWhole, required: true, least: 1, most: maxLeast, about: "The least count that fires, however low the baseline."},
			{name: "average", form: formChoice, choices: []string{"mean", "median"}, about: "Of the periods of the baseline; mean by default."},
			{name: "learn", form: formDuration, about: "How old a group must be before it can fire, from one period to the baseline, which is the default."},
		}
	}
	return append(own, common...)
}

func keyNames(keys []extensionKey) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.name
	}
	return out
}

// extensionRule is a document that `stormbell:` alone defines.
func (p *docParser) extensionRule() {
	n := p.root.get("stormbell")
	if n.kind != yaml.MappingNode {
		p.fail(n, "stormbell", "must be a mapping, not %s", n.what())
		return
	}
	typ := CorrelationType(p.str(n, "stormbell", "type", 64))
	if !slices.Contains(extensions(), typ) {
		at := n
		if t := n.get("type"); t != nil {
			at = t
		}
		p.fail(at, "stormbell.type", "must be one of %s where there is no detection or correlation", typeNames())
		return
	}
	c := &correlationDoc{node: n, root: "stormbell", lateness: -1, typ: typ}
	if typ == Risk {
		c.extension.Scores = defaultScores()
	}
	p.onlyKeys(n, "stormbell", append([]string{"type"}, keyNames(extensionKeys(typ))...))
	before := len(p.faults)
	for _, k := range extensionKeys(typ) {
		p.extensionKey(n, c, k)
	}
	p.aliases(n, c)
	p.doc.Shadow = p.boolean(n, "stormbell", shadowKey().name)
	if typ != Risk {
		p.rated(n)
	}
	c.generate = p.boolean(n, "stormbell", "generate") || p.boolean(p.root, "", "generate")
	if len(c.groupBy) == 0 && typ != Risk {
		p.warn(n, "stormbell.group-by", "is missing: all events are one group")
	}
	if len(p.faults) == before || !slices.ContainsFunc(p.faults[before:], func(f *fault) bool { return !f.warning }) {
		p.checkExtension(n, c)
	}
	p.doc.correlation = c
}

func typeNames() string {
	var out []string
	for _, t := range extensions() {
		out = append(out, string(t))
	}
	return strings.Join(out, ", ")
}

// extensionKey reads one key into where it belongs.
func (p *docParser) extensionKey(n *node, c *correlationDoc, k extensionKey) {
	v := n.get(k.name)
	if v == nil {
		if k.required && k.form != formReferences { // references says more
			p.fail(n, c.path(k.name), "is missing: %s", lowerFirst(k.about))
			return
		}
		if k.form != formReferences || !k.required {
			return
		}
	}
	switch k.form {
	case formDuration:
		if to := c.durationOf(k.name); to != nil {
			*to = p.duration(n, c.root, k.name)
		}
	case formReferences:
		p.references(n, c)
	case formReference:
		p.reference(n, c, k)
	case formField, formFields:
		p.extensionFields(n, c, k)
	case formWhole:
		if k.name != riskKey().name { // which is no key of the type
			p.whole(v, c, k)
		}
	case formThreshold:
		p.riskThreshold(v, c, k)
	case formScores:
		p.scores(v, c, k)
	case formNumber:
		p.ratio(v, c, k)
	case formChoice:
		if v.kind != yaml.ScalarNode || !slices.Contains(k.choices, v.value) {
			p.fail(v, c.path(k.name), "must be %s", strings.Join(k.choices, " or "))
		}
		c.extension.Median = v.value == "median"
	}
}

// durationOf is where a duration of this name is kept.
func (c *correlationDoc) durationOf(key string) *int64 {
	x := &c.extension
	switch key {
	case "timespan":
		return &c.timespan
	case "lateness":
		return &c.lateness
	case "suppress":
		return &c.suppress
	case "forget":
		return &x.Forget
	case "history":
		return &x.History
	case "learn":
		return &x.Learn
	case "baseline":
		return &x.Baseline
	default:
		return nil
	}
}

func (p *docParser) reference(n *node, c *correlationDoc, k extensionKey) {
	v := n.get(k.name)
	if !v.isText() || v.value == "" {
		p.fail(v, c.path(k.name), "must be the id or name of one rule, not %s", v.what())
		return
	}
	c.rules = append(c.rules, v.value)
}

func (p *docParser) extensionFields(n *node, c *correlationDoc, k extensionKey) {
	fields := p.names(n, c.root, k.name)
	if k.name == "group-by" {
		c.groupBy = fields
		return
	}
	c.field = fields
	switch {
	case len(fields) == 0:
		p.fail(n.get(k.name), c.path(k.name), "must be the name of a field")
	case k.form == formField && len(fields) > 1:
		p.fail(n.get(k.name), c.path(k.name), "must be a single field")
	}
}

func (p *docParser) wholeOf(v *node, path string, k extensionKey) int64 {
	count, err := strconv.ParseInt(v.value, 10, 64)
	if v.kind != yaml.ScalarNode || v.tag != "!!int" || err != nil || count < k.least || count > k.most {
		p.fail(v, join(path, k.name), "must be a whole number from %d to %d", k.least, k.most)
		return 0
	}
	return count
}

func (p *docParser) whole(v *node, c *correlationDoc, k extensionKey) {
	count := p.wholeOf(v, c.root, k)
	switch k.name {
	case "max-speed":
		c.extension.MaxSpeed = count
	case "min-distance":
		c.extension.MinDistance = count
	default:
		c.extension.Min = count
	}
}

// ratio reads a number with at most three decimals, as thousandths.
func (p *docParser) ratio(v *node, c *correlationDoc, k extensionKey) {
	_, ok := boundNumber(v)
	f, err := strconv.ParseFloat(v.value, 64)
	milli := math.Round(f * 1000)
	if !ok || err != nil || f < float64(k.least) || f > float64(k.most) || math.Abs(f*1000-milli) > 1e-6 {
		p.fail(v, c.path(k.name), "must be a number from %d to %d with at most three decimals", k.least, k.most)
		return
	}
	c.extension.Ratio = int64(milli)
}

// checkExtension holds keys against each other, and fills in what is not given.
func (p *docParser) checkExtension(n *node, c *correlationDoc) {
	x := &c.extension
	fail := func(key, format string, args ...any) { p.fail(n.get(key), c.path(key), format, args...) }
	switch c.typ {
	case Absence:
		switch {
		case n.get("forget") == nil:
		case len(c.rules) == 2:
			fail("forget", "only means something without trigger")
		case x.Forget < c.timespan:
			fail("forget", "must not be shorter than the timespan")
		}
	case NewValue:
		if x.Learn == 0 {
			x.Learn = x.History
		}
		if x.Learn > x.History {
			fail("learn", "must not be longer than the history")
		}
		c.timespan = x.History
	case ImpossibleTravel:
		x.MaxSpeed, x.MinDistance = orElse(x.MaxSpeed, defaultSpeed), orElse(x.MinDistance, defaultDistance)
		// What takes longer than half round the Earth is always possible.
		longest := (HalfEarth*3_600_000 + x.MaxSpeed - 1) / x.MaxSpeed
		c.timespan = min(orElse(c.timespan, longest), longest)
	case Rate:
		p.checkRate(n, c)
	case Risk:
		p.checkRisk(n, c)
	}
}

func (p *docParser) checkRate(n *node, c *correlationDoc) {
	x := &c.extension
	x.Learn = orElse(x.Learn, x.Baseline)
	switch periods := x.Baseline / c.timespan; {
	case x.Baseline%c.timespan != 0:
		p.fail(n.get("baseline"), c.path("baseline"), "must be a whole number of timespans")
	case periods < 2 || periods > MaxPeriods:
		p.fail(n.get("baseline"), c.path("baseline"), "has %d periods: from 2 to %d are possible", periods, MaxPeriods)
	case x.Learn > x.Baseline || x.Learn < c.timespan:
		p.fail(n.get("learn"), c.path("learn"), "must be from the timespan to the baseline")
	}
}

func orElse(v, other int64) int64 {
	if v == 0 {
		return other
	}
	return v
}

func lowerFirst(s string) string {
	return strings.ToLower(s[:1]) + strings.TrimSuffix(s[1:], ".")
}

// encode writes the extension for a revision.
func (x *Extension) encode(e *encoder) {
	e.text("extension").int(x.Forget).int(x.History).int(x.Learn).int(x.MaxSpeed).int(x.MinDistance)
	e.int(x.Baseline).int(x.Ratio).int(x.Min).bool(x.Median)
}
