package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/cmd/internal/gatewayproc"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// explaining says of events why a rule matches them or does not.
type explaining struct {
	env     *environment
	output  *format
	quiet   bool
	docs    []sigma.Document
	opts    sigma.Options
	set     *sigma.Set
	decoder *gateway.Decoder
	whole   bool // RULE is a file, all of whose rules are explained

	events, matched, rejected int
}

// explained is what is said of one event and one rule.
type explained struct {
	Event   int    `json:"event"`
	EventID string `json:"event_id"`
	Source  string `json:"source"`
	Rule    string `json:"rule"`
	Title   string `json:"title"`
	Matches bool   `json:"matches"`
	// Reasons say why not; of a correlation, also which rules match.
	Reasons []string `json:"reasons"`
	// Group are the values by which a correlation counts the event.
	Group map[string]string `json:"group,omitempty"`
}

func newRulesExplain(env *environment) *cobra.Command {
	var (
		rules  []string
		source string
		x      = &explaining{env: env}
	)
	cmd := &cobra.Command{
		Use:   "explain RULE [FILE…|-]",
		Short: "Say why a rule matches events, or why not",
		Long: "Say why a rule matches events, or why not: which part did not hold, with the value that the event has.\n" +
			"RULE is a rule file, the id or title of a rule in the files of --rules, or that of a rule in force, which is asked\n" +
			"from the gateway. Of a correlation it says which of its rules match, and by which values the event is counted.\n" +
			"Events are as for `stormbell send`, and get the log source that the gateway would give them.",
		Example: "  stormbell rules explain ./rules/odd.yml < event.json\n  stormbell rules explain --rules ./rules 'Many failed logins' logs/*.json.gz -q",
		Args:    arguments(1, -1),
	}
	finds(cmd, "no event matched")
	x.output = outputFlag(cmd)
	f := cmd.Flags()
	f.StringArrayVarP(&rules, "rules", "r", nil, "file or directory with the rules that RULE is one of; may be repeated")
	f.StringVar(&source, "source", "", "name of the configured source that the events come from (default: detect)")
	f.BoolVarP(&x.quiet, "quiet", "q", false, "print only how many events matched")
	conn := connect(env, cmd)
	load := ruleSettings(env, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		settings, err := load()
		if err != nil {
			return err
		}
		if x.decoder, err = gateway.NewDecoder(gateway.Config(settings.Gateway), process.DefaultTenant, source); err != nil {
			return usageError{err}
		}
		x.opts = gatewayproc.Sigma(settings)
		if err := x.find(cmd.Context(), conn, args[0], rules); err != nil {
			return err
		}
		in, err := openInputs(env.in, args[1:])
		if err != nil {
			return err
		}
		defer in.close()
		return x.all(cmd.Context(), in, args[0])
	}
	return cmd
}

// find reads the rule, and those that it needs, from files or from the gateway.
func (x *explaining) find(ctx context.Context, conn *connection, name string, paths []string) error {
	if len(paths) == 0 {
		if _, err := rulefiles.List(name); err == nil {
			paths, x.whole = []string{name}, true
		}
	}
	var files []ruleset.File
	var err error
	if len(paths) > 0 {
		files, err = rulefiles.Read(paths...)
	} else {
		files, err = x.fetch(ctx, conn, name)
	}
	if err != nil {
		return err
	}
	var problems []sigma.Problem
	inForce := []*sigma.Pipeline{} // which came with the rules
	for _, file := range files {
		if len(paths) == 0 && sigma.IsPipeline(file.Content) {
			found, bad := sigma.ParsePipelines(file.Content, file.Name)
			inForce, problems = append(inForce, found...), append(problems, bad...)
			continue
		}
		docs, bad := sigma.Parse(file.Content, file.Name)
		x.docs, problems = append(x.docs, docs...), append(problems, bad...)
	}
	if len(paths) == 0 {
		for i := range x.docs {
			x.docs[i].Pipelines = inForce
		}
	}
	set, bad := sigma.Compile(x.docs, x.opts)
	x.set = set
	for _, line := range rejections(x.env, problemsOf(append(problems, bad...))) {
		fmt.Fprintln(x.env.err, line)
	}
	return nil
}

// fetch asks the gateway for a rule in force, by its id or title.
func (x *explaining) fetch(ctx context.Context, conn *connection, name string) ([]ruleset.File, error) {
	c, err := conn.open()
	if err != nil {
		return nil, fmt.Errorf("%s is no file, and to ask the gateway for a rule of that name: %w", name, err)
	}
	defer c.close()
	var inForce struct{ Rules []rule }
	if err := c.call(ctx, http.MethodGet, "/v1/rules", nil, &inForce); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(inForce.Rules, func(r rule) bool { return r.ID == name || strings.EqualFold(r.Title, name) })
	if i < 0 {
		return nil, fmt.Errorf("%q is neither a file nor the id or title of a rule in force: see `stormbell rules list`", name)
	}
	var detail struct {
		Documents []struct {
			File, Content string
			Line          int
		}
	}
	if err := c.call(ctx, http.MethodGet, "/v1/rules/"+url.PathEscape(inForce.Rules[i].ID), nil, &detail); err != nil {
		return nil, err
	}
	var files []ruleset.File
	for _, d := range detail.Documents {
		files = append(files, ruleset.File{Name: fmt.Sprintf("%s:%d", d.File, d.Line), Content: []byte(d.Content)})
	}
	return files, nil
}

// targets are the rules to explain: the one of that name, else those of the
// files that no correlation refers to.
func (x *explaining) targets(name string) ([]*sigma.Rule, []*sigma.Correlation, error) {
	named := func(id, title string) bool { return id == name || strings.EqualFold(title, name) }
	for _, c := range x.set.Correlations() {
		if named(c.ID, c.Title) || c.Name == name {
			return nil, []*sigma.Correlation{c}, nil
		}
	}
	for _, r := range x.set.Rules() {
		if named(r.ID, r.Title) || r.Name == name {
			return []*sigma.Rule{r}, nil, nil
		}
	}
	if !x.whole {
		return nil, nil, fmt.Errorf("no rule that compiles has the id or title %q", name)
	}
	var rules []*sigma.Rule
	for _, r := range x.set.Rules() {
		if len(r.Correlations) == 0 {
			rules = append(rules, r)
		}
	}
	if len(rules)+len(x.set.Correlations()) == 0 {
		return nil, nil, fmt.Errorf("%s holds no rule that compiles: see `stormbell rules check`", name)
	}
	return rules, x.set.Correlations(), nil
}

func (x *explaining) all(ctx context.Context, in *inputs, name string) error {
	rules, correlations, err := x.targets(name)
	if err != nil {
		return err
	}
	matcher := x.set.Matcher()
	err = in.each(ctx, func(line []byte, at place) error {
		events, rejected, err := x.decoder.Lines(append(slices.Clone(line), '\n'))
		if err != nil {
			return err
		}
		for _, r := range rejected {
			x.rejected++
			fmt.Fprintf(x.env.err, "%s: event %d: %s\n", at.file, at.number, printable(r.Detail))
		}
		for i := range events {
			if err := x.event(&events[i], matcher, rules, correlations); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if x.output.name == asText && (x.quiet || x.events > 1) {
		fmt.Fprintf(x.env.out, "events: %d, matched: %d\n", x.events, x.matched)
	}
	switch {
	case x.events == 0 && x.rejected == 0:
		return errors.New("no event to explain: give one on standard input, or name a file")
	case x.matched == 0:
		return errFindings
	}
	return nil
}

// event explains all rules for one event.
func (x *explaining) event(e *event.Event, matcher *sigma.Matcher, rules []*sigma.Rule, correlations []*sigma.Correlation) error {
	x.events++
	hit := false
	for _, r := range rules {
		found, err := x.rule(e, r.ID)
		if err != nil {
			return err
		}
		hit = hit || found.Matches
		if err := x.tell(found); err != nil {
			return err
		}
	}
	for _, c := range correlations {
		found, err := x.correlation(e, c, matcher)
		if err != nil {
			return err
		}
		hit = hit || found.Matches
		if err := x.tell(found); err != nil {
			return err
		}
	}
	if hit {
		x.matched++
	}
	return nil
}

func (x *explaining) about(e *event.Event, id, title string) *explained {
	return &explained{
		Event: x.events, EventID: e.ID, Source: sourceName(e.Product, e.Service, e.Category), Rule: id, Title: title, Reasons: []string{},
	}
}

func sigmaEvent(e *event.Event) sigma.Event {
	return sigma.Event{Raw: e.Raw, LogSource: sigma.LogSource{Product: e.Product, Service: e.Service, Category: e.Category}, Strict: e.StrictLogsource}
}

func (x *explaining) rule(e *event.Event, id string) (*explained, error) {
	why, err := sigma.Explain(x.docs, id, x.opts, sigmaEvent(e))
	if err != nil {
		return nil, fmt.Errorf("explain %s: %w", id, err)
	}
	out := x.about(e, why.ID, why.Title)
	out.Matches = why.Matches()
	if !out.Matches {
		out.Reasons = (&reasons{why, e}).list()
	}
	return out, nil
}

// correlation says which of its rules match, and by what the event is counted.
func (x *explaining) correlation(e *event.Event, c *sigma.Correlation, matcher *sigma.Matcher) (*explained, error) {
	out := x.about(e, c.ID, c.Title)
	for _, id := range c.Rules {
		base := x.set.Rule(id)
		if base == nil {
			out.Reasons = append(out.Reasons, fmt.Sprintf("'%s' is a correlation: explain it by itself", id))
			continue
		}
		found, err := x.rule(e, id)
		if err != nil {
			return nil, err
		}
		if !found.Matches {
			if c.Type == sigma.Risk {
				continue // of hundreds of rules most are about other events
			}
			for _, why := range found.Reasons {
				out.Reasons = append(out.Reasons, fmt.Sprintf("rule '%s' does not match: %s", base.Title, why))
			}
			continue
		}
		values, ok := matcher.Extract(e.Raw, c, id)
		switch {
		case !ok:
			out.Reasons = append(out.Reasons, fmt.Sprintf("rule '%s' matches, but the event is not counted: it lacks %s of group-by",
				base.Title, strings.Join(lacking(e.Raw, c, id), ", ")))
		case values.Incomplete && len(c.Field) > 0:
			out.Reasons = append(out.Reasons, fmt.Sprintf("rule '%s' matches, but the event is not counted: it lacks %s, whose values count",
				base.Title, strings.Join(c.Field, ", ")))
		default:
			out.Matches = true
			out.Group = make(map[string]string, len(c.GroupBy))
			for i, name := range c.GroupBy {
				out.Group[name] = values.Group[i]
			}
			out.Reasons = append(out.Reasons, fmt.Sprintf("rule '%s' matches, and the event is counted%s", base.Title, groupText(c.GroupBy, values.Group)))
		}
	}
	return out, nil
}

func groupText(names, values []string) string {
	if len(names) == 0 {
		return " in one group"
	}
	var parts []string
	for i, name := range names {
		parts = append(parts, name+"="+values[i])
	}
	return " in the group " + strings.Join(parts, ", ")
}

func (x *explaining) tell(found *explained) error {
	if x.quiet {
		return nil
	}
	return x.output.show(x.env, found, func(out io.Writer) {
		verdict := "does not match"
		switch {
		case found.Matches && found.Group != nil:
			verdict = "counts"
		case found.Matches:
			verdict = "matches"
		case found.Group == nil && x.set.Rule(found.Rule) == nil:
			verdict = "does not count"
		}
		fmt.Fprintf(out, "event %d (%s): '%s' %s\n", found.Event, printable(found.Source), printable(found.Title), verdict)
		for _, why := range found.Reasons {
			fmt.Fprintf(out, "  %s\n", printable(why))
		}
	})
}
