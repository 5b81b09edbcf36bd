package oracle_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const eventsPerPublicRule = 6

// TestPublicRulesAgainstPySigma asks about events that are made of each public
// rule's own values, so that most of them meet some of its selections.
func TestPublicRulesAgainstPySigma(t *testing.T) {
	python := python(t)
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "..", "shared")
	}
	dir := filepath.Join(shared, "corpora", "sigmahq", "rules")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no public rules: %v (set SHARED)", err)
	}
	g := newGenerator(seed)
	var questions []question
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yml" {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		questions = append(questions, question{Rule: string(src), Events: g.eventsOf(t, src)})
		return nil
	}))
	require.Greater(t, len(questions), 3000)
	compare(t, python, questions, 15_000)
}

// wanted is a field of a rule with its values.
type wanted struct {
	mods   []string
	values []*yaml.Node
}

// eventsOf makes events of a rule's own fields and values.
func (g *generator) eventsOf(t *testing.T, src []byte) []json.RawMessage {
	t.Helper()
	var rule struct{ Detection yaml.Node }
	require.NoError(t, yaml.Unmarshal(src, &rule))
	fields := map[string][]wanted{}
	collect(&rule.Detection, fields)
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	var out []json.RawMessage
	for range eventsPerPublicRule {
		event := map[string]any{}
		for _, name := range names {
			if g.chance(20) {
				continue
			}
			all := fields[name]
			if v, ok := g.valueOf(all[g.r.IntN(len(all))]); ok {
				event[name] = v
			}
		}
		raw, err := json.Marshal(event)
		require.NoError(t, err)
		out = append(out, raw)
	}
	return out
}

// collect gathers fields beneath a detection; keywords stand under "message".
func collect(n *yaml.Node, into map[string][]wanted) {
	switch n.Kind {
	case yaml.DocumentNode, yaml.SequenceNode:
		for _, item := range n.Content {
			if item.Kind == yaml.ScalarNode {
				into["message"] = append(into["message"], wanted{mods: []string{"contains"}, values: []*yaml.Node{item}})
				continue
			}
			collect(item, into)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.Value == "condition" {
				continue
			}
			scalars := value.Kind == yaml.ScalarNode || (value.Kind == yaml.SequenceNode && len(value.Content) > 0 && value.Content[0].Kind == yaml.ScalarNode)
			parts := strings.Split(key.Value, "|")
			if !scalars || (value.Kind == yaml.SequenceNode && len(parts) == 1 && isIdentifier(key.Value)) {
				collect(value, into)
				continue
			}
			if parts[0] == "" {
				parts[0] = "message"
			}
			w := wanted{mods: parts[1:], values: []*yaml.Node{value}}
			if value.Kind == yaml.SequenceNode {
				w.values = value.Content
			}
			into[parts[0]] = append(into[parts[0]], w)
		}
	}
}

// isIdentifier reports whether a key with a list is a search identifier of
// keywords rather than a field, by the names that the public rules use.
func isIdentifier(key string) bool { return strings.HasPrefix(key, "keyword") }

// valueOf draws a value that may satisfy a field.
func (g *generator) valueOf(w wanted) (any, bool) {
	has := func(mod string) bool { return slices.Contains(w.mods, mod) }
	texts := []string{}
	for _, v := range w.values {
		if v.Tag == "!!null" {
			return nil, false
		}
		texts = append(texts, plainText(v.Value))
	}
	v := w.values[g.r.IntN(len(w.values))]
	if len(w.mods) == 0 && v.Tag == "!!int" {
		var n int64
		if v.Decode(&n) == nil {
			return n, true
		}
	}
	s := plainText(v.Value)
	if has("all") {
		s = strings.Join(texts, " ")
	}
	if has("cidr") {
		s, _, _ = strings.Cut(v.Value, "/")
	}
	if has("contains") || has("endswith") || has("re") && g.chance(30) {
		s = "pre " + s
	}
	if has("contains") || has("startswith") {
		s += " post"
	}
	switch g.r.IntN(8) {
	case 0:
		s = strings.ToUpper(s)
	case 1:
		s += "x"
	case 2:
		s = strings.TrimPrefix(s, "pre ")
	}
	return s, true
}

// plainText fills wildcards and takes escapes away.
func plainText(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && strings.IndexByte(`*?\`, s[i+1]) >= 0:
			i++
			b.WriteByte(s[i])
		case s[i] == '*':
			b.WriteString("zz")
		case s[i] == '?':
			b.WriteByte('q')
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
