package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// format is how a command prints its results.
type format struct {
	name  string
	names []string
}

const (
	asText   = "text"
	asJSON   = "json"
	asNDJSON = "ndjson"
	asBrief  = "brief"
)

// outputFlag adds the flag that chooses the format, the same for all commands.
func outputFlag(cmd *cobra.Command) *format { return outputOf(cmd, asText, asJSON) }

// outputOf is outputFlag for a command with formats of its own, the default
// first.
func outputOf(cmd *cobra.Command, names ...string) *format {
	f := &format{names[0], names}
	cmd.Flags().VarP(f, "output", "o", oneOfWords(names))
	completeFlag(cmd, "output", oneOf(names...))
	return f
}

func oneOfWords(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// String implements pflag.Value.
func (f *format) String() string { return f.name }

// Type implements pflag.Value.
func (f *format) Type() string { return "format" }

// Set implements pflag.Value.
func (f *format) Set(name string) error {
	if !slices.Contains(f.names, name) {
		return errors.New("use " + oneOfWords(f.names))
	}
	f.name = name
	return nil
}

// show prints one value: as a line of JSON, or as text writes it.
func (f *format) show(env *environment, value any, text func(out io.Writer)) error {
	if f.name == asText {
		text(env.out)
		return nil
	}
	if err := json.NewEncoder(env.out).Encode(value); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// list prints values as a table, or one JSON value per line. row returns the
// cells with tabs between them.
func list[T any](env *environment, output *format, values []T, head string, row func(T) string) error {
	if output.name == asJSON {
		encoder := json.NewEncoder(env.out)
		for _, v := range values {
			if err := encoder.Encode(v); err != nil {
				return fmt.Errorf("print: %w", err)
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(env.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, v := range values {
		cells := strings.Split(row(v), "\t")
		for i := range cells {
			cells[i] = printable(cells[i])
		}
		_, _ = io.WriteString(w, strings.Join(cells, "\t")+"\n")
	}
	return w.Flush()
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func anyOf(values []string) string {
	if len(values) == 0 {
		return "any"
	}
	return strings.Join(values, ",")
}

// paint colours text on a terminal.
func (e *environment) paint(code, text string) string {
	if !e.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// headline is an alert in one line.
func headline(env *environment, level, summary string) string {
	padded := fmt.Sprintf("%-13s", printable(level))
	switch level {
	case "high", "critical":
		padded = env.paint("31;1", padded)
	case "medium":
		padded = env.paint("33", padded)
	}
	return padded + " " + printable(summary)
}

// printable makes foreign text safe for a terminal: it takes out control
// characters, and with them escape sequences.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}
