package sigma

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A risk adds up scores of what other rules say of an entity. Which rules these
// are, and what they score, is that of the rules with which an event is stamped:
// it is no part of the risk's revision, so that a new rule does not make all
// entities harmless.

// Bounds of risks.
const (
	// MaxScore is what a rule may score at most.
	MaxScore = 10_000
	// MaxRisk is the greatest total that may be demanded.
	MaxRisk = 1_000_000_000
	// maxRiskWays is in how many ways a risk may come to detection rules.
	maxRiskWays = 4 * MaxRules

	unrated = -1
)

// Score is what a rule adds to a risk.
type Score struct {
	Points int64
	// Tactics has the bit of each tactic of Tactics that a tag names.
	Tactics uint64
}

// Tactics are those of ATT&CK, as tags name them behind `attack.`. Their order
// is part of what is stored.
func Tactics() []string {
	return []string{
		"reconnaissance", "resource-development", "initial-access", "execution", "persistence", "privilege-escalation",
		"defense-evasion", "credential-access", "discovery", "lateral-movement", "collection", "command-and-control",
		"exfiltration", "impact", "stealth", "defense-impairment",
	}
}

// TacticNames are the names of tactics by their bits.
func TacticNames(set uint64) []string {
	var out []string
	for all := Tactics(); set != 0; set &= set - 1 {
		if i := bits.TrailingZeros64(set); i < len(all) {
			out = append(out, all[i])
		}
	}
	return out
}

func tacticsOf(tags []string) (set uint64) {
	all := Tactics()
	for _, tag := range tags {
		name, ok := strings.CutPrefix(strings.ToLower(tag), "attack.")
		if i := slices.Index(all, strings.ReplaceAll(name, "_", "-")); ok && i >= 0 {
			set |= 1 << i
		}
	}
	return set
}

// defaultScores are by level, in the order of levels.
func defaultScores() [5]int64 { return [5]int64{1, 5, 20, 50, 100} }

func riskKey() extensionKey {
	return extensionKey{name: "risk", form: formWhole, most: MaxScore, about: "What the rule adds to a risk, in place of what its level does; 0 is nothing."}
}

func riskKeys() []extensionKey {
	return []extensionKey{
		{name: "group-by", form: formFields, required: true, about: "Fields of the entity; what has not all of them adds nothing to anybody."},
		{name: "timespan", form: formDuration, required: true, about: "Within which scores add up."},
		{name: "condition", form: formThreshold, required: true, most: MaxRisk, about: "The total that fires."},
		{name: "tactics", form: formThreshold, most: int64(len(Tactics())), about: "How many tactics of ATT&CK the rules' tags must name."},
		{name: "scores", form: formScores, about: "What a rule adds, by its level; 1, 5, 20, 50, 100 by default, 0 is nothing."},
		{name: "rules", form: formReferences, about: "Ids or names of the rules that count; without it, all that alert by themselves."},
		{name: "aliases", form: formAliases, about: "Alias to rule to field, where rules call a field differently."},
		{name: "generate", form: formBoolean, about: "The rules that are listed alert by themselves too."},
		latenessKey(), shadowKey(),
		{name: "suppress", form: formDuration, about: "Width of an alert's bucket, at least the timespan: one alert for each."},
	}
}

// rated reads the score that a rule gives itself.
func (p *docParser) rated(n *node) {
	if v := n.get(riskKey().name); v != nil {
		p.doc.meta.risk = p.wholeOf(v, "stormbell", riskKey())
	}
}

// threshold reads a lower bound.
func (p *docParser) threshold(v *node, path string, most int64) Bound {
	if v.kind != yaml.MappingNode || len(v.keys) != 1 {
		p.fail(v, path, "must be one lower bound, for example gte: 2")
		return Bound{}
	}
	op := Op(v.keys[0].value)
	if op != GT && op != GTE {
		p.fail(v.keys[0], path, "%q is not possible here: scores only ever add up, use gt or gte", op)
		return Bound{}
	}
	least := int64(1)
	if op == GT {
		least = 0
	}
	item := v.items[0]
	count, err := strconv.ParseInt(item.value, 10, 64)
	if item.kind != yaml.ScalarNode || item.tag != "!!int" || err != nil || count < least || count > most {
		p.fail(item, join(path, string(op)), "must be a whole number from %d to %d", least, most)
	}
	return Bound{Op: op, Count: count, Number: item.value}
}

func (p *docParser) riskThreshold(v *node, c *correlationDoc, k extensionKey) {
	b := p.threshold(v, c.path(k.name), k.most)
	if k.name == "condition" {
		c.condition.Bounds = []Bound{b}
		return
	}
	c.extension.Tactics, _ = Condition{Bounds: []Bound{b}}.AtOnce()
}

func (p *docParser) scores(v *node, c *correlationDoc, k extensionKey) {
	if v.kind != yaml.MappingNode {
		p.fail(v, c.path(k.name), "must give levels their scores, not %s", v.what())
		return
	}
	for i, key := range v.keys {
		level := slices.Index(levels(), key.value)
		if level < 0 {
			p.fail(key, c.path(k.name), "%q is none of %s", key.value, strings.Join(levels(), ", "))
			continue
		}
		c.extension.Scores[level] = p.wholeOf(v.items[i], c.path(k.name), extensionKey{name: key.value, most: MaxScore})
	}
}

// checkRisk holds keys against each other.
func (p *docParser) checkRisk(n *node, c *correlationDoc) {
	if len(c.groupBy) == 0 {
		p.fail(n.get("group-by"), c.path("group-by"), "names no field: scores add up for somebody or something")
	}
	if c.suppress != 0 && c.suppress < c.timespan {
		p.fail(n.get("suppress"), c.path("suppress"), "must not be shorter than the timespan")
	}
	if g := n.get("generate"); g != nil && n.get("rules") == nil {
		p.fail(g, c.path("generate"), "only means something with rules: without them nothing is silenced")
	}
}

// members are what a document refers to: what it lists, or, of a risk that lists
// nothing, all that alert by themselves.
func (c *compiler) members(doc *correlationDoc) []string {
	if doc.typ != Risk || len(doc.rules) > 0 {
		return doc.rules
	}
	var out []string
	for _, r := range c.set.rules {
		if r.Alerts && !r.Shadow {
			out = append(out, r.ID)
		}
	}
	for _, corr := range c.set.correlations {
		if corr.Type != Risk && corr.Alerts && !corr.Shadow {
			out = append(out, corr.ID)
		}
	}
	return out
}

// rate gives a member of a risk its score; false where it has none.
func (c *compiler) rate(corr *Correlation, id string) bool {
	if r := c.set.byID[id]; r != nil {
		return corr.score(id, r.Level, r.risk, r.Tags)
	}
	child := c.set.corrByID[id]
	return corr.score(id, child.Level, child.risk, child.Tags)
}

// score gives a member its score by its own word or by its level.
func (c *Correlation) score(id, level string, own int64, tags []string) bool {
	points := own
	if points == unrated {
		points = c.Extension.Scores[max(slices.Index(levels(), level), 0)]
	}
	if points == 0 {
		return false
	}
	if c.Scores == nil {
		c.Scores = map[string]Score{}
	}
	c.Scores[id] = Score{Points: points, Tactics: tacticsOf(tags)}
	return true
}

// riskOfAll compiles risks that list no rules, once it is known what alerts by
// itself.
func (c *compiler) riskOfAll(docs []*Document) {
	for _, d := range docs {
		if d.Kind != KindCorrelation || d.correlation.typ != Risk || len(d.correlation.rules) > 0 || c.state[d] == refused {
			continue
		}
		if !c.correlation(d, nil) {
			continue
		}
		corr := c.set.corrByID[d.ID]
		if len(corr.Scores) == 0 {
			c.warn(d, d.correlation.node, "stormbell", "adds nothing up: no rule here that alerts by itself has a score")
		}
		c.refer(corr)
	}
}

// riskRevision covers what a risk says itself; see the top of this file. listed
// are the ids of the rules that it names.
func riskRevision(c *Correlation, listed []string) string {
	e := newEncoder("sigma risk 1")
	e.list(listed).list(c.GroupBy).int(c.Timespan)
	for _, b := range c.Condition.Bounds {
		e.text(string(b.Op)).text(b.Number)
	}
	e.int(c.Extension.Tactics)
	for _, score := range c.Extension.Scores {
		e.int(score)
	}
	e.aliases(c.Aliases)
	return e.int(c.Lateness).int(c.Suppress).revision()
}
