package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/cmd/internal/gatewayproc"
	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/rules/trial"
	"github.com/stormbell/stormbell/services/sigma"
)

// ruleTests runs the tests that stand beside rules.
type ruleTests struct {
	env              *environment
	with             []string
	require, verbose bool
	output           *format
}

func newRulesTest(env *environment) *cobra.Command {
	t := &ruleTests{env: env}
	cmd := &cobra.Command{
		Use:   "test PATH…",
		Short: "Run the tests that stand beside rules",
		Long: "Run the tests that stand beside rules: those of name.yml are in name.test.yml. A test is a list of events and how\n" +
			"often rules fire on them; correlations count as they do in the services. PATH is a file or a directory; correlations\n" +
			"find the rules that they refer to in any of them. A failure is told with file and line, and of a detection rule that\n" +
			"should have matched which part did not hold. The last line counts.",
		Example: "  stormbell rules test ./rules\n  stormbell rules test ./rules/odd.yml --with ./rules",
		Args:    arguments(1, -1),
	}
	finds(cmd, "a test failed, or a rule was rejected")
	f := cmd.Flags()
	f.StringArrayVar(&t.with, "with", nil, "file or directory with rules that those of PATH refer to, not tested themselves; may be repeated")
	f.BoolVar(&t.require, "require", false, "fail if a rule has no test that fires it, or none that holds it back")
	f.BoolVarP(&t.verbose, "verbose", "v", false, "name the tests that pass, too")
	t.output = outputFlag(cmd)
	load := ruleSettings(env, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		settings, err := load()
		if err != nil {
			return err
		}
		rules, tests, err := rulefiles.ReadTested(args...)
		if err != nil {
			return err
		}
		with, err := rulefiles.Read(t.with...)
		if err != nil {
			return err
		}
		with = slices.DeleteFunc(with, func(w ruleset.File) bool {
			return slices.ContainsFunc(rules, func(r ruleset.File) bool { return r.Name == w.Name })
		})
		report, err := trial.Run(cmd.Context(), rules, with, tests, trial.Settings{
			Sigma: gatewayproc.Sigma(settings), Gateway: gateway.Config(settings.Gateway), Correlator: correlator.Config(settings.Correlator),
		})
		if err != nil {
			return err
		}
		return t.tell(report)
	}
	return cmd
}

// tell prints what came of the tests. A rejected rule and, if it is asked for,
// an untested one fail the command as a failed test does.
func (t *ruleTests) tell(report *trial.Report) error {
	slices.SortStableFunc(report.Gaps, func(a, b trial.Gap) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	failed, rejected := report.Failed(), sigma.Rejected(report.Problems)
	if t.output.name == asJSON {
		if err := t.tellJSON(report, failed); err != nil {
			return err
		}
	} else {
		t.tellText(report, failed)
	}
	if failed > 0 || rejected > 0 || t.require && len(report.Gaps) > 0 {
		return errFindings
	}
	return nil
}

func (t *ruleTests) tellText(report *trial.Report, failed int) {
	for _, line := range rejections(t.env, problemsOf(report.Problems)) {
		fmt.Fprintln(t.env.out, line)
	}
	for i := range report.Results {
		t.tellResult(&report.Results[i])
	}
	for _, g := range report.Gaps {
		out, kind := t.env.out, ""
		if !t.require {
			out, kind = t.env.err, "warning: "
		}
		fmt.Fprintln(out, printable(fmt.Sprintf("%s:%d: %s%q %s", g.File, g.Line, kind, g.Title, g.Message)))
	}
	fmt.Fprintf(t.env.out, "tests: %d ok, %d failed\n", len(report.Results)-failed, failed)
}

func (t *ruleTests) tellResult(r *trial.Result) {
	if len(r.Failures) == 0 {
		if t.verbose {
			fmt.Fprintln(t.env.out, printable(fmt.Sprintf("%s:%d: ok: %s", r.File, r.Line, r.Name)))
		}
		return
	}
	name := ""
	if r.Name != "" {
		name = r.Name + ": "
	}
	for _, f := range r.Failures {
		fmt.Fprintln(t.env.out, printable(fmt.Sprintf("%s:%d: failed: %s%s", r.File, f.Line, name, f.Message)))
		for _, why := range f.Why {
			fmt.Fprintln(t.env.out, "    "+printable(why))
		}
	}
}

// tellJSON prints one object.
func (t *ruleTests) tellJSON(report *trial.Report, failed int) error {
	out := struct {
		OK       int            `json:"ok"`
		Failed   int            `json:"failed"`
		Tests    []trial.Result `json:"tests"`
		Gaps     []trial.Gap    `json:"gaps"`
		Problems []ruleProblem  `json:"problems"`
	}{len(report.Results) - failed, failed, report.Results, report.Gaps, problemsOf(report.Problems)}
	enc := json.NewEncoder(t.env.out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		return fmt.Errorf("print tests: %w", err)
	}
	return nil
}
