package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/cmd/internal/correlatorproc"
	"github.com/stormbell/stormbell/services/cmd/internal/gatewayproc"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	pack "github.com/stormbell/stormbell/services/rules"
	"github.com/stormbell/stormbell/services/sigma"
)

func newRules(env *environment) *cobra.Command {
	cmd := group("rules", "Check rules, and manage those of a tenant")
	cmd.Example = "  stormbell rules check ./rules"
	cmd.AddCommand(newRulesCheck(env), newRulesTest(env), newRulesPush(env), newRulesList(env), newRulesExplain(env), newRulesDiff(env))
	return cmd
}

// ruleSettings adds the flag that names what rules are compiled with.
func ruleSettings(env *environment, cmd *cobra.Command) func() (*process.Settings, error) {
	file := cmd.Flags().String("config", "", "YAML file with settings: placeholders, pipelines, lateness, retention (or STORMBELL_CONFIG)")
	return func() (*process.Settings, error) {
		settings := process.UpDefaults()
		if err := settings.Load(cmp.Or(*file, env.getenv("STORMBELL_CONFIG")), env.environ); err != nil {
			return nil, err
		}
		if err := gatewayproc.ReadPipelines(&settings); err != nil {
			return nil, err
		}
		return &settings, correlatorproc.Check(&settings)
	}
}

func newRulesCheck(env *environment) *cobra.Command {
	var covered bool
	cmd := &cobra.Command{
		Use:   "check PATH…",
		Short: "Parse and compile rules, and say what is wrong with them",
		Long: "Parse and compile rules, files, whole directories or archives (.tar.gz), as one set:\n" +
			"correlations find the rules that they refer to in any of them.\n" +
			"Each rejected rule is one line with file and line; the last line counts. The version of each directory or archive, on standard\n" +
			"error, is the hash of what its rules say; of a git checkout the commit is told, too.\n" +
			"Warnings name what is legal and surely not meant, such as a rule that no event can match; they go to standard error.\n" +
			"With --coverage a table says how many rules there are for each log source, and which of the configured and built-in\n" +
			"sources can give it; JSON events that name their log source themselves reach every rule.",
		Example: "  stormbell rules check ./rules\n  stormbell rules check --coverage ./rules",
		Args:    arguments(1, -1),
	}
	cmd.Flags().BoolVar(&covered, "coverage", false, "print how many rules there are by log source, and the sources that can give it")
	finds(cmd, "a rule was rejected")
	load := ruleSettings(env, cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		settings, err := load()
		if err != nil {
			return err
		}
		files, err := rulefiles.Read(args...)
		if err != nil {
			return err
		}
		plan := ruleset.Replace(nil, nil, files, gatewayproc.Sigma(settings))
		docs := documents(files)
		packs, err := rulefiles.Packs(args...)
		if err != nil {
			return err
		}
		report := &ruleReport{Packs: packs, OK: plan.OK, Rejected: plan.Rejected, Problems: problemsOf(append(plan.Problems, sigma.Lint(docs, gatewayproc.Sigma(settings))...))}
		if covered {
			set, _ := sigma.Compile(docs, gatewayproc.Sigma(settings))
			report.Coverage = coverageOf(set.Coverage(sourcesOf(gateway.Config(settings.Gateway))))
		}
		return reportRules(env, output, report)
	}
	return cmd
}

// ruleProblem is what is wrong with a rule, here or as a gateway says it.
type ruleProblem struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Field    string `json:"field"`
	Message  string `json:"message"`
	Severity string `json:"severity"`
	document int
}

func (p ruleProblem) text() string {
	if p.Field == "" {
		return p.Message
	}
	return p.Field + ": " + p.Message
}

func problemsOf(problems []sigma.Problem) []ruleProblem {
	out := make([]ruleProblem, len(problems))
	for i, p := range problems {
		out[i] = ruleProblem{p.File, p.Line, p.Field, p.Message, p.Severity.String(), p.Document}
	}
	return out
}

// ruleReport is what became of rules, here or as a gateway says it.
type ruleReport struct {
	Manifest string           `json:"manifest,omitempty"`
	Packs    []rulefiles.Pack `json:"packs,omitempty"`
	OK       int              `json:"ok"`
	Rejected int              `json:"rejected"`
	Kept     int              `json:"kept,omitempty"`
	Problems []ruleProblem    `json:"problems"`
	Coverage []coverage       `json:"coverage,omitempty"`
}

// reportRules prints one line per rejected rule, and the count. Warnings go
// where they do not disturb who counts lines.
func reportRules(env *environment, output *format, report *ruleReport) error {
	if err := output.show(env, report, func(out io.Writer) {
		if report.Manifest != "" {
			fmt.Fprintf(env.err, "manifest: %s\n", printable(report.Manifest))
		}
		for _, p := range report.Packs {
			if !p.Single {
				fmt.Fprintln(env.err, printable(p.String()))
			}
		}
		if report.Kept > 0 {
			fmt.Fprintf(env.err, "kept in force: the versions before of %s\n", countOf(report.Kept, "rejected rule"))
		}
		if len(report.Coverage) > 0 {
			printCoverage(out, report.Coverage)
		}
		for _, line := range rejections(env, report.Problems) {
			fmt.Fprintln(out, line)
		}
		fmt.Fprintf(out, "rules: %d ok, %d rejected\n", report.OK, report.Rejected)
	}); err != nil {
		return err
	}
	if report.Rejected > 0 {
		return errFindings
	}
	return nil
}

// rejections returns one line per rejected rule, in order of file and line,
// with all that is wrong with it, and prints warnings.
func rejections(env *environment, problems []ruleProblem) []string {
	slices.SortStableFunc(problems, func(a, b ruleProblem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.document, b.document), cmp.Compare(a.Line, b.Line))
	})
	var lines []string
	for i, p := range problems {
		at := fmt.Sprintf("%s:%d: ", p.File, p.Line)
		if p.Severity != sigma.Error.String() {
			fmt.Fprintln(env.err, printable(at+"warning: "+p.text()))
			continue
		}
		// Problems that a gateway tells name no document: they get a line each.
		same := func(q ruleProblem) bool {
			return q.Severity == p.Severity && q.File == p.File && q.document == p.document && p.document > 0
		}
		if slices.ContainsFunc(problems[:i], same) {
			lines[len(lines)-1] += printable(fmt.Sprintf("; line %d: %s", p.Line, p.text()))
			continue
		}
		lines = append(lines, printable(at+p.text()))
	}
	return lines
}

func newRulesPush(env *environment) *cobra.Command {
	var empty bool
	cmd := &cobra.Command{
		Use:   "push DIR…",
		Short: "Make the rules of directories those of the tenant",
		Long: "Make the rules of directories those of the tenant, in place of all that it had.\n" +
			"A rejected rule never replaces a good one: its version before stays in force. Rules of all tenants are not touched, unless\n" +
			"--scope all means just these; those of `stormbell up` come from its --rules, and take the place of what is pushed.\n" +
			"\"stormbell:\" is the rules that come with Stormbell; on a cluster no tenant has them before they are pushed.",
		Example: "  stormbell rules push ./rules\n  stormbell rules push stormbell: ./rules",
		Args:    arguments(1, -1),

		SuggestFor:        []string{"apply", "upload", "add"},
		ValidArgsFunction: directories,
	}
	finds(cmd, "a rule was rejected")
	conn := connect(env, cmd)
	output := outputFlag(cmd)
	scope := scopeFlag(cmd)
	cmd.Flags().BoolVar(&empty, "allow-empty", false, "switch all rules of the tenant off if DIR holds none")
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, args []string) error {
		query, err := scope()
		if err != nil {
			return err
		}
		files, err := rulefiles.Read(args...)
		if err != nil {
			return err
		}
		if len(files) == 0 && !empty {
			return fmt.Errorf("%s holds no rules (*.yml, *.yaml): --allow-empty would switch all rules of the tenant off", strings.Join(args, ", "))
		}
		report := &ruleReport{Problems: []ruleProblem{}}
		if err := gateway.call(ctx, http.MethodPut, "/v1/rules"+query, pushOf(args, files), report); err != nil {
			return err
		}
		return reportRules(env, output, report)
	})
	return cmd
}

type pushedFile struct {
	File    string `json:"file"`
	Content string `json:"content"`
}

// pushOf is a request with all files, called by their names beneath the
// directory that they are of; if there are several, by their paths.
func pushOf(paths []string, files []ruleset.File) any {
	return struct {
		Files []pushedFile `json:"files"`
	}{pushedFiles(paths, files)}
}

func pushedFiles(paths []string, files []ruleset.File) []pushedFile {
	dirs := slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return path == pack.Prefix })
	out := make([]pushedFile, len(files))
	for i, f := range files {
		name := f.Name
		if len(dirs) == 1 && !strings.HasPrefix(name, pack.Prefix) {
			var err error
			if name, err = filepath.Rel(dirs[0], f.Name); err != nil || name == "." {
				name = filepath.Base(f.Name)
			}
		}
		out[i] = pushedFile{filepath.ToSlash(name), string(f.Content)}
	}
	return out
}

// rule is a rule in force as the gateway shows it.
type rule struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Kind  string `json:"kind"`
	Scope string `json:"scope"`
	File  string `json:"file"`
	Line  int    `json:"line"`
	Hash  string `json:"hash"`
	// Hits are matches, or firings of a correlation, which has open groups too.
	Hits       count  `json:"hits"`
	OpenGroups *int64 `json:"open_groups,omitempty"`
	// Shadow: its alerts go to nobody, and are counted.
	Shadow       bool   `json:"shadow,omitempty"`
	ShadowAlerts *count `json:"shadow_alerts,omitempty"`
}

func newRulesList(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the rules in force, those of all tenants and the tenant's own, with their hits",
		Example: "  stormbell rules list -o json",
		Args:    arguments(0, 0),
	}
	conn := connect(env, cmd)
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		var answer struct {
			Manifests struct{ All, Tenant string }
			Rules     []rule
		}
		if err := gateway.get(ctx, "/v1/rules", &answer); err != nil {
			return err
		}
		slices.SortFunc(answer.Rules, func(a, b rule) int {
			return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
		})
		if output.name == asText {
			fmt.Fprintf(env.err, "version: all tenants %s, own %s\n", manifestName(answer.Manifests.All), manifestName(answer.Manifests.Tenant))
		}
		now := time.Now()
		return list(env, output, answer.Rules, "ID\tKIND\tSCOPE\tHITS\tLAST\tGROUPS\tSHADOW\tAT\tTITLE", func(r rule) string {
			groups := "-"
			if r.OpenGroups != nil {
				groups = strconv.FormatInt(*r.OpenGroups, 10)
			}
			shadow := "-"
			if r.ShadowAlerts != nil {
				shadow = strconv.FormatInt(r.ShadowAlerts.Count, 10)
			} else if r.Shadow {
				shadow = "0"
			}
			return strings.Join([]string{
				r.ID, r.Kind, r.Scope, strconv.FormatInt(r.Hits.Count, 10), cmp.Or(ago(r.Hits.Last, now), "-"), groups, shadow,
				fmt.Sprintf("%s:%d", r.File, r.Line), r.Title,
			}, "\t")
		})
	})
	return cmd
}
