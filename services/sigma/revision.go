package sigma

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// encoder writes a canonical encoding: every piece is preceded by its length,
// so that different contents never give the same bytes.
type encoder struct{ b []byte }

func newEncoder(kind string) *encoder { return (&encoder{}).text(kind) }

func (e *encoder) text(s string) *encoder {
	e.b = binary.AppendUvarint(e.b, uint64(len(s)))
	e.b = append(e.b, s...)
	return e
}

func (e *encoder) bool(v bool) *encoder { return e.text(strconv.FormatBool(v)) }

func (e *encoder) int(v int64) *encoder { return e.text(strconv.FormatInt(v, 10)) }

func (e *encoder) list(items []string) *encoder {
	e.int(int64(len(items)))
	for _, s := range items {
		e.text(s)
	}
	return e
}

func (e *encoder) pattern(p *pattern) {
	e.int(int64(p.kind)).text(p.lit).int(int64(len(p.toks)))
	for _, t := range p.toks {
		e.int(int64(t.kind)).text(t.text)
	}
}

// tree writes a YAML tree with mappings sorted by key.
func (e *encoder) tree(n *node) *encoder {
	switch n.kind {
	case yaml.MappingNode:
		order := make([]int, len(n.keys))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int {
			if n.keys[a].value < n.keys[b].value {
				return -1
			}
			return 1
		})
		e.text("map").int(int64(len(order)))
		for _, i := range order {
			e.text(n.keys[i].value).tree(n.items[i])
		}
	case yaml.SequenceNode:
		e.text("list").int(int64(len(n.items)))
		for _, item := range n.items {
			e.tree(item)
		}
	default:
		e.text(n.tag).text(n.value)
	}
	return e
}

func (e *encoder) bytes() []byte { return e.b }

// revision is the first 32 hex digits of the encoding's SHA-256.
func (e *encoder) revision() string {
	sum := sha256.Sum256(e.b)
	return hex.EncodeToString(sum[:16])
}

// detectionRevision covers what decides whether a detection rule matches: its
// log source and detection, the values of its placeholders, the filters that
// apply to it and what pipelines changed.
func detectionRevision(a *assembled, d *detection, filters []string, changes []byte) string {
	e := newEncoder("sigma detection 1")
	e.text(a.logsource.Product).text(a.logsource.Service).text(a.logsource.Category)
	e.tree(d.node)
	e.placeholders(d.placeholders, a.placeholders)
	if len(filters) > 0 {
		slices.Sort(filters)
		e.text("filters").list(filters)
	}
	if len(changes) > 0 {
		e.text("pipelines").text(string(changes))
	}
	return e.revision()
}

// filterRevision covers what decides whether a filter lets an event pass.
func filterRevision(f *filterDoc, placeholders map[string][]string) string {
	return newEncoder("sigma filter 1").tree(f.node).placeholders(f.placeholders, placeholders).revision()
}

// placeholders writes the values of those that are used.
func (e *encoder) placeholders(used []string, values map[string][]string) *encoder {
	used = slices.Clone(used)
	slices.Sort(used)
	used = slices.Compact(used)
	e.int(int64(len(used)))
	for _, name := range used {
		e.text(name).list(values[name])
	}
	return e
}

// correlationRevision covers what decides when a correlation fires. referred
// are the revisions of its rules, in listed order.
func correlationRevision(c *Correlation, referred []string) string {
	e := newEncoder("sigma correlation 1")
	e.text(string(c.Type)).list(c.Rules).list(referred).list(c.GroupBy)
	e.int(c.Timespan).int(int64(len(c.Condition.Bounds)))
	for _, b := range c.Condition.Bounds {
		e.text(string(b.Op)).text(b.Number)
	}
	if c.Condition.Tree != nil {
		c.Condition.Tree.encode(e)
	}
	e.text(c.Percentile).list(c.Field)
	e.aliases(c.Aliases)
	for _, rule := range sortedKeys(c.renamed) {
		for _, name := range sortedKeys(c.renamed[rule]) {
			e.text("renamed").text(rule).text(name).text(c.renamed[rule][name])
		}
	}
	e.bool(c.StrictTies).int(c.Lateness).int(c.Suppress)
	if c.Window != "" {
		e.text("window").text(string(c.Window)).int(c.Gap)
	}
	if c.Updates {
		e.text("updates")
	}
	if c.Extension != (Extension{}) {
		c.Extension.encode(e)
	}
	return e.revision()
}

// aliases writes alias to rule to field.
func (e *encoder) aliases(all map[string]map[string]string) {
	aliases := sortedKeys(all)
	e.int(int64(len(aliases)))
	for _, alias := range aliases {
		e.text(alias)
		rules := sortedKeys(all[alias])
		e.int(int64(len(rules)))
		for _, rule := range rules {
			e.text(rule).text(all[alias][rule])
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
