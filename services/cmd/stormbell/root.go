package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
)

// Exit codes, which scripts depend on.
const (
	exitOK     = 0
	exitFailed = 1 // it failed, or it found something
	exitUsage  = 2
)

// environment is what a command knows of the world around it.
type environment struct {
	in      io.Reader
	out     io.Writer
	err     io.Writer
	getenv  func(string) string
	environ []string
	// live is set where err is a terminal, colour where out is one and wants it.
	live, colour bool
}

func systemEnv() *environment {
	env := &environment{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv, environ: os.Environ()}
	env.look(isatty.IsTerminal(os.Stdout.Fd()), isatty.IsTerminal(os.Stderr.Fd()))
	return env
}

// look decides what a terminal gets: https://no-color.org holds for colour.
func (e *environment) look(out, err bool) {
	able := e.getenv("TERM") != "dumb"
	e.live = err && able
	e.colour = out && able && e.getenv("NO_COLOR") == ""
}

// errFindings fails a command whose output already says why.
var errFindings = errors.New("findings")

// usageError is a mistake in how a command was called.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, env *environment, args []string) int {
	root := newRoot(env)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFindings):
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(env.err, "stormbell: %v\nSee `%s --help`.\n", err, cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintf(env.err, "stormbell: %v\n", err)
		return exitFailed
	}
}

func newRoot(env *environment) *cobra.Command {
	root := group("stormbell", "Correlate cloud-security events as they happen")
	root.Long = "Post events in, get signed webhooks out that tell what the events add up to.\n" +
		"`stormbell up` runs everything in one process; the other commands talk to it,\nor to a gateway of a cluster, over HTTP."
	root.Example = "  stormbell up\n  stormbell webhooks listen\n  stormbell send events.ndjson"
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(env.in)
	root.SetOut(env.out)
	root.SetErr(env.err)
	root.Version = version()
	addHelp(root)
	root.AddCommand(
		newUp(env), newSend(env), newEval(env), newBacktest(env), newRules(env), newWebhooks(env), newAlerts(env), newDeadLetters(env), newKeys(env), newStatus(env), newCorrelations(env),
		newTopics(env), newControl(env), newConfig(env), newCompletion(env), newVersion(env),
	)
	completeNothing(root)
	return root
}

// group returns a command that only holds others.
func group(use, short string) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command `%s %s`%s", cmd.CommandPath(), printable(args[0]), didYouMean(commandsLike(cmd, args[0])))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
}

// arguments checks how many arguments a command gets; most below 0 is any number.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("`%s` needs %s: %s", cmd.CommandPath(), countOf(least, "argument"), cmd.UseLine())
		case most == 0 && len(args) > 0:
			return usagef("`%s` takes no arguments, got %q", cmd.CommandPath(), args[0])
		case most > 0 && len(args) > most:
			return usagef("`%s` takes at most %s, got %d: %s", cmd.CommandPath(), countOf(most, "argument"), len(args), cmd.UseLine())
		}
		return nil
	}
}

func countOf(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// dataDir is where `up` keeps its data unless it is told otherwise.
func (e *environment) dataDir() string {
	if dir := e.getenv("STORMBELL_DATA"); dir != "" {
		return dir
	}
	if dir := e.getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "stormbell")
	}
	if home := e.getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "stormbell")
	}
	return "/var/lib/stormbell"
}
