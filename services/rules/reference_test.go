package rules_test

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/stormbell/stormbell/services/rules"
)

//go:generate go test -run ^TestReference$ . -update

// head is what the reference shows of a rule.
type head struct {
	file                   string
	Title, ID, Name, Level string
	Description            string
	Tags                   []string
	FalsePositives         []string `yaml:"falsepositives"`
	Correlation            *correlated
}

type correlated struct {
	Type      string
	Rules     []string
	GroupBy   []string `yaml:"group-by"`
	Timespan  string
	Generate  bool
	Condition map[string]any // of value_count with its field
}

// heads returns all rules, and which of them alert by themselves.
func heads(t *testing.T) (all []head, silent map[string]bool) {
	t.Helper()
	files, _ := pack(t)
	referred, generated := make(map[string]bool), make(map[string]bool)
	for _, f := range files {
		h := head{file: strings.TrimPrefix(f.Name, rules.Prefix)}
		require.NoError(t, yaml.Unmarshal(f.Content, &h))
		if h.Correlation != nil {
			for _, name := range h.Correlation.Rules {
				referred[name] = true
				generated[name] = generated[name] || h.Correlation.Generate
			}
		}
		all = append(all, h)
	}
	silent = make(map[string]bool)
	for name := range referred {
		silent[name] = !generated[name]
	}
	return all, silent
}

// TestPackCounts holds how many rules there are of each kind.
func TestPackCounts(t *testing.T) {
	all, silent := heads(t)
	count := make(map[string]int)
	across := 0
	byName := make(map[string]head)
	for _, h := range all {
		byName[h.Name] = h
		dir := path.Dir(h.file)
		count[dir]++
		require.Equal(t, h.Correlation != nil, dir == "correlation", h.file)
		if dir == "aws" && !silent[h.Name] {
			count["aws that alert"]++
		}
		if silent[h.Name] {
			require.Equal(t, "informational", h.Level, h.file)
			require.Contains(t, h.Description, "no alert of its own", h.file)
		}
	}
	for _, h := range all {
		if h.Correlation == nil {
			continue
		}
		rooms := make(map[string]bool)
		for _, name := range h.Correlation.Rules {
			require.Contains(t, byName, name, h.file)
			rooms[path.Dir(byName[name].file)] = true
		}
		if len(rooms) > 1 {
			across++
		}
	}
	require.GreaterOrEqual(t, count["aws that alert"], 20)
	require.GreaterOrEqual(t, count["correlation"], 6)
	require.GreaterOrEqual(t, across, 1, "a correlation across AWS and host events")
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "rules.md"))
	require.NoError(t, err)
	require.Contains(t, string(page), fmt.Sprintf("puts %d rules in force for all tenants: %d detections of AWS, %d more rules that only correlations count,\nand %d correlations",
		len(all), count["aws that alert"], len(all)-count["aws that alert"]-count["correlation"], count["correlation"]))
}

// TestReference holds docs/reference/rules.md against the rules; with -update
// it writes it.
func TestReference(t *testing.T) {
	compare(t, filepath.Join("..", "..", "docs", "reference", "rules.md"), reference(t))
}

func compare(t *testing.T, file, want string) {
	t.Helper()
	if updating() {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
		return
	}
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, want, string(have), "%s is not what the rules say: run `make generate`", file)
}

func reference(t *testing.T) string {
	t.Helper()
	all, silent := heads(t)
	var out strings.Builder
	out.WriteString("# Rules\n\nGenerated from the code by `make generate`; do not edit.\n\n" +
		"These rules come with Stormbell and are in force unless `--no-default-rules` leaves them out: [rules.md](../rules.md).\n")
	for _, room := range []struct{ dir, title string }{{"aws", "AWS"}, {"correlation", "Correlations"}, {"host", "Hosts"}} {
		fmt.Fprintf(&out, "\n## %s\n", room.title)
		for i := range all {
			if path.Dir(all[i].file) == room.dir {
				all[i].write(&out, silent)
			}
		}
	}
	return out.String()
}

func (h *head) write(out *strings.Builder, silent map[string]bool) {
	fmt.Fprintf(out, "\n### %s\n\n", h.Title)
	level := h.Level
	if silent[h.Name] {
		level += ", only counted by correlations"
	}
	var techniques []string
	for _, tag := range h.Tags {
		if id, ok := strings.CutPrefix(tag, "attack.t"); ok {
			techniques = append(techniques, "T"+id)
		}
	}
	fmt.Fprintf(out, "`%s` · %s · %s · `%s`\n\n%s\n", h.file, level, strings.Join(techniques, ", "), h.ID, strings.TrimSpace(h.Description))
	if c := h.Correlation; c != nil {
		fmt.Fprintf(out, "\nCounts: %s of `%s` by `%s` within %s%s.\n", c.Type, strings.Join(c.Rules, "`, `"), strings.Join(c.GroupBy, "`, `"), c.Timespan, c.bound())
	}
	fmt.Fprintf(out, "\nFalse positives: %s.\n", strings.Join(h.FalsePositives, "; "))
}

// bound is a correlation's condition in words.
func (c *correlated) bound() string {
	for _, op := range []string{"gte", "gt"} {
		if n, ok := c.Condition[op]; ok {
			field := ""
			if f, ok := c.Condition["field"]; ok {
				field = fmt.Sprintf(" different `%v`", f)
			}
			return fmt.Sprintf(", %s %v%s", map[string]string{"gte": "at least", "gt": "more than"}[op], n, field)
		}
	}
	return ""
}
