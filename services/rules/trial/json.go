package trial

import (
	"encoding/json"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// appendJSON appends a YAML node as JSON, keys in their order. "{n}" in texts
// becomes the number of the copy.
func appendJSON(dst []byte, n *yaml.Node, copyNumber string) ([]byte, *fault) {
	var wrong *fault
	switch n.Kind {
	case yaml.MappingNode:
		dst = append(dst, '{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendText(dst, n.Content[i].Value), ':')
			if dst, wrong = appendJSON(dst, n.Content[i+1], copyNumber); wrong != nil {
				return nil, wrong
			}
		}
		return append(dst, '}'), nil
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, item := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, wrong = appendJSON(dst, item, copyNumber); wrong != nil {
				return nil, wrong
			}
		}
		return append(dst, ']'), nil
	default:
		return appendScalar(dst, n, copyNumber)
	}
}

func appendScalar(dst []byte, n *yaml.Node, copyNumber string) ([]byte, *fault) {
	switch n.ShortTag() {
	case "!!null":
		return append(dst, "null"...), nil
	case "!!bool":
		return strconv.AppendBool(dst, strings.EqualFold(n.Value, "true")), nil
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return append(dst, n.Value...), nil
		}
		return nil, faultf(n, "%s: JSON has no such number: write it in decimal, or in quotes as text", n.Value)
	case "!!str", "!!timestamp":
		return appendText(dst, strings.ReplaceAll(n.Value, "{n}", copyNumber)), nil
	default:
		return nil, faultf(n, "%s: JSON has no such type: write it in quotes", n.ShortTag())
	}
}

// appendText appends a text as JSON as loggers write it: with no more escapes
// than needed.
func appendText(dst []byte, s string) []byte {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always can be
	return append(dst, strings.TrimSuffix(b.String(), "\n")...)
}
