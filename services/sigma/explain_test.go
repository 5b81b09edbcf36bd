package sigma_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

const explainedRule = `title: Trail stopped
id: stopped
name: stopped_name
logsource: {product: aws, service: cloudtrail}
detection:
    selection:
        eventSource: cloudtrail.amazonaws.com
        eventName: [StopLogging, DeleteTrail]
        userAgent|contains|all: [aws, cli]
    ok:
        responseElements|exists: false
        errorCode: null
    filter_internal:
        sourceIPAddress|cidr: 10.0.0.0/8
        a|fieldref: b
    unused:
        n|gte|neq: 5
    words: [alpha, beta]
    condition: (selection and not 1 of filter_*) or (ok and words)
`

func TestExplain(t *testing.T) {
	docs, problems := sigma.Parse([]byte(explainedRule+"---\n"+filterOf("{product: aws}", "any", "admin:\n    user: root\ncondition: not admin")), "r.yml")
	require.Empty(t, errorsOf(problems))
	ev := sigma.Event{
		Raw: []byte(`{"eventSource":"cloudtrail.amazonaws.com","eventName":["x","DELETETRAIL"],"userAgent":"aws-sdk","responseElements":null,"n":4,` +
			`"sourceIPAddress":"10.1.2.3","a":{"k":1},"b":"y","user":"eve","deep":{"w":"an alphabet"}}`),
		LogSource: sigma.LogSource{Product: "AWS", Service: "cloudtrail"},
	}
	x, err := sigma.Explain(docs, "stopped", sigma.Options{}, ev)
	require.NoError(t, err)
	require.Equal(t, strings.TrimLeft(`
stopped (Trail stopped): does not match
condition
  - all
    - any
      - all
        - selection
        + not
          - filter_internal
      - all
        - ok
        + words
    + not
      - filter filter: admin
- selection
  - all
    + eventSource: "cloudtrail.amazonaws.com"  ← "cloudtrail.amazonaws.com"
    + eventName: "StopLogging", "DeleteTrail"  ← "x", "DELETETRAIL"
    - userAgent|contains|all: "aws", "cli"
      - all
        + userAgent  ← "aws-sdk"
        - userAgent  ← "aws-sdk"
- ok
  - all
    - responseElements|exists: false  ← null
    + errorCode: null  ← nothing
- filter_internal
  - all
    + sourceIPAddress|cidr: "10.0.0.0/8"  ← "10.1.2.3"
    - a|fieldref: "b"  ← "{\"k\":1}", "y"
+ unused
  + n|gte|neq: 5  ← "4"
+ words
  + keywords: "alpha", "beta"  ← "an alphabet"
- filter filter: admin
  - user: "root"  ← "eve"
`, "\n"), x.String())
	require.False(t, x.Matches())
	require.Equal(t, []sigma.Seen{{Field: "eventName", Text: "x"}, {Field: "eventName", Text: "DELETETRAIL", Holds: true}}, x.Selections[0].Kids[0].Kids[1].Seen)
}

// TestExplainAgrees holds that an explanation says what matching says, with
// pipelines, without, and whether the rule applies or not.
func TestExplainAgrees(t *testing.T) {
	src := piped + "---\n" + explainedRule + "---\n" + conditionRule("[a and not b, 2 of sel_*]")
	docs, _ := sigma.Parse([]byte(src), "r.yml")
	opts := sigma.Options{Pipelines: pipelines(t, steps("- type: field_name_mapping\n  mapping: {Image: [a, Image]}\n- type: add_condition\n  negated: true\n  conditions: {z: 1}\n  rule_conditions:\n    - {type: logsource, product: test}"))}
	set, problems := sigma.Compile(docs, opts)
	require.Empty(t, errorsOf(problems))
	events := []string{
		`{}`, `{"a":1}`, `{"a":1,"b":1}`, `{"x":1,"z":1}`, `{"x":1,"y":1}`, `{"Image":"x"}`, `{"a":"c\\cmd.exe","CommandLine":"a","Ref":"c\\cmd.exe","User":1}`,
		`{"eventSource":"cloudtrail.amazonaws.com","eventName":"StopLogging","userAgent":"aws cli"}`, `{"w":"beta"}`,
	}
	verdicts := map[bool]int{}
	for _, e := range events {
		for _, src := range []sigma.LogSource{{}, {Product: "aws"}, {Product: "test"}} {
			ev := sigma.Event{Raw: []byte(e), LogSource: src}
			matched := map[string]bool{}
			for _, r := range set.Matcher().Match(ev, nil) {
				matched[r.ID] = true
			}
			for _, r := range set.Rules() {
				x, err := sigma.Explain(docs, r.ID, opts, ev)
				require.NoError(t, err)
				require.Equal(t, matched[r.ID], x.Matches(), "%s on %s\n%s", r.ID, e, x)
				verdicts[x.Matches()]++
			}
		}
	}
	require.Greater(t, verdicts[true], 5)
	require.Greater(t, verdicts[false], 10)
}

func TestExplainFaults(t *testing.T) {
	docs, _ := sigma.Parse([]byte(correlationOf(base+"type: temporal")+"---\n"+selection("f|expand: '%x%'")), "r.yml")
	for _, c := range []struct{ id, event, want string }{
		{"nothing", `{}`, `there is no rule with the id or name "nothing"`},
		{"corr", `{}`, "explain the rules that it refers to"},
		{"test", `{}`, "r.yml:48: detection.sel.f|expand: placeholder %x% has no configured values"},
		{"id-a", `[]`, "the event can't be read"},
	} {
		_, err := sigma.Explain(docs, c.id, sigma.Options{}, sigma.Event{Raw: []byte(c.event)})
		require.ErrorContains(t, err, c.want)
	}
	byName, err := sigma.Explain(docs, "a", sigma.Options{}, sigma.Event{Raw: []byte(`{"a":1}`), LogSource: sigma.LogSource{Product: "other"}})
	require.NoError(t, err)
	require.False(t, byName.Applies)
	require.True(t, byName.Condition.Holds)
	require.Contains(t, byName.String(), "does not apply")
}

func ExampleExplain() {
	const rule = `
title: Root without MFA
id: root-login
logsource: {product: aws, service: cloudtrail}
detection:
    selection:
        eventName: ConsoleLogin
        userIdentity.type: Root
    filter_mfa:
        additionalEventData.MFAUsed|contains: 'yes'
    condition: selection and not filter_mfa
`
	docs, _ := sigma.Parse([]byte(rule), "root.yml")
	x, err := sigma.Explain(docs, "root-login", sigma.Options{}, sigma.Event{
		Raw: []byte(`{"eventName":"ConsoleLogin","userIdentity":{"type":"IAMUser"}}`),
	})
	if err != nil {
		panic(err)
	}
	fmt.Print(x)
	// Output:
	// root-login (Root without MFA): does not match
	// condition
	//   - all
	//     - selection
	//     + not
	//       - filter_mfa
	// - selection
	//   - all
	//     + eventName: "ConsoleLogin"  ← "ConsoleLogin"
	//     - userIdentity.type: "Root"  ← "IAMUser"
	// - filter_mfa
	//   - additionalEventData.MFAUsed|contains: "yes"  ← nothing
}

// ExampleCompile matches an event against a rule.
func ExampleCompile() {
	docs, problems := sigma.Parse([]byte(`
title: Trail stopped
id: trail-stopped
logsource: {product: aws, service: cloudtrail}
detection:
    selection:
        eventName: [StopLogging, DeleteTrail]
    condition: selection
`), "trail.yml")
	set, more := sigma.Compile(docs, sigma.Options{})
	for _, p := range append(problems, more...) {
		fmt.Println(p)
	}
	m := set.Matcher()
	event := sigma.Event{Raw: []byte(`{"eventName":"StopLogging"}`), LogSource: sigma.LogSource{Product: "aws", Service: "cloudtrail"}}
	for _, r := range m.Match(event, nil) {
		fmt.Println(r.ID, r.Title)
	}
	// Output: trail-stopped Trail stopped
}
