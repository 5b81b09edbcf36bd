package sigma_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

// corpora is the directory of public rules and events, which is no part of the
// repository: tests that need it skip without it.
func corpora(tb testing.TB, parts ...string) string {
	tb.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	path := filepath.Join(append([]string{shared, "corpora"}, parts...)...)
	if _, err := os.Stat(path); err != nil {
		tb.Skipf("no public corpora: %v (set SHARED)", err)
	}
	return path
}

// load compiles every rule file beneath dir.
func load(tb testing.TB, dir string) (*sigma.Set, []sigma.Problem) {
	tb.Helper()
	var docs []sigma.Document
	var problems []sigma.Problem
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || (filepath.Ext(path) != ".yml" && filepath.Ext(path) != ".yaml") {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		d2, p2 := sigma.Parse(src, name)
		docs, problems = append(docs, d2...), append(problems, p2...)
		return nil
	})
	require.NoError(tb, err)
	set, more := sigma.Compile(docs, sigma.Options{})
	return set, append(problems, more...)
}

// cloudTrail reads the records of every CloudTrail file beneath the directories,
// compacted.
func cloudTrail(tb testing.TB, dirs ...string) [][]byte {
	tb.Helper()
	var events [][]byte
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".json" {
				return err
			}
			src, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			var file struct{ Records []json.RawMessage }
			if json.Unmarshal(src, &file) != nil || file.Records == nil {
				if json.Unmarshal(src, &file.Records) != nil {
					return nil
				}
			}
			for _, r := range file.Records {
				var b bytes.Buffer
				if err := json.Compact(&b, r); err != nil {
					return err
				}
				events = append(events, b.Bytes())
			}
			return nil
		})
		require.NoError(tb, err)
	}
	return events
}

func TestPublicRulesAreAccepted(t *testing.T) {
	set, problems := load(t, corpora(t, "sigmahq", "rules"))
	warnings := 0
	for _, p := range problems {
		if p.Severity == sigma.Error {
			t.Log(p)
		} else {
			warnings++
		}
	}
	t.Logf("%d accepted, %d rejected, %d warnings", len(set.Rules()), sigma.Rejected(problems), warnings)
	require.Equal(t, 3141, len(set.Rules())) //nolint:testifylint // Len would print every rule
	require.Zero(t, sigma.Rejected(problems))
}

func TestCloudTrailMatches(t *testing.T) {
	set, problems := load(t, corpora(t, "sigmahq", "rules", "cloud", "aws"))
	require.Empty(t, problems)
	require.Equal(t, 57, len(set.Rules())) //nolint:testifylint // Len would print every rule
	events := cloudTrail(t, corpora(t, "invictus-cloudtrail"), corpora(t, "stratus"))
	m := set.Matcher()
	counts := map[string]int{}
	total := 0
	for _, raw := range events {
		for _, r := range m.Match(sigma.Event{Raw: raw, LogSource: sigma.LogSource{Product: "aws", Service: "cloudtrail"}, Strict: true}, nil) {
			counts[r.Title]++
			total++
		}
		require.NoError(t, m.Err())
	}
	var lines []string
	for title, n := range counts {
		lines = append(lines, title+": "+strings.Repeat("#", min(n, 40)))
	}
	slices.Sort(lines)
	t.Logf("%d events, %d matches\n%s", len(events), total, strings.Join(lines, "\n"))
}
