// Package oracle_test compares package sigma with an independent engine: rules
// that pySigma turns into SQL and SQLite runs. `make test-oracle` sets it up.
package oracle_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

const (
	seed           = 20250802
	rules          = 2000
	eventsPerRule  = 8
	fewestCompared = 10_000
)

// python is the interpreter that has pySigma.
func python(t *testing.T) string {
	t.Helper()
	path := os.Getenv("STORMBELL_ORACLE_PYTHON")
	if path == "" {
		t.Skip("STORMBELL_ORACLE_PYTHON names no Python with pySigma: make test-oracle installs one and sets it")
	}
	return path
}

type question struct {
	Rule   string            `json:"rule"`
	Events []json.RawMessage `json:"events"`
}

type reply struct {
	Matches []int  `json:"matches"`
	Error   string `json:"error"`
}

func ask(t *testing.T, python string, questions []question) []reply {
	t.Helper()
	var in bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, q := range questions {
		require.NoError(t, enc.Encode(q))
	}
	cmd := exec.CommandContext(t.Context(), python, "oracle.py")
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	var replies []reply
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var r reply
		require.NoError(t, json.Unmarshal(lines.Bytes(), &r))
		replies = append(replies, r)
	}
	require.Len(t, replies, len(questions))
	return replies
}

// ours is what package sigma says of the same question.
func ours(q question) (matches []int, fault string) {
	docs, problems := sigma.Parse([]byte(q.Rule), "rule.yml")
	set, more := sigma.Compile(docs, sigma.Options{})
	for _, p := range append(problems, more...) {
		if p.Severity == sigma.Error {
			return nil, p.String()
		}
	}
	m := set.Matcher()
	for i, e := range q.Events {
		if len(m.Match(sigma.Event{Raw: e}, nil)) > 0 {
			matches = append(matches, i)
		}
	}
	return matches, ""
}

func TestAgainstPySigma(t *testing.T) {
	python := python(t)
	g := newGenerator(seed)
	questions := make([]question, rules)
	for i := range questions {
		questions[i].Rule = g.rule()
		for range eventsPerRule {
			questions[i].Events = append(questions[i].Events, json.RawMessage(g.event()))
		}
	}
	compare(t, python, questions, fewestCompared)
}

// compare asks both and demands that every difference is a known one.
func compare(t *testing.T, python string, questions []question, fewest int) {
	t.Helper()
	compared, matched := 0, 0
	explained := map[string]int{}
	var strange []string
	for i, r := range ask(t, python, questions) {
		q := questions[i]
		got, fault := ours(q)
		if r.Error != "" || fault != "" {
			why := explainRefusal(r.Error, fault)
			explained[why]++
			if why == "" {
				strange = append(strange, fmt.Sprintf("%s\npySigma: %q\nwe: %q", q.Rule, r.Error, fault))
			}
			continue
		}
		for j, e := range q.Events {
			compared++
			we, they := slices.Contains(got, j), slices.Contains(r.Matches, j)
			if we {
				matched++
			}
			if we == they {
				continue
			}
			why := explainDifference(q.Rule, string(e))
			explained[why]++
			if why == "" {
				strange = append(strange, fmt.Sprintf("%s\n%s\nwe say %t, pySigma %t", q.Rule, e, we, they))
			}
		}
	}
	t.Logf("%d pairs of rule and event compared, %d match", compared, matched)
	for why, n := range explained {
		t.Logf("%5d × %s", n, why)
	}
	require.Empty(t, strings.Join(strange[:min(len(strange), 12)], "\n---\n"), "%d differences that docs/sigma.md does not explain", len(strange))
	require.Greater(t, compared, fewest)
	require.Greater(t, matched, compared/10)
}

// difference is a row of the table in docs/sigma.md: where it applies, pySigma's
// SQLite backend and package sigma are known to differ, and why.
type difference struct {
	why   string
	rule  *regexp.Regexp // in the rule
	event *regexp.Regexp // in the event
	error *regexp.Regexp // in the message of whichever refuses
}

func differences() []difference {
	re := regexp.MustCompile
	return []difference{
		{why: "numbers in text compare as numbers here, by type in SQLite", rule: re(`\bn(\||:)`), event: re(`"n":"`)},
		{why: "null exists here, columns know no difference between null and absent", rule: re(`\|exists`), event: re(`:null`)},
		{why: "case beyond ASCII is folded here, not in SQLite", rule: re(`[äÄ]|fieldref`), event: re(`[äÄ]`)},
		{why: "a keyword's wildcards end with the value here, the backend has all values in one text", rule: re(`(?m)^    - "a\?c"$`), event: re(`"(f|g|h)":"`)},
		{why: "a date keeps its zone here, SQLite turns it into UTC", rule: re(`\bd\|`), event: re(`"d":"[^"]*\+09:00`)},
		{why: "only an address is in a network here, pySigma compares text from the left", rule: re(`\|cidr`), event: re(`"[0-9a-f.:]+x"`)},
		{why: "no date has such a part: refused here", error: re(`no date has`)},
		{why: "UTF-16 of text beyond ASCII: pySigma refuses", error: re(`only allowed for ascii`)},
	}
}

func explainRefusal(they, we string) string {
	for _, d := range differences() {
		if d.error != nil && d.error.MatchString(they+we) {
			return d.why
		}
	}
	return ""
}

func explainDifference(rule, event string) string {
	for _, d := range differences() {
		if d.error == nil && d.rule.MatchString(rule) && d.event.MatchString(event) {
			return d.why
		}
	}
	return ""
}
