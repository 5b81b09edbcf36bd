package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/cmd/internal/gatewayproc"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// rulesDiff says how rules differ, here or as a gateway says it.
type rulesDiff struct {
	Scope     string        `json:"scope,omitempty"`
	Changes   []ruleChange  `json:"changes"`
	Unchanged int           `json:"unchanged"`
	OK        int           `json:"ok"`
	Rejected  int           `json:"rejected"`
	Kept      int           `json:"kept,omitempty"`
	Problems  []ruleProblem `json:"problems"`
}

type ruleChange struct {
	ID     string `json:"id"`
	Title  string `json:"title"`
	Kind   string `json:"kind"`
	Change string `json:"change"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	Before string `json:"revision_before,omitempty"`
	After  string `json:"revision_after,omitempty"`
	Shadow bool   `json:"shadow,omitempty"`
}

// what says in words what a change means.
func (c *ruleChange) what() string {
	switch {
	case c.Change == ruleset.Reworded:
		return "text only: state and ids go on"
	case c.Change == ruleset.Changed && c.Before != c.After:
		return "revision " + short(c.Before) + " -> " + short(c.After) + ": begins anew"
	case c.Change == ruleset.Changed:
		return "begins anew where it applies"
	}
	return short(c.Before + c.After)
}

func short(revision string) string {
	if revision == "" {
		return "-"
	}
	return revision[:min(len(revision), 12)]
}

// scopeFlag adds the flag that says whose rules are meant.
func scopeFlag(cmd *cobra.Command) func() (query string, err error) {
	var scope string
	cmd.Flags().StringVar(&scope, "scope", "tenant", "whose rules: tenant, or all for those of all tenants (a key with the scope operate)")
	completeFlag(cmd, "scope", oneOf("tenant", "all"))
	return func() (string, error) {
		switch scope {
		case "tenant":
			return "", nil
		case "all":
			return "?scope=all", nil
		}
		return "", usagef("--scope %q: use tenant or all", scope)
	}
}

func newRulesDiff(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff DIR [DIR]",
		Short: "Say how rules differ from those in force, or from others",
		Long: "Say what `stormbell rules push DIR` would change: each rule that would be added or removed, that would change its\n" +
			"revision and so begin anew, or only its text. With two directories it compares these, without a gateway: what\n" +
			"differs in the second one. A correlation changes, too, where a rule that it refers to does, or a filter.\n" +
			"The exit code is 0 where nothing differs, 1 where something does or a rule is rejected.",
		Example: "  stormbell rules diff ./rules\n  stormbell rules diff ./before ./after -o json",
		Args:    arguments(1, 2),

		ValidArgsFunction: directories,
	}
	finds(cmd, "rules differ, or one was rejected")
	conn := connect(env, cmd)
	load := ruleSettings(env, cmd)
	output := outputFlag(cmd)
	scope := scopeFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query, err := scope()
		if err != nil {
			return err
		}
		diff := &rulesDiff{Changes: []ruleChange{}, Problems: []ruleProblem{}}
		if len(args) == 2 {
			settings, err := load()
			if err != nil {
				return err
			}
			if err := diff.compare(settings, args[0], args[1]); err != nil {
				return err
			}
			return diff.tell(env, output)
		}
		return conn.with(func(ctx context.Context, gateway *client, args []string) error {
			files, err := rulefiles.Read(args...)
			if err != nil {
				return err
			}
			if err := gateway.call(ctx, http.MethodPost, "/v1/rules/diff"+query, pushOf(args, files), diff); err != nil {
				return err
			}
			return diff.tell(env, output)
		})(cmd, args)
	}
	return cmd
}

// compare compares two directories.
func (d *rulesDiff) compare(settings *process.Settings, before, after string) error {
	opts := gatewayproc.Sigma(settings)
	var sets [2][]sigma.Document
	for i, path := range []string{before, after} {
		files, err := rulefiles.Read(path)
		if err != nil {
			return err
		}
		plan := ruleset.Replace(nil, nil, files, opts)
		sets[i] = plan.Rules(opts.Pipelines)
		d.OK, d.Rejected = plan.OK, d.Rejected+plan.Rejected
		d.Problems = append(d.Problems, problemsOf(plan.Problems)...)
	}
	differ, same := ruleset.Diff(nil, sets[0], sets[1], opts)
	d.Unchanged = same
	for _, x := range differ {
		kind := map[sigma.Kind]string{sigma.KindDetection: "detection", sigma.KindCorrelation: "correlation", sigma.KindFilter: "filter"}[x.Kind]
		d.Changes = append(d.Changes, ruleChange{x.ID, x.Title, kind, x.Change, x.File, x.Line, x.Before, x.After, x.ShadowAfter})
	}
	return nil
}

func (d *rulesDiff) tell(env *environment, output *format) error {
	err := output.show(env, d, func(out io.Writer) {
		for _, line := range rejections(env, d.Problems) {
			fmt.Fprintln(out, line)
		}
		counts := make(map[string]int)
		w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
		if len(d.Changes) > 0 {
			fmt.Fprintln(w, "CHANGE\tKIND\tID\tTITLE\tWHAT")
		}
		for i := range d.Changes {
			c := &d.Changes[i]
			counts[c.Change]++
			cells := []string{c.Change, c.Kind, c.ID, c.Title, c.what()}
			if c.Shadow {
				cells[4] += ", in the shadow"
			}
			for k := range cells {
				cells[k] = printable(cells[k])
			}
			fmt.Fprintln(w, strings.Join(cells, "\t"))
		}
		_ = w.Flush() // the writer beneath tells nothing that could be done
		fmt.Fprintf(out, "rules: %d added, %d removed, %d changed, %d text only, %d unchanged, %d rejected\n",
			counts[ruleset.Added], counts[ruleset.Removed], counts[ruleset.Changed], counts[ruleset.Reworded], d.Unchanged, d.Rejected)
	})
	if err != nil {
		return err
	}
	if len(d.Changes) > 0 || d.Rejected > 0 {
		return errFindings
	}
	return nil
}
