package sigma

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// node is a YAML node with aliases and merge keys expanded, within bounds.
type node struct {
	kind  yaml.Kind // ScalarNode, MappingNode or SequenceNode
	tag   string    // short, for example "!!str"
	value string
	line  int
	keys  []*node // of a mapping, each a scalar
	items []*node // of a sequence, or a mapping's values
}

// get returns a mapping's value, or nil.
func (n *node) get(key string) *node {
	if n == nil || n.kind != yaml.MappingNode {
		return nil
	}
	for i, k := range n.keys {
		if k.value == key {
			return n.items[i]
		}
	}
	return nil
}

func (n *node) isNull() bool { return n.kind == yaml.ScalarNode && n.tag == "!!null" }

// isText: a date without quotes is text too.
func (n *node) isText() bool {
	return n.kind == yaml.ScalarNode && (n.tag == "!!str" || n.tag == "!!timestamp")
}

// what names the node's type for messages.
func (n *node) what() string {
	switch {
	case n.kind == yaml.MappingNode:
		return "a mapping"
	case n.kind == yaml.SequenceNode:
		return "a list"
	case n.tag == "!!null":
		return "null"
	case n.tag == "!!str":
		return "text"
	default:
		return strings.TrimPrefix(n.tag, "!!")
	}
}

// fault is an error at a place in a document.
type fault struct {
	line    int
	field   string
	message string
	warning bool
}

func (f *fault) Error() string { return f.message }

func faultf(n *node, field, format string, args ...any) *fault {
	f := &fault{field: field, message: fmt.Sprintf(format, args...)}
	if n != nil {
		f.line = n.line
	}
	return f
}

// readYAML parses one document. first is the line of raw's first byte.
func readYAML(raw []byte, first int) (*node, *fault) {
	var root yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(raw)))
	if err := dec.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		message, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
		if m := regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\s*)?line (\d+): `).FindStringSubmatch(err.Error()); m != nil {
			line, _ = strconv.Atoi(m[1])
			message = strings.TrimPrefix(err.Error(), m[0])
		}
		return nil, &fault{line: first + line - 1, message: "not valid YAML: " + message}
	}
	if len(root.Content) == 0 || (root.Content[0].Kind == yaml.ScalarNode && root.Content[0].Tag == "!!null") {
		return nil, nil
	}
	e := expander{first: first}
	n, f := e.expand(root.Content[0], 0)
	if f != nil {
		return nil, f
	}
	return n, nil
}

// expander copies YAML nodes, counting what aliases unfold to.
type expander struct {
	first int
	count int
}

func (e *expander) expand(y *yaml.Node, depth int) (*node, *fault) {
	line := e.first + y.Line - 1
	if e.count++; e.count > MaxNodes {
		return nil, &fault{line: line, message: fmt.Sprintf("more than %d YAML nodes, aliases expanded: split the rule", MaxNodes)}
	}
	if depth > MaxDepth {
		return nil, &fault{line: line, message: fmt.Sprintf("nested deeper than %d levels", MaxDepth)}
	}
	switch y.Kind {
	case yaml.AliasNode:
		return e.expand(y.Alias, depth+1)
	case yaml.ScalarNode:
		return &node{kind: y.Kind, tag: y.ShortTag(), value: y.Value, line: line}, nil
	case yaml.SequenceNode:
		n := &node{kind: y.Kind, tag: y.ShortTag(), line: line}
		for _, c := range y.Content {
			item, f := e.expand(c, depth+1)
			if f != nil {
				return nil, f
			}
			n.items = append(n.items, item)
		}
		return n, nil
	case yaml.MappingNode:
		return e.mapping(y, line, depth)
	default:
		return nil, &fault{line: line, message: "unexpected YAML node"}
	}
}

func (e *expander) mapping(y *yaml.Node, line, depth int) (*node, *fault) {
	n := &node{kind: yaml.MappingNode, tag: y.ShortTag(), line: line}
	place := map[string]int{}
	var merged []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, f := e.expand(y.Content[i], depth+1)
		if f != nil {
			return nil, f
		}
		v, f := e.expand(y.Content[i+1], depth+1)
		if f != nil {
			return nil, f
		}
		if k.kind != yaml.ScalarNode {
			return nil, &fault{line: k.line, message: "a key must be text, not " + k.what()}
		}
		if k.tag == "!!merge" {
			if v.kind == yaml.SequenceNode {
				merged = append(merged, v.items...)
			} else {
				merged = append(merged, v)
			}
			continue
		}
		if at, dup := place[k.value]; dup {
			return nil, &fault{line: k.line, message: fmt.Sprintf("key %q stands here and in line %d: remove one", k.value, n.keys[at].line)}
		}
		place[k.value] = len(n.keys)
		n.keys, n.items = append(n.keys, k), append(n.items, v)
	}
	for _, m := range merged {
		if m.kind != yaml.MappingNode {
			return nil, &fault{line: m.line, message: "<< merges mappings only, not " + m.what()}
		}
		for i, k := range m.keys {
			if _, has := place[k.value]; !has {
				place[k.value] = len(n.keys)
				n.keys, n.items = append(n.keys, k), append(n.items, m.items[i])
			}
		}
	}
	return n, nil
}
