package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// foundNote is where a command keeps what its exit code 1 may tell besides a
// failure.
const foundNote = "found"

// finds says of a command which finding ends it with exit code 1.
func finds(cmd *cobra.Command, what string) {
	cmd.Annotations = map[string]string{foundNote: what}
}

// exitCodes are those of a command, a line each.
func exitCodes(cmd *cobra.Command) string {
	failed := "failure"
	if what := cmd.Annotations[foundNote]; what != "" {
		failed += ", or " + what
	}
	return fmt.Sprintf("  %d  success\n  %d  %s\n  %d  called in a wrong way\n", exitOK, exitFailed, failed, exitUsage)
}

// addHelp makes help end in exit codes, and mistakes in a hint.
func addHelp(root *cobra.Command) {
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		help(cmd, args)
		if !cmd.HasSubCommands() {
			fmt.Fprintf(cmd.OutOrStdout(), "\nExit codes:\n%s", exitCodes(cmd))
		}
	})
	root.SetFlagErrorFunc(flagMistake)
}

// flagMistake tells of a flag what is wrong with it and what it takes.
func flagMistake(cmd *cobra.Command, err error) error {
	var (
		unknown *pflag.NotExistError
		bare    *pflag.ValueRequiredError
		bad     *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return usagef("unknown flag -%s", unknown.GetSpecifiedName())
	case errors.As(err, &unknown):
		return usagef("unknown flag --%s%s", unknown.GetSpecifiedName(), didYouMean(flagsLike(cmd, unknown.GetSpecifiedName())))
	case errors.As(err, &bare):
		return usagef("--%s needs a value: %s", bare.GetFlag().Name, bare.GetFlag().Usage)
	case errors.As(err, &bad):
		return usagef("--%s %q: %s", bad.GetFlag().Name, bad.GetValue(), whatFits(bad.GetFlag(), bad.Unwrap()))
	}
	return usageError{err}
}

func whatFits(f *pflag.Flag, cause error) string {
	switch f.Value.Type() {
	case "int", "int64":
		return "use a whole number"
	case "duration":
		return "use a time such as 30s, 5m or 2h"
	case "bool":
		return "use true or false"
	}
	return cause.Error()
}

func flagsLike(cmd *cobra.Command, name string) (found []string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && alike(name, f.Name) {
			found = append(found, "--"+f.Name)
		}
	})
	slices.SortFunc(found, func(a, b string) int { return cmp.Compare(distance(name, a[2:]), distance(name, b[2:])) })
	return found
}

// commandsLike are the commands of a group that a name could have meant, else
// those of that name anywhere.
func commandsLike(group *cobra.Command, name string) (found []string) {
	for _, sub := range group.Commands() {
		if !sub.Hidden && (alike(name, sub.Name()) || slices.Contains(sub.SuggestFor, name)) {
			found = append(found, sub.CommandPath())
		}
	}
	if len(found) > 0 {
		return found
	}
	var search func(cmd *cobra.Command)
	search = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.Name() == name {
				found = append(found, sub.CommandPath())
			}
			search(sub)
		}
	}
	search(group.Root())
	return found
}

// didYouMean asks for the nearest three at most.
func didYouMean(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("\nDid you mean `%s`?", strings.Join(names[:min(len(names), 3)], "` or `"))
}

// alike reports whether a name is a slip of the pen away from another, or its
// beginning.
func alike(typed, name string) bool {
	return len(typed) > 2 && strings.HasPrefix(name, typed) || distance(typed, name) <= min(2, len(name)/2)
}

// distance is the number of letters to insert, remove, replace or swap with
// their neighbour that make one name the other.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
