package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// walk visits every command, groups too.
func walk(cmd *cobra.Command, visit func(cmd *cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

func newTree() *cobra.Command { return newRoot(testEnv(nil, nil, nil, nil)) }

// notMachineRead are the commands without --output, with the reason.
var notMachineRead = map[string]string{
	"stormbell up":              "standard output is lines of JSON",
	"stormbell completion":      "it prints a script",
	"stormbell config check":    "the exit code says it",
	"stormbell config print":    "it prints YAML",
	"stormbell keys bootstrap":  "it writes a file",
	"stormbell keys mint":       "it writes a file",
	"stormbell control export":  "it writes a file",
	"stormbell control import":  "the exit code says it",
	"stormbell keys rewrap":     "the exit code says it",
	"stormbell topics create":   "the exit code says it",
	"stormbell keys revoke":     "the exit code says it",
	"stormbell webhooks remove": "the exit code says it",
}

// TestCommandTree holds every command to the same form, those to come too.
func TestCommandTree(t *testing.T) {
	secret := regexp.MustCompile(`(?i)(secret|password|passphrase|token|credential|api-?key|private)`)
	walk(newTree(), func(cmd *cobra.Command) {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			path := cmd.CommandPath()
			require.Regexp(t, `^[A-Z].*[^.]$`, cmd.Short, "a heading begins with a capital and has no full stop")
			require.Less(t, len(cmd.Short), 90, "one line")
			for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
				require.Less(t, len([]rune(line)), 131, "a terminal would break %q", line)
			}
			if !cmd.HasSubCommands() {
				require.Contains(t, cmd.Example, path, "an example shows the command itself")
				require.NotNil(t, cmd.Args, "say with arguments() how many it takes")
				require.True(t, cmd.ValidArgsFunction != nil || len(cmd.ValidArgs) > 0 || strings.Contains(cmd.Use, "FILE") || strings.Contains(cmd.Use, "PATH") || strings.Contains(cmd.Use, "URL"),
					"a shell completes the arguments: offerFirst for ids, else oneOf or directories")
				_, excused := notMachineRead[path]
				require.NotEqual(t, excused, cmd.Flags().Lookup("output") != nil, "outputFlag, or a reason why not")
			}
			cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
				require.NotEmpty(t, f.Usage, f.Name)
				require.False(t, strings.HasSuffix(f.Usage, "."), f.Name)
				require.True(t, strings.HasSuffix(f.Name, "-file") || !secret.MatchString(f.Name),
					"--%s: others can read the arguments of a process: take a secret from a file", f.Name)
				if f.Name == "output" {
					require.Equal(t, "o", f.Shorthand, "outputFlag")
					require.Equal(t, "format", f.Value.Type(), "outputFlag")
				}
			})
		})
	})
}

// TestHelp reads what --help says of every command.
func TestHelp(t *testing.T) {
	walk(newTree(), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		t.Run(path, func(t *testing.T) {
			r := stormbell(t, "", nil, append(strings.Fields(path)[1:], "--help")...)
			require.Zero(t, r.code)
			require.Empty(t, r.err)
			require.Contains(t, r.out, "Usage:\n  stormbell")
			require.Contains(t, r.out, cmd.Example)
			if !cmd.HasSubCommands() {
				require.Regexp(t, `Exit codes:\n  0  success\n  1  failure.*\n  2  called in a wrong way\n$`, r.out)
			}
		})
	})
}

// TestExamples parses the command lines that help shows: all commands and
// flags in them are there.
func TestExamples(t *testing.T) {
	line := regexp.MustCompile(`stormbell [^|)>\n]*`)
	walk(newTree(), func(shown *cobra.Command) {
		for _, call := range line.FindAllString(shown.Example, -1) {
			words := strings.Fields(call)[1:]
			cmd, rest, err := newTree().Find(words)
			require.NoError(t, err, call)
			require.False(t, cmd.HasSubCommands(), "%s: no such command", call)
			require.NoError(t, cmd.ParseFlags(rest), call)
			if cmd.Args != nil {
				require.NoError(t, cmd.Args(cmd, cmd.Flags().Args()), call)
			}
		}
	})
}

// TestSuggestions shows that what is nearly right is put right.
func TestSuggestions(t *testing.T) {
	for typed, want := range map[string]string{
		"serve":                     "`stormbell up`",
		"sned":                      "`stormbell send`",
		"stat":                      "`stormbell status`",
		"listen":                    "`stormbell webhooks listen`",
		"check":                     "`stormbell config check` or `stormbell rules check`",
		"rules chekc":               "`stormbell rules check`",
		"webhooks delete":           "`stormbell webhooks remove`",
		"webhooks create":           "`stormbell webhooks add`",
		"keys remove":               "`stormbell keys revoke`",
		"up --rule x":               "`--rules`",
		"send --source-name x":      "",
		"webhooks add --minlevel x": "`--min-level`",
		"status --ulr x":            "`--url`",
		"status --ouptut json":      "`--output`",
		"frobnicate":                "",
	} {
		t.Run(typed, func(t *testing.T) {
			r := stormbell(t, "", nil, strings.Fields(typed)...)
			require.Equal(t, exitUsage, r.code)
			require.Regexp(t, "^stormbell: unknown (command|flag) ", r.err)
			if want == "" {
				require.NotContains(t, r.err, "Did you mean")
				return
			}
			require.Contains(t, r.err, "\nDid you mean "+want+"?\n")
		})
	}
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"send", "send", 0}, {"sned", "send", 1}, {"rule", "rules", 1}, {"kitten", "sitting", 3}, {"ulr", "url", 1}} {
		require.Equal(t, tc.want, distance(tc.a, tc.b), "%s %s", tc.a, tc.b)
	}
}

// TestColour shows who gets colour and progress: only a terminal that wants it.
func TestColour(t *testing.T) {
	for name, tc := range map[string]struct {
		environ      map[string]string
		out, err     bool
		colour, live bool
	}{
		"terminal":       {nil, true, true, true, true},
		"pipe":           {nil, false, true, false, true},
		"all pipes":      {nil, false, false, false, false},
		"NO_COLOR":       {map[string]string{"NO_COLOR": "1"}, true, true, false, true},
		"empty NO_COLOR": {map[string]string{"NO_COLOR": ""}, true, true, true, true},
		"dumb":           {map[string]string{"TERM": "dumb"}, true, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			env := testEnv(nil, nil, nil, tc.environ)
			env.look(tc.out, tc.err)
			require.Equal(t, tc.colour, env.colour)
			require.Equal(t, tc.live, env.live)
			require.Equal(t, tc.colour, strings.Contains(headline(env, "high", "x"), "\x1b["))
		})
	}
}

// TestCompletes asks as a shell does, for ids of a real gateway too.
func TestCompletes(t *testing.T) {
	i := startUp(t, t.TempDir(), "--rules", writeFile(t, t.TempDir(), "failed.yml", failedLogins))
	i.must("", "webhooks", "add", "http://127.0.0.1:9/", "--name", "soc")
	complete := func(words ...string) []string {
		lines := strings.Split(strings.TrimSpace(i.must("", append([]string{"__complete"}, words...)...)), "\n")
		return lines[:len(lines)-1] // the last line is a directive
	}
	require.Contains(t, complete("web"), "webhooks\tManage where alerts are sent to")
	require.Contains(t, complete("status", "--ou"), "--output\ttext or json")
	require.Equal(t, []string{"text", "json"}, complete("status", "-o", ""))
	require.Contains(t, complete("webhooks", "add", "--min-level", ""), "critical")
	require.Empty(t, complete("status", ""))

	ids := complete("webhooks", "remove", "")
	require.Len(t, ids, 1)
	require.Regexp(t, `^wh_[0-9a-v]+\tsoc http://127\.0\.0\.1:9$`, ids[0])
	require.Empty(t, complete("webhooks", "remove", "wh_x", ""), "it takes one")
	require.Len(t, complete("keys", "revoke", ""), 1)
	require.Contains(t, complete("webhooks", "add", "--rule", ""), manyID+"\tMany failed logins")

	// Without a gateway there is nothing to offer, and nothing goes wrong.
	require.Zero(t, i.stop())
	require.Empty(t, complete("webhooks", "remove", ""))
}

// TestNoGateway says what is wrong and what helps.
func TestNoGateway(t *testing.T) {
	key := writeFile(t, t.TempDir(), "key", "sbk_0_0\n")
	r := stormbell(t, "", nil, "status", "--url", "http://127.0.0.1:1", "--key-file", key)
	require.Equal(t, exitFailed, r.code)
	require.Regexp(t, "^stormbell: no gateway answers at http://127.0.0.1:1: start one with `stormbell up`, or name another with --url or STORMBELL_URL: .*refused\n$", r.err)

	i := startUp(t, t.TempDir())
	r = i.cli("", "status", "--key-file", key)
	require.Equal(t, exitFailed, r.code)
	require.Equal(t, "stormbell: the gateway answered 401: unknown API key (the key is that of "+key+": name another with --key-file or STORMBELL_API_KEY)\n", r.err)
}

// TestExcusesHold holds that excuses are for commands that exist.
func TestExcusesHold(t *testing.T) {
	var paths []string
	walk(newTree(), func(cmd *cobra.Command) { paths = append(paths, cmd.CommandPath()) })
	for path := range notMachineRead {
		require.True(t, slices.Contains(paths, path), path)
	}
}
