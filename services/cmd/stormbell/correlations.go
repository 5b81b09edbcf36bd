package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// correlations are those in force, as the gateway shows them.
type correlations struct {
	Since        *time.Time    `json:"since,omitempty"`
	Watermark    *time.Time    `json:"watermark,omitempty"`
	Age          *float64      `json:"watermark_age_seconds,omitempty"`
	Correlations []correlation `json:"correlations"`
}

type correlation struct {
	ID         string   `json:"id"`
	Title      string   `json:"title"`
	Type       string   `json:"type"`
	Level      string   `json:"level,omitempty"`
	Condition  string   `json:"condition,omitempty"`
	GroupBy    []string `json:"group_by"`
	Timespan   float64  `json:"timespan_seconds"`
	Revision   string   `json:"revision"`
	Depth      int      `json:"depth"`
	Shadow     bool     `json:"shadow,omitempty"`
	Fired      count    `json:"fired"`
	OpenGroups int64    `json:"open_groups"`
	Late       count    `json:"late"`
	Early      count    `json:"early"`
	Ungrouped  count    `json:"ungrouped"`
	Skipped    count    `json:"skipped"`
	Refused    count    `json:"refused"`
	Shed       count    `json:"shed"`
	Cut        count    `json:"cut"`
}

// openGroups are the fullest groups of a correlation.
type openGroups struct {
	Rule       string      `json:"rule"`
	Title      string      `json:"title"`
	Condition  string      `json:"condition,omitempty"`
	Revision   string      `json:"revision"`
	OpenGroups int64       `json:"open_groups"`
	Groups     []openGroup `json:"groups"`
}

type openGroup struct {
	Group    map[string]string `json:"group"`
	Count    int64             `json:"count"`
	AtLeast  bool              `json:"at_least,omitempty"`
	Events   int64             `json:"events"`
	First    *time.Time        `json:"first_time,omitempty"`
	Last     *time.Time        `json:"last_time,omitempty"`
	Revision string            `json:"revision"`
	Due      *time.Time        `json:"due,omitempty"`
	Expires  *float64          `json:"expires_in_seconds,omitempty"`
}

func newCorrelations(env *environment) *cobra.Command {
	cmd := group("correlations", "Look into the windows of correlations")
	cmd.Example = "  stormbell correlations list\n  stormbell correlations groups RULE"
	conn := connect(env, cmd)
	cmd.AddCommand(newCorrelationsList(env, conn), newCorrelationsGroups(env, conn))
	return cmd
}

func newCorrelationsList(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the correlations in force: how often they fired, what they hold, what they left out",
		Long: "List the correlations in force. Left out are late and early events where the watermark decides, events without a field\n" +
			"of group-by or with a value that cannot be taken, events of groups that would have been too many, and those that full\n" +
			"groups have let go. Cut are windows in which other rules ruled, or of which a full group lacks events.\n" +
			"Figures are up to ten seconds old.",
		Example: "  stormbell correlations list\n  stormbell correlations list -o json",
		Args:    arguments(0, 0),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		var all correlations
		if err := gateway.get(ctx, "/v1/correlations", &all); err != nil {
			return err
		}
		return output.show(env, all, all.write)
	})
	return cmd
}

func (all *correlations) write(out io.Writer) {
	if all.Age != nil {
		fmt.Fprintf(out, "watermark: %s, %.0fs behind\n\n", all.Watermark.Local().Format(time.DateTime), *all.Age)
	}
	if len(all.Correlations) == 0 {
		fmt.Fprintln(out, "no correlation is in force")
		return
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTYPE\tWINDOW\tFIRED\tGROUPS\tLEFT OUT\tCUT\tTITLE")
	for i := range all.Correlations {
		c := &all.Correlations[i]
		title := c.Title
		if c.Shadow {
			title += " (in the shadow)"
		}
		fmt.Fprintf(w, "%s\t%s %s\t%s\t%d\t%d\t%d\t%d\t%s\n", printable(c.ID), printable(c.Type), printable(c.Condition), seconds(c.Timespan),
			c.Fired.Count, c.OpenGroups, c.leftOut(), c.Cut.Count, printable(title))
	}
	_ = w.Flush() // the writer beneath tells nothing that could be done
}

// leftOut is how many events it has left out, for whatever reason.
func (c *correlation) leftOut() int64 {
	return c.Late.Count + c.Early.Count + c.Ungrouped.Count + c.Skipped.Count + c.Refused.Count + c.Shed.Count
}

// seconds is a time span in short.
func seconds(s float64) string {
	return strings.TrimSuffix(strings.TrimSuffix(time.Duration(s*float64(time.Second)).String(), "0s"), "0m")
}

func newCorrelationsGroups(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "groups RULE",
		Short: "Show the fullest open groups of a correlation and when they expire",
		Long: "Show the open groups of a correlation that hold most of what its condition counts, as of when they changed last; of a\n" +
			"great many, some that have not changed since a restart may be missing. Where the rule has been changed, groups of its\n" +
			"former revisions say so: they count by its former condition.\n" +
			"A group expires by the watermark: when no event can reach it any more.",
		Example: "  stormbell correlations groups b38f6d12-fef8-45bc-a5f3-9b844ec98805",
		Args:    arguments(1, 1),
	}
	cmd.ValidArgsFunction = conn.offerFirst(correlationIDs)
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, args []string) error {
		var g openGroups
		if err := gateway.get(ctx, "/v1/correlations/"+url.PathEscape(args[0])+"/groups", &g); err != nil {
			return err
		}
		return output.show(env, g, g.write)
	})
	return cmd
}

func (g *openGroups) write(out io.Writer) {
	title := strings.TrimRight(printable(g.Title)+" "+printable(g.Condition), " ")
	fmt.Fprintf(out, "%s: %s\n", title, countOf(int(g.OpenGroups), "open group"))
	if len(g.Groups) == 0 {
		return
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "COUNT\tEVENTS\tLAST\tEXPIRES IN\tGROUP")
	for _, o := range g.Groups {
		least := ""
		if o.AtLeast {
			least = "≥ "
		}
		last, expires := "", ""
		if o.Last != nil {
			last = o.Last.Local().Format(time.DateTime)
		}
		if o.Expires != nil {
			expires = time.Duration(*o.Expires * float64(time.Second)).Round(time.Second).String()
		}
		former := ""
		if o.Revision != g.Revision {
			former = " (former revision)"
		}
		fmt.Fprintf(w, "%s%d\t%d\t%s\t%s\t%s%s\n", least, o.Count, o.Events, last, expires, openGroupText(o.Group), former)
	}
	_ = w.Flush() // the writer beneath tells nothing that could be done
}

func openGroupText(group map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(group)) {
		parts = append(parts, printable(name)+"="+printable(group[name]))
	}
	return strings.Join(parts, " ")
}

func correlationIDs(ctx context.Context, gateway *client) (ids []cobra.Completion, err error) {
	var all correlations
	err = gateway.get(ctx, "/v1/correlations", &all)
	for i := range all.Correlations {
		ids = append(ids, described(all.Correlations[i].ID, all.Correlations[i].Title))
	}
	return ids, err
}
