package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// foundAlert is what is shown of an alert, beside its JSON as it came.
type foundAlert struct {
	raw     json.RawMessage
	ID      string `json:"id"`
	Time    string `json:"time"`
	Summary string `json:"summary"`
	Rule    struct {
		ID, Title, Level, Type string
		Tags                   []string
	} `json:"rule"`
	Group       map[string]string `json:"group"`
	Window      struct{ Start, End string }
	Count       int      `json:"count"`
	AtLeast     bool     `json:"at_least"`
	Condition   string   `json:"condition"`
	FirstTime   string   `json:"first_time"`
	LastTime    string   `json:"last_time"`
	Principals  []string `json:"principals"`
	SourceIPs   []string `json:"source_ips"`
	Accounts    []string `json:"accounts"`
	Regions     []string `json:"regions"`
	Actions     []string `json:"actions"`
	Resources   []string `json:"resources"`
	Outcomes    []string `json:"outcomes"`
	Sources     []string `json:"sources"`
	EventsTotal int      `json:"events_total"`
	TraceID     string   `json:"trace_id"`
	Link        string   `json:"link"`
	Risk        struct {
		Signals []riskSignal
	} `json:"risk"`
	Events []alertEvent `json:"events"`
}

// riskSignal is one of what a risk is made of.
type riskSignal struct {
	Time, Title string
	RuleID      string `json:"rule_id"`
	Score       int    `json:"score"`
}

// alertEvent is an event of an alert.
type alertEvent struct {
	ID, Time string
	RuleID   string `json:"rule_id"`
	Late     bool   `json:"late"`
	Event    json.RawMessage
}

func readAlert(raw json.RawMessage) (a foundAlert, err error) {
	if err := json.Unmarshal(raw, &a); err != nil {
		return a, fmt.Errorf("read an alert: %w", err)
	}
	a.raw = raw
	return a, nil
}

// MarshalJSON shows an alert as it came.
func (a foundAlert) MarshalJSON() ([]byte, error) { return a.raw, nil } //nolint:unparam // as encoding/json wants it

func newAlerts(env *environment) *cobra.Command {
	cmd := group("alerts", "Look back at alerts, and follow new ones")
	cmd.Example = "  stormbell alerts list --level high\n  stormbell alerts tail"
	conn := connect(env, cmd)
	cmd.AddCommand(newAlertsList(env, conn), newAlertsTail(env, conn), newAlertsShow(env, conn))
	return cmd
}

// alertQuery adds the flags that choose alerts, and returns what they say.
func alertQuery(cmd *cobra.Command, conn *connection) func() (url.Values, error) {
	f := cmd.Flags()
	lists := map[string]*[]string{
		"rule":   f.StringArray("rule", nil, "only alerts of the rule with this id; may be repeated"),
		"tag":    f.StringArray("tag", nil, "only alerts with this tag; may be repeated"),
		"source": f.StringArray("source", nil, "only alerts of events from this source; may be repeated"),
		"group":  f.StringArray("group", nil, "only alerts with this value of a group-by field; may be repeated"),
	}
	ones := map[string]*string{
		"level": f.String("level", "", "only alerts at least this severe: informational, low, medium, high or critical"),
		"title": f.String("title", "", "only alerts of rules with this in their title"),
	}
	times := map[string]*string{
		"from": f.String("from", "", "only alerts from this time on: 2026-03-02T10:00:00Z, or how long ago: 24h"),
		"to":   f.String("to", "", "only alerts up to this time"),
	}
	completeFlag(cmd, "rule", conn.offer(ruleIDs))
	completeFlag(cmd, "level", oneOf("informational", "low", "medium", "high", "critical"))
	completeFlag(cmd, "source", conn.offer(sourceNames))
	for _, name := range []string{"tag", "group", "title", "from", "to"} {
		completeFlag(cmd, name, cobra.NoFileCompletions)
	}
	return func() (url.Values, error) {
		q := make(url.Values)
		for name, values := range lists {
			for _, v := range *values {
				q.Add(name, v)
			}
		}
		for name, value := range ones {
			if *value != "" {
				q.Set(name, *value)
			}
		}
		for name, text := range times {
			if *text == "" {
				continue
			}
			at, err := moment(*text, time.Now())
			if err != nil {
				return nil, usagef("--%s %q: use a time such as 2026-03-02T10:00:00Z, or how long ago, such as 24h", name, *text)
			}
			q.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
		return q, nil
	}
}

// moment reads a time, or how long ago it was.
func moment(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Parse(time.RFC3339, text) //nolint:wrapcheck // the caller says it
}

func newAlertsList(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the alerts that the log holds, newest first",
		Long: "List the alerts that the log holds, newest first: in the order in which they were written.\n" +
			"--from and --to are about the alerts' own times, which are those of their events.",
		Example: "  stormbell alerts list --level high --from 24h\n" +
			"  stormbell alerts list --group mallory --limit 1000 -o json",
		Args: arguments(0, 0),
	}
	chosen := alertQuery(cmd, conn)
	limit := cmd.Flags().Int("limit", 100, "list at most this many; 0 lists all")
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		q, err := chosen()
		if err != nil {
			return err
		}
		found, _, err := listAlerts(ctx, gateway, q, *limit)
		if err != nil {
			return err
		}
		return list(env, output, found, "SUMMARY\tLEVEL\tTIME\tID", func(a foundAlert) string {
			return strings.Join([]string{strings.ReplaceAll(a.Summary, "\t", " "), a.Rule.Level, a.Time, a.ID}, "\t")
		})
	})
	return cmd
}

// listAlerts returns the newest alerts, and where to go on with newer ones.
func listAlerts(ctx context.Context, gateway *client, q url.Values, limit int) (found []foundAlert, newer string, err error) {
	seen := make(map[string]bool)
	newer, err = pages(ctx, gateway, "/v1/alerts", q, limit, func(raw json.RawMessage) (bool, error) {
		a, err := readAlert(raw)
		if err != nil || seen[a.ID] {
			return false, err // the same one may have been written again
		}
		seen[a.ID] = true
		found = append(found, a)
		return true, nil
	})
	return found, newer, err
}

// page is an answer of a list that goes on.
type page struct {
	Alerts      []json.RawMessage
	DeadLetters []json.RawMessage `json:"dead_letters"`
	Next, Newer string
}

const mostOfPage = 1000

// pages hands items to take until there are limit that it takes, or no more; a
// limit of 0 is none.
func pages(ctx context.Context, gateway *client, path string, q url.Values, limit int, take func(json.RawMessage) (bool, error)) (newer string, err error) {
	if limit < 0 {
		return "", usagef("--limit %d: use 0 or more", limit)
	}
	taken := 0
	for {
		want := mostOfPage
		if limit > 0 {
			want = min(want, limit-taken)
		}
		q.Set("limit", strconv.Itoa(want))
		var p page
		if err := gateway.patiently(ctx, http.MethodGet, path+"?"+q.Encode(), &p); err != nil {
			return "", err
		}
		newer = pick(newer, p.Newer)
		for _, item := range slices.Concat(p.Alerts, p.DeadLetters) {
			ok, err := take(item)
			if err != nil {
				return "", err
			}
			if ok {
				taken++
			}
		}
		if p.Next == "" || limit > 0 && taken >= limit {
			return newer, nil
		}
		q.Set("cursor", p.Next)
	}
}

func pick(first, second string) string {
	if first != "" {
		return first
	}
	return second
}

// patiently calls a gateway that may be busy, or in the middle of a search.
func (c *client) patiently(ctx context.Context, method, path string, into any) error {
	const attempts = 30
	for n := 1; ; n++ {
		err := c.call(ctx, method, path, nil, into)
		said, ok := errors.AsType[*apiError](err)
		if !ok || n == attempts || said.Status != http.StatusTooManyRequests && said.Status != http.StatusServiceUnavailable {
			return err
		}
		if err := rest(ctx, max(said.retryAfter, time.Second)); err != nil {
			return err
		}
	}
}

func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // told to end
	case <-t.C:
		return nil
	}
}

const tailEvery = time.Second

func newAlertsTail(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Print alerts as they come, until Ctrl-C",
		Long: "Print the last alerts, oldest first, and then new ones as they come, until Ctrl-C.\n" +
			"It asks the gateway once a second, and goes on where it was when the gateway was away.",
		Example: "  stormbell alerts tail --level high\n  stormbell alerts tail --last 0 -o json",
		Args:    arguments(0, 0),
	}
	chosen := alertQuery(cmd, conn)
	last := cmd.Flags().Int("last", 10, "how many of the alerts so far to print first")
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		q, err := chosen()
		if err != nil {
			return err
		}
		if *last < 0 {
			return usagef("--last %d: use 0 or more", *last)
		}
		err = tail(ctx, env, gateway, q, *last, output)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // Ctrl-C is how it ends
		}
		return err
	})
	return cmd
}

func tail(ctx context.Context, env *environment, gateway *client, q url.Values, last int, output *format) error {
	seen := make(map[string]bool)
	show := func(a foundAlert) error {
		if seen[a.ID] {
			return nil // it was written again
		}
		if len(seen) >= maxSeen {
			clear(seen)
		}
		seen[a.ID] = true
		return output.show(env, a, func(out io.Writer) {
			fmt.Fprintf(out, "%s %s %s\n", a.Time, headline(env, a.Rule.Level, a.Summary), a.ID)
		})
	}
	found, cursor, err := listAlerts(ctx, gateway, q, max(last, 1))
	if err != nil {
		return err
	}
	for _, a := range slices.Backward(found[:min(len(found), last)]) {
		if err := show(a); err != nil {
			return err
		}
	}
	q.Set("limit", strconv.Itoa(mostOfPage))
	away := false
	for {
		q.Set("cursor", cursor)
		var p page
		err := gateway.get(ctx, "/v1/alerts?"+q.Encode(), &p)
		if said, ok := errors.AsType[*apiError](err); ok && said.Status < http.StatusInternalServerError && said.Status != http.StatusTooManyRequests {
			return err
		}
		if err != nil && ctx.Err() == nil && !away {
			fmt.Fprintf(env.err, "stormbell: %v; trying again\n", err)
		}
		if away = err != nil; !away {
			cursor = p.Newer
		}
		for _, raw := range p.Alerts {
			a, err := readAlert(raw)
			if err != nil {
				return err
			}
			if err := show(a); err != nil {
				return err
			}
		}
		if p.Next != "" {
			continue
		}
		if err := rest(ctx, tailEvery); err != nil {
			return err
		}
	}
}

// shownAlert is an alert with what became of it.
type shownAlert struct {
	Alert                json.RawMessage `json:"alert"`
	Type                 string          `json:"type"`
	WebhookID            string          `json:"webhook_id"`
	WrittenAt            time.Time       `json:"written_at"`
	RoutedAt             *time.Time      `json:"routed_at,omitempty"`
	Deliveries           []shownDelivery `json:"deliveries"`
	DeliveriesIncomplete bool            `json:"deliveries_incomplete,omitempty"`
}

type shownDelivery struct {
	Webhook       string     `json:"webhook"`
	Name          string     `json:"name,omitempty"`
	URL           string     `json:"url,omitempty"`
	State         string     `json:"state"`
	Attempts      int        `json:"attempts"`
	LastAt        *time.Time `json:"last_at,omitempty"`
	StatusCode    int        `json:"status_code,omitempty"`
	Error         string     `json:"error,omitempty"`
	NextAttemptAt *time.Time `json:"next_attempt_at,omitempty"`
}

func newAlertsShow(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show all of an alert, and what became of it",

		SuggestFor: []string{"get", "describe"},

		Example:           "  stormbell alerts show 0e4q2v8k1n6r3t5m7p9s0u2b4d6f8h0j",
		Args:              arguments(1, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, args []string) error {
		var s shownAlert
		if err := gateway.patiently(ctx, http.MethodGet, "/v1/alerts/"+url.PathEscape(args[0]), &s); err != nil {
			return err
		}
		a, err := readAlert(s.Alert)
		if err != nil {
			return err
		}
		return output.show(env, s, func(out io.Writer) { s.write(out, env, a) })
	})
	return cmd
}

func (s *shownAlert) write(out io.Writer, env *environment, a foundAlert) {
	line := func(name string, values ...string) {
		if text := strings.Join(slices.DeleteFunc(values, func(v string) bool { return v == "" }), ", "); text != "" {
			fmt.Fprintf(out, "%-12s %s\n", name+":", printable(text))
		}
	}
	fmt.Fprintf(out, "%s\n\n", headline(env, a.Rule.Level, a.Summary))
	line("id", a.ID)
	line("rule", fmt.Sprintf("%s (%s, %s)", a.Rule.Title, a.Rule.Type, a.Rule.ID))
	line("tags", a.Rule.Tags...)
	var group []string
	for field, value := range a.Group {
		group = append(group, field+"="+value)
	}
	slices.Sort(group)
	line("group", group...)
	line("time", a.Time)
	line("window", a.Window.Start+" to "+a.Window.End)
	count := strconv.Itoa(a.Count)
	if a.AtLeast {
		count = "at least " + count
	}
	if a.Condition != "" {
		count += " (" + a.Condition + ")"
	}
	line("count", fmt.Sprintf("%s, of %s", count, countOf(a.EventsTotal, "event")))
	line("first, last", a.FirstTime, a.LastTime)
	line("principals", a.Principals...)
	line("addresses", a.SourceIPs...)
	line("accounts", a.Accounts...)
	line("regions", a.Regions...)
	line("actions", a.Actions...)
	line("resources", a.Resources...)
	line("outcomes", a.Outcomes...)
	line("sources", a.Sources...)
	line("trace id", a.TraceID)
	line("link", a.Link)
	for i, r := range a.Risk.Signals {
		if i == 0 {
			fmt.Fprintln(out, "\nmade of:")
		}
		fmt.Fprintf(out, "  %s  %3d  %s (%s)\n", printable(r.Time), r.Score, printable(r.Title), printable(r.RuleID))
	}
	fmt.Fprintln(out, "\nevents:")
	for i := range a.Events {
		fmt.Fprintf(out, "  %s\n", a.Events[i].text(a.Rule.ID))
	}
	fmt.Fprintf(out, "\ndeliveries: %s\n", s.delivered())
	for _, d := range s.Deliveries {
		fmt.Fprintf(out, "  %s\n", printable(d.String()))
	}
}

// text is an event on one line, with the rule that it matched unless that is the
// alert's own.
func (e *alertEvent) text(rule string) string {
	parts := []string{e.Time, e.ID}
	if e.RuleID != "" && e.RuleID != rule {
		parts = append(parts, "rule "+e.RuleID)
	}
	if e.Late {
		parts = append(parts, "late")
	}
	if len(e.Event) > 0 {
		parts = append(parts, string(e.Event))
	}
	return printable(strings.Join(parts, "  "))
}

func (s *shownAlert) delivered() string {
	switch {
	case s.RoutedAt == nil && s.DeliveriesIncomplete:
		return "not found in the part of the log that was read"
	case s.RoutedAt == nil:
		return "not routed yet"
	case len(s.Deliveries) == 0:
		return "no webhook wanted it: stormbell webhooks add URL"
	case s.DeliveriesIncomplete:
		return "routed " + s.RoutedAt.Format(time.RFC3339) + "; there may be more attempts than these"
	}
	return "routed " + s.RoutedAt.Format(time.RFC3339)
}

// String says how far it has got.
func (d *shownDelivery) String() string {
	parts := []string{d.Webhook, d.Name, d.URL, d.State, countOf(d.Attempts, "attempt")}
	if d.StatusCode != 0 {
		parts = append(parts, fmt.Sprintf("HTTP %d", d.StatusCode))
	}
	parts = append(parts, d.Error)
	if d.LastAt != nil {
		parts = append(parts, "last "+d.LastAt.Format(time.RFC3339))
	}
	if d.NextAttemptAt != nil {
		parts = append(parts, "next "+d.NextAttemptAt.Format(time.RFC3339))
	}
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "  ")
}
