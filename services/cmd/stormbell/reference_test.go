package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/internal/config"
)

//go:generate go test -run ^TestReferences$ . -update

// TestReferences holds docs/reference against the code; with -update it writes
// them.
func TestReferences(t *testing.T) {
	docs := filepath.Join("..", "..", "..", "docs", "reference")
	settings, err := config.Reference(configTitle, config.Settings(process.Defaults()), func(pkg string) string {
		_, room, ok := strings.Cut(pkg, "/stormbell/services/")
		require.True(t, ok, pkg)
		return filepath.Join("..", "..", filepath.FromSlash(room))
	})
	require.NoError(t, err)
	var commands strings.Builder
	commands.WriteString(cliTitle)
	root := newRoot(&environment{in: strings.NewReader(""), out: io.Discard, err: io.Discard, getenv: func(string) string { return "" }})
	describe(&commands, root)
	for _, kind := range []string{"gateway", "correlator", "notifier"} {
		fmt.Fprintf(&commands, "\n## %s\n\n```\n%s```\n", kind, process.Usage(kind))
	}
	for name, text := range map[string]string{"config.md": settings, "cli.md": commands.String()} {
		path := filepath.Join(docs, name)
		if flag.Lookup("update").Value.String() == "true" {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			continue
		}
		have, err := os.ReadFile(path)
		require.NoError(t, err)
		want, got := strings.Split(text, "\n"), strings.Split(string(have), "\n")
		for n := range min(len(want), len(got)) {
			require.Equal(t, want[n], got[n], "%s:%d is not what the code says: run `make generate`", path, n+1)
		}
		require.Len(t, got, len(want), "%s is not what the code says: run `make generate`", path)
	}
}

const configTitle = `# Settings

Generated from the code by ` + "`make generate`" + `; do not edit.

Settings come from defaults, then one YAML file (` + "`--config`" + ` or ` + "`STORMBELL_CONFIG`" + `), then environment variables, then flags.
A key that is not listed here is an error. One file can serve a whole cluster: each process reads it whole and uses what
concerns it. ` + "`stormbell config check`" + ` says what is wrong with it, ` + "`stormbell config print`" + ` what is in force.

` + "`stormbell up`" + ` has 4 partitions and one replica, may reach webhooks on this machine without TLS while it
listens on loopback itself, and brings its own broker,
state and root key: the groups ` + "`kafka` and `redis`" + ` are for clusters. The data directory is ` + "`--data` or `STORMBELL_DATA`" + `.
OpenTelemetry is set up by its own ` + "`OTEL_*`" + ` variables.
`

const cliTitle = `# Command line

Generated from the code by ` + "`make generate`" + `; do not edit.

Results go to standard output, everything else to standard error. ` + "`-o json`" + ` prints one JSON value per line, whose fields
may be added to, but are not renamed. Colour and progress are for terminals only; ` + "`NO_COLOR=1`" + ` leaves colour out.
` + "`stormbell completion`" + ` prints completions for shells.
`

// unindent takes away what help puts before each line.
func unindent(text string) string {
	return strings.ReplaceAll(strings.TrimPrefix(text, "  "), "\n  ", "\n")
}

// describe writes a command and all beneath it.
func describe(out *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden || cmd.Name() == "help" {
		return
	}
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintf(out, "\n## %s\n\n%s\n", cmd.CommandPath(), strings.TrimSpace(text))
	if cmd.Runnable() && !cmd.HasSubCommands() {
		fmt.Fprintf(out, "\n```\n%s\n```\n", cmd.UseLine())
	}
	var rows strings.Builder
	row := func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		value := f.DefValue
		if value == "[]" || value == "false" {
			value = ""
		}
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&rows, "| `%s` | %s | %s |\n", name, value, strings.ReplaceAll(f.Usage, "|", `\|`))
	}
	cmd.LocalFlags().VisitAll(row)
	if rows.Len() > 0 {
		fmt.Fprintf(out, "\n| Flag | Default | Meaning |\n| --- | --- | --- |\n%s", rows.String())
	}
	if cmd.Example != "" {
		fmt.Fprintf(out, "\nExample:\n\n```\n%s\n```\n", unindent(cmd.Example))
	}
	if !cmd.HasSubCommands() {
		fmt.Fprintf(out, "\nExit codes:\n\n```\n%s```\n", unindent(exitCodes(cmd)))
	}
	for _, sub := range cmd.Commands() {
		describe(out, sub)
	}
}
