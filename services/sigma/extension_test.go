package sigma_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/stormbell/stormbell/services/sigma"
)

//go:generate go test -run ^TestExtensionSchema$ . -update

var update = flag.Bool("update", false, "rewrite the published schema")

const extensionSchema = "../../docs/reference/stormbell-rule.v1.schema.json"

// TestExtensionSchema holds the published schema against the code.
func TestExtensionSchema(t *testing.T) {
	want := sigma.ExtensionSchema()
	if *update {
		require.NoError(t, os.WriteFile(extensionSchema, want, 0o600))
	}
	got, err := os.ReadFile(extensionSchema)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "make generate")
}

// extensionOf is a rule of three others with these lines beneath `stormbell:`.
func extensionOf(lines string) string {
	return strings.Replace(correlationOf(lines), "\ncorrelation:\n", "\nstormbell:\n", 1)
}

const (
	absence   = "type: absence\ntrigger: a\nmissing: b\ngroup-by: [user]\ntimespan: 15m\n"
	heartbeat = "type: absence\nmissing: b\ngroup-by: [host]\ntimespan: 15m\n"
	newValue  = "type: new_value\nrules: [a, b]\ngroup-by: [user]\nfield: ip\nhistory: 14d\n"
	travel    = "type: impossible_travel\nrules: [a, b]\ngroup-by: [user]\nlocation: ip\n"
	rate      = "type: rate\nrules: [a]\ngroup-by: [user]\ntimespan: 1h\nbaseline: 7d\nratio: 5\nmin: 20\n"
)

const (
	minute = int64(60_000)
	day    = 24 * 60 * minute
)

func TestExtensions(t *testing.T) {
	cases := []struct {
		name, lines string
		check       func(t *testing.T, c *sigma.Correlation)
	}{
		{"absence", absence, func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, sigma.Absence, c.Type)
			require.Equal(t, []string{"id-a", "id-b"}, c.Rules, "trigger first")
			require.Equal(t, 15*minute, c.Timespan)
			require.Equal(t, "high", c.Level)
			require.Equal(t, sigma.Extension{}, c.Extension)
		}},
		{"heartbeat", heartbeat + "forget: 7d\nlateness: 1h\nsuppress: 1m", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, []string{"id-b"}, c.Rules)
			require.Equal(t, sigma.Extension{Forget: 7 * day}, c.Extension)
			require.Equal(t, 60*minute, c.Lateness)
			require.Equal(t, minute, c.Suppress)
		}},
		{"new value", newValue + "learn: 7d", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, sigma.Extension{History: 14 * day, Learn: 7 * day}, c.Extension)
			require.Equal(t, []string{"ip"}, c.Field)
			require.Equal(t, 14*day, c.Timespan)
		}},
		{"new value learns for its history", newValue, func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, 14*day, c.Extension.Learn)
		}},
		{"new tuple", strings.Replace(newValue, "field: ip", "field: [ip, agent]", 1), func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, []string{"ip", "agent"}, c.Field)
		}},
		{"impossible travel", travel, func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, sigma.Extension{MaxSpeed: 900, MinDistance: 500}, c.Extension)
			require.Equal(t, []string{"ip"}, c.Field)
			require.EqualValues(t, 80_152_000, c.Timespan, "half round the Earth at 900 km/h")
		}},
		{"impossible travel, slower and nearer", travel + "max-speed: 200\nmin-distance: 50\ntimespan: 1h", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, sigma.Extension{MaxSpeed: 200, MinDistance: 50}, c.Extension)
			require.Equal(t, 60*minute, c.Timespan)
		}},
		{"rate", rate, func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, sigma.Extension{Baseline: 7 * day, Learn: 7 * day, Ratio: 5000, Min: 20}, c.Extension)
		}},
		{"rate against a median", strings.Replace(rate, "ratio: 5", "ratio: 1.25", 1) + "average: median\nlearn: 2d", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, sigma.Extension{Baseline: 7 * day, Learn: 2 * day, Ratio: 1250, Min: 20, Median: true}, c.Extension)
		}},
		{"aliases and generate", strings.Replace(newValue, "field: ip", "field: from", 1) + "generate: true\naliases:\n    from:\n        a: src\n        b: dst", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.True(t, c.Generate)
			require.Equal(t, "dst", c.Aliases["from"]["id-b"])
		}},
	}
	schema := compiledSchema(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			src := extensionOf(c.lines)
			set := compile(t, src, sigma.Options{})
			require.Len(t, set.Correlations(), 1)
			c.check(t, set.Correlation("corr"))
			require.NoError(t, schema.Validate(lastDocument(t, src)))
		})
	}
}

// TestExtensionFaults holds that each is refused with its place and a sentence,
// and, but for what a schema can't say, that the schema refuses it too.
func TestExtensionFaults(t *testing.T) {
	const schemaAccepts = true
	cases := []struct {
		name, lines, want string
		schemaAccepts     bool
	}{
		{"no type", "rules: [a]", "stormbell.type: must be one of absence, new_value, impossible_travel, rate", false},
		{"unknown type", "type: presence", "stormbell.type: must be one of", false},
		{"type of the specification", "type: event_count", "stormbell.type: must be one of", false},
		{"unknown key", absence + "missin: b", "stormbell.missin: is not known here", false},
		{"another type's key", absence + "history: 1d", "stormbell.history: is not known here", false},
		{"rules beside missing", absence + "rules: [a]", "stormbell.rules: is not known here", false},
		{"no missing", strings.Replace(absence, "missing: b\n", "", 1), "stormbell.missing: is missing: rule whose event must come", false},
		{"missing is a list", strings.Replace(absence, "missing: b", "missing: [b]", 1), "stormbell.missing: must be the id or name of one rule, not a list", false},
		{"missing is not there", strings.Replace(absence, "missing: b", "missing: z", 1), `stormbell.missing: there is no rule with the id or name "z"`, schemaAccepts},
		{"trigger is not there", strings.Replace(absence, "trigger: a", "trigger: z", 1), `stormbell.trigger: there is no rule`, schemaAccepts},
		{"trigger is missing", strings.Replace(absence, "missing: b", "missing: a", 1), `stormbell.missing: "a" names a rule that is listed already`, schemaAccepts},
		{"no timespan", strings.Replace(absence, "timespan: 15m\n", "", 1), "stormbell.timespan: is missing: within which it must come", false},
		{"timespan in months", strings.Replace(absence, "15m", "15M", 1), "stormbell.timespan: must be a number and s, m, h, d or w", false},
		{"timespan of nothing", strings.Replace(absence, "15m", "0m", 1), "stormbell.timespan: must be more than nothing", false},
		{"forget with a trigger", absence + "forget: 1d", "stormbell.forget: only means something without trigger", schemaAccepts},
		{"forget at once", heartbeat + "forget: 1m", "stormbell.forget: must not be shorter than the timespan", schemaAccepts},
		{"no rules", strings.Replace(newValue, "rules: [a, b]\n", "", 1), "stormbell.rules: is missing: refer to rules", false},
		{"empty rules", strings.Replace(newValue, "[a, b]", "[]", 1), "stormbell.rules: is empty", false},
		{"rule twice", strings.Replace(newValue, "[a, b]", "[a, a]", 1), "stands twice", false},
		{"no field", strings.Replace(newValue, "field: ip\n", "", 1), "stormbell.field: is missing: field whose value is new", false},
		{"empty field", strings.Replace(newValue, "field: ip", "field: []", 1), "stormbell.field: must be the name of a field", false},
		{"modifier in field", strings.Replace(newValue, "field: ip", "field: ip|cidr", 1), "modifiers are not allowed", false},
		{"no history", strings.Replace(newValue, "history: 14d\n", "", 1), "stormbell.history: is missing", false},
		{"learns longer than it remembers", newValue + "learn: 15d", "stormbell.learn: must not be longer than the history", schemaAccepts},
		{"timespan of new_value", newValue + "timespan: 1d", "stormbell.timespan: is not known here", false},
		{"no location", strings.Replace(travel, "location: ip\n", "", 1), "stormbell.location: is missing", false},
		{"two locations", strings.Replace(travel, "location: ip", "location: [ip, host]", 1), "stormbell.location: must be a single field", false},
		{"speed of a walk", travel + "max-speed: 5", "stormbell.max-speed: must be a whole number from 100 to 100000", false},
		{"speed in words", travel + "max-speed: fast", "stormbell.max-speed: must be a whole number", false},
		{"speed in quotes", travel + "max-speed: '900'", "stormbell.max-speed: must be a whole number", false},
		{"no distance", travel + "min-distance: 0", "stormbell.min-distance: must be a whole number from 1 to 20000", false},
		{"no baseline", strings.Replace(rate, "baseline: 7d\n", "", 1), "stormbell.baseline: is missing", false},
		{"baseline of a part", strings.Replace(rate, "7d", "90m", 1), "stormbell.baseline: must be a whole number of timespans", schemaAccepts},
		{"baseline of one", strings.Replace(rate, "7d", "1h", 1), "stormbell.baseline: has 1 periods: from 2 to 10080", schemaAccepts},
		{"baseline of too many", strings.Replace(rate, "1h", "1m", 1) + "learn: 8d", "stormbell.learn: must be from the timespan to the baseline", schemaAccepts},
		{"baseline of far too many", strings.Replace(rate, "1h", "1s", 1), "stormbell.baseline: has 604800 periods", schemaAccepts},
		{"no ratio", strings.Replace(rate, "ratio: 5\n", "", 1), "stormbell.ratio: is missing", false},
		{"ratio below one", strings.Replace(rate, "ratio: 5", "ratio: 0.5", 1), "stormbell.ratio: must be a number from 1", false},
		{"ratio of many decimals", strings.Replace(rate, "ratio: 5", "ratio: 1.23456", 1), "stormbell.ratio: must be a number from 1", false},
		{"no min", strings.Replace(rate, "min: 20\n", "", 1), "stormbell.min: is missing", false},
		{"min of nothing", strings.Replace(rate, "min: 20", "min: 0", 1), "stormbell.min: must be a whole number from 1", false},
		{"unknown average", rate + "average: mode", "stormbell.average: must be mean or median", false},
		{"learns nothing", rate + "learn: 1m", "stormbell.learn: must be from the timespan", schemaAccepts},
		{"alias that misses a rule", newValue + "aliases:\n    ip:\n        a: src", `stormbell.aliases.ip: has no field for rule "b"`, schemaAccepts},
		{"ties", absence + "ties: strict", "stormbell.ties: is not known here", false},
	}
	schema := compiledSchema(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			src := extensionOf(c.lines)
			found := reject(src, sigma.Options{})
			require.NotEmpty(t, found)
			require.Contains(t, strings.Join(found, "\n"), c.want)
			require.Contains(t, found[0], "test.yml:")
			err := schema.Validate(lastDocument(t, src))
			require.Equal(t, c.schemaAccepts, err == nil, "%v", err)
		})
	}
	t.Run("no mapping", func(t *testing.T) {
		require.Contains(t, reject("title: T\nstormbell: absence\n", sigma.Options{})[0], "test.yml:2: stormbell: must be a mapping, not text")
	})
	t.Run("the place is that of the key", func(t *testing.T) {
		src := extensionOf(rate + "average: mode")
		line := strings.Count(src[:strings.Index(src, "average")], "\n") + 1
		found := reject(src, sigma.Options{})
		require.Equal(t, []string{fmt.Sprintf("test.yml:%d: stormbell.average: must be mean or median", line)}, found)
	})
}

// TestExtensionRevisions holds that every key that decides makes a new revision.
func TestExtensionRevisions(t *testing.T) {
	seen := map[string]string{}
	for _, lines := range []string{
		absence, heartbeat, strings.Replace(absence, "15m", "16m", 1), strings.Replace(strings.Replace(absence, "trigger: a", "trigger: b", 1), "missing: b", "missing: a", 1),
		heartbeat + "forget: 1d", heartbeat + "lateness: 1d", heartbeat + "suppress: 1d", newValue, newValue + "learn: 1d", strings.Replace(newValue, "14d", "15d", 1),
		travel, travel + "max-speed: 901", travel + "min-distance: 501", travel + "timespan: 1h", strings.Replace(travel, "location: ip", "location: from", 1),
		rate, rate + "average: median", rate + "learn: 1d", strings.Replace(rate, "ratio: 5", "ratio: 6", 1), strings.Replace(rate, "min: 20", "min: 21", 1), strings.Replace(rate, "7d", "8d", 1),
	} {
		revision := compile(t, extensionOf(lines), sigma.Options{}).Correlation("corr").Revision
		require.Empty(t, seen[revision], lines)
		seen[revision] = lines
	}
	require.Equal(t, rate, seen[compile(t, extensionOf(rate+"average: mean\nlearn: 7d"), sigma.Options{}).Correlation("corr").Revision], "what is the default changes nothing")
	require.Equal(t, rate, seen[compile(t, strings.Replace(extensionOf(rate), "title: Corr", "title: Other", 1), sigma.Options{}).Correlation("corr").Revision])
}

// TestDocumentedExtensions holds that every type has a whole example in the
// documentation, which parses and which the schema accepts.
func TestDocumentedExtensions(t *testing.T) {
	text, err := os.ReadFile("../../docs/sigma.md")
	require.NoError(t, err)
	types := map[sigma.CorrelationType]int{}
	schema := compiledSchema(t)
	for _, block := range regexp.MustCompile("(?s)```yaml\n(title: [^`]*\nstormbell:\n.*?)```").FindAllStringSubmatch(string(text), -1) {
		rules := ""
		for _, name := range []string{"trail_stopped", "trail_started", "host_heartbeat", "console_login", "action_denied"} {
			rules += namedRule(name)
		}
		set := compile(t, rules+block[1], sigma.Options{})
		require.Len(t, set.Correlations(), 1, block[1])
		types[set.Correlations()[0].Type]++
		require.NoError(t, schema.Validate(lastDocument(t, block[1])))
	}
	require.Equal(t, map[sigma.CorrelationType]int{sigma.Absence: 2, sigma.NewValue: 1, sigma.ImpossibleTravel: 1, sigma.Rate: 1, sigma.Risk: 1}, types)
}

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(sigma.ExtensionSchema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("extension.json", doc))
	s, err := c.Compile("extension.json")
	require.NoError(t, err)
	return s
}

// lastDocument is the last document of a source, as schemas see it.
func lastDocument(t *testing.T, src string) any {
	t.Helper()
	parts := strings.Split(src, "---\n")
	var v any
	require.NoError(t, yaml.Unmarshal([]byte(parts[len(parts)-1]), &v))
	return v
}
