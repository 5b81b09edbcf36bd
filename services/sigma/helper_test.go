package sigma_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

// ruleWith is a rule with this detection section, indented by four.
func ruleWith(detection string) string {
	return "title: Test\nid: test\nlogsource:\n    product: test\ndetection:\n" + indent(detection)
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.Trim(s, "\n")) {
		b.WriteString("    " + line)
	}
	return b.String() + "\n"
}

// selection is a rule whose one selection holds these lines.
func selection(lines string) string {
	return ruleWith("sel:\n" + indent(lines) + "condition: sel")
}

// errorsOf are the problems that reject, as text.
func errorsOf(problems []sigma.Problem) []string {
	var out []string
	for _, p := range problems {
		if p.Severity == sigma.Error {
			out = append(out, p.String())
		}
	}
	return out
}

// knownWarnings are those over the public rules: each is right.
func knownWarnings() []string {
	return []string{
		"linux/process_creation/proc_creation_lnx_susp_sensitive_file_access.yml:51: detection.filter_main_mdadm.conf: warning: only a pattern can refer to a name like this: use letters, digits, _ and -",
		"macos/process_creation/proc_creation_macos_file_and_directory_discovery.yml:27: detection.select_tree_execution|endswith: warning: only a pattern can refer to a name like this: use letters, digits, _ and -",
	}
}

func warningsOf(problems []sigma.Problem) []string {
	var out []string
	for _, p := range problems {
		if p.Severity == sigma.Warning {
			out = append(out, p.String())
		}
	}
	return out
}

// compile demands that every document is good.
func compile(tb testing.TB, src string, opts sigma.Options) *sigma.Set {
	tb.Helper()
	docs, problems := sigma.Parse([]byte(src), "test.yml")
	require.Empty(tb, errorsOf(problems), "%s", src)
	set, problems := sigma.Compile(docs, opts)
	require.Empty(tb, errorsOf(problems), "%s", src)
	return set
}

func matches(tb testing.TB, set *sigma.Set, event string) bool {
	tb.Helper()
	m := set.Matcher()
	rules := m.Match(sigma.Event{Raw: []byte(event)}, nil)
	require.NoError(tb, m.Err(), event)
	return len(rules) > 0
}

// reject parses and compiles, and gives all errors.
func reject(src string, opts sigma.Options) []string {
	docs, problems := sigma.Parse([]byte(src), "test.yml")
	_, more := sigma.Compile(docs, opts)
	return errorsOf(append(problems, more...))
}
