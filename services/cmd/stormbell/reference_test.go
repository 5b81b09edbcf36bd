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
	root.InitDefaultCompletionCmd()
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

Exit codes: 0 success, 1 failure or something found (a rejected rule, a rejected event), 2 a mistake in how the command
was called. Results go to standard output, everything else to standard error.
`

// describe writes a command and all beneath it.
func describe(out *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden || cmd.Name() == "help" {
		return
	}
	if cmd.Name() == "completion" { // the library explains each shell at length
		fmt.Fprintf(out, "\n## %s\n\n%s.\n\n```\nstormbell completion bash|fish|powershell|zsh\n```\n", cmd.CommandPath(), cmd.Short)
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
		var lines []string
		for line := range strings.Lines(cmd.Example) {
			lines = append(lines, strings.TrimPrefix(strings.TrimRight(line, "\n"), "  "))
		}
		fmt.Fprintf(out, "\nExample:\n\n```\n%s\n```\n", strings.Join(lines, "\n"))
	}
	for _, sub := range cmd.Commands() {
		describe(out, sub)
	}
}
