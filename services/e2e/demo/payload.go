package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const jsonWidth = 104

// payload shows a whole delivery, as it came, with its headers.
func (s *show) payload(a *alert) error {
	s.head("The same alert's webhook, whole, as it was verified")
	d := a.delivery
	s.say("  POST %s", d.Path)
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		s.say("  %s: %s", s.dim(strings.ToLower(name)), plain(strings.Join(d.Headers[name], ", ")))
	}
	text, err := layout(d.Body, "  ")
	if err != nil {
		return err
	}
	s.say("\n  %s\n", text)
	s.say("  %s", s.green("✓ webhook-signature verifies")+" with the Go library of Standard Webhooks, other people's code; the secret is not shown.")
	return nil
}

// layout writes JSON for people: what fits stands on one line.
func layout(text []byte, indent string) (string, error) {
	if len(text) == 0 || text[0] != '{' && text[0] != '[' {
		return string(text), nil
	}
	inner := indent + "  "
	parts, err := members(text, inner)
	if err != nil {
		return "", err
	}
	open, end := string(text[:1]), "}"
	if open == "[" {
		end = "]"
	}
	line := open + strings.Join(parts, ", ") + end
	if len(line)+len(indent) <= jsonWidth && !strings.Contains(line, "\n") {
		return line, nil
	}
	return open + "\n" + inner + strings.Join(parts, ",\n"+inner) + "\n" + indent + end, nil
}

// members are those of an object or an array, laid out.
func members(text []byte, indent string) ([]string, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	begin, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("lay out JSON: %w", err)
	}
	var parts []string
	for d.More() {
		name := ""
		if begin == json.Delim('{') {
			key, err := d.Token()
			if err != nil {
				return nil, fmt.Errorf("lay out JSON: %w", err)
			}
			name = fmt.Sprintf("%q: ", key)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("lay out JSON: %w", err)
		}
		laid, err := layout(value, indent)
		if err != nil {
			return nil, err
		}
		parts = append(parts, name+laid)
	}
	return parts, nil
}
