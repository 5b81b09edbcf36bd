package rules_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/sigma"
)

// record is what of a CloudTrail record says whether it belongs to an attack.
type record struct {
	file  string
	agent string
}

// heard is one alert and the records that it is about.
type heard struct {
	title   string
	records []record
}

// hear returns what the rules say to the CloudTrail files of a public corpus.
func hear(t *testing.T, pattern string) (alerts []heard, files []string) {
	t.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	paths, err := filepath.Glob(filepath.Join(shared, "corpora", pattern))
	require.NoError(t, err)
	if len(paths) == 0 {
		t.Skipf("corpora/%s is not there: set SHARED to the directory that holds corpora/", pattern)
	}
	records, lines := make(map[string]record), new(bytes.Buffer)
	for _, path := range paths {
		files = append(files, filepath.Base(path))
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var file struct{ Records []json.RawMessage }
		if json.Unmarshal(text, &file) != nil || file.Records == nil {
			require.NoError(t, json.Unmarshal(text, &file.Records), path)
		}
		for _, raw := range file.Records {
			var r struct{ EventID, UserAgent string }
			require.NoError(t, json.Unmarshal(raw, &r))
			records[r.EventID] = record{filepath.Base(path), r.UserAgent}
			require.NoError(t, json.Compact(lines, raw))
			lines.WriteByte('\n')
		}
	}
	return evaluate(t, lines.Bytes(), records), files
}

func evaluate(t *testing.T, lines []byte, records map[string]record) (alerts []heard) {
	t.Helper()
	files, _ := pack(t)
	var docs []sigma.Document
	for _, f := range files {
		d, _ := sigma.Parse(f.Content, f.Name)
		docs = append(docs, d...)
	}
	s := settings()
	set, problems := sigma.Compile(docs, s.Sigma)
	require.Empty(t, problems)
	run, err := correlator.NewEvaluation(t.Context(), s.Correlator, set)
	require.NoError(t, err)
	decoder, err := gateway.NewDecoder(s.Gateway, "default", "")
	require.NoError(t, err)
	events, rejected, err := decoder.Lines(lines)
	require.NoError(t, err)
	require.Empty(t, rejected)
	matched, err := run.Evaluator().Match(t.Context(), events)
	require.NoError(t, err)
	require.NoError(t, run.Fold(t.Context(), matched, func(a *alertv1.Alert) error {
		h := heard{title: a.GetRule().GetTitle()}
		for _, e := range a.GetEvents() {
			h.records = append(h.records, records[e.GetId()])
		}
		alerts = append(alerts, h)
		return nil
	}, func(reason string) { require.Fail(t, "an event was left out", reason) }))
	return alerts
}

// TestInvictus holds the first table of docs/rules.md: the corpus names the
// attack in the user agent, and Terraform beside it where the scene is set up
// and cleaned away.
func TestInvictus(t *testing.T) {
	alerts, _ := hear(t, "invictus-cloudtrail/CloudTrail/*.json")
	type row struct{ all, attack, scenery int }
	rows := make(map[string]row)
	var sum row
	for _, a := range alerts {
		r := rows[a.title]
		r.all, sum.all = r.all+1, sum.all+1
		named := func(word string) bool {
			return !slices.ContainsFunc(a.records, func(r record) bool { return !strings.Contains(r.agent, word) })
		}
		switch {
		case named("Terraform"):
			r.scenery, sum.scenery = r.scenery+1, sum.scenery+1
		case named("stratus-red-team"):
			r.attack, sum.attack = r.attack+1, sum.attack+1
		}
		rows[a.title] = r
	}
	var table strings.Builder
	table.WriteString("| Rule | Alerts | of the attack | of its scenery | of others |\n| --- | --- | --- | --- | --- |\n")
	line := func(title string, r row) {
		fmt.Fprintf(&table, "| %s | %d | %d | %d | %d |\n", title, r.all, r.attack, r.scenery, r.all-r.attack-r.scenery)
	}
	titles := make([]string, 0, len(rows))
	for title := range rows {
		titles = append(titles, title)
	}
	slices.Sort(titles)
	for _, title := range titles {
		line(title, rows[title])
	}
	line("**all**", sum)
	block(t, "invictus", table.String())
}

// TestStratus holds the second table: each file of the corpus is the record of
// one technique.
func TestStratus(t *testing.T) {
	alerts, files := hear(t, "stratus/docs/detonation-logs/*.json")
	told := make(map[string][]string)
	for _, a := range alerts {
		for _, r := range a.records {
			if !slices.Contains(told[r.file], a.title) {
				told[r.file] = append(told[r.file], a.title)
			}
		}
	}
	var table, silent strings.Builder
	table.WriteString("| Technique | Alerts |\n| --- | --- |\n")
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(file, "aws."), ".json")
		if len(told[file]) == 0 {
			fmt.Fprintf(&silent, ", `%s`", name)
			continue
		}
		slices.Sort(told[file])
		fmt.Fprintf(&table, "| `%s` | %s |\n", name, strings.Join(told[file], "; "))
	}
	fmt.Fprintf(&table, "\n%d of %d techniques are told. Not told: %s.\n", len(told), len(files), strings.TrimPrefix(silent.String(), ", "))
	block(t, "stratus", table.String())
}

// block holds what stands between two comments of docs/rules.md; with -update
// it writes it.
func block(t *testing.T, name, want string) {
	t.Helper()
	file := filepath.Join("..", "..", "docs", "rules.md")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), "<!-- "+name+" -->\n")
	require.True(t, ok, name)
	have, after, ok := strings.Cut(rest, "<!-- end -->\n")
	require.True(t, ok, name)
	if updating() {
		require.NoError(t, os.WriteFile(file, []byte(before+"<!-- "+name+" -->\n"+want+"<!-- end -->\n"+after), 0o644))
		return
	}
	require.Equal(t, want, have, "%s: `go test ./rules -update` writes it", file)
}
