package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// status is what a gateway says of how things are.
type status struct {
	Ready      bool     `json:"ready"`
	Reason     string   `json:"reason,omitempty"`
	Tenant     string   `json:"tenant"`
	Sources    []string `json:"sources"`
	Partitions int      `json:"partitions"`
	Manifests  struct {
		All    string `json:"all"`
		Tenant string `json:"tenant"`
	} `json:"manifests"`
	Since      *time.Time       `json:"since,omitempty"`
	Counts     map[string]count `json:"counts"`
	OpenGroups int64            `json:"open_groups"`
	Watermark  *float64         `json:"watermark_age_seconds,omitempty"`
	LogSources []struct {
		Product  string `json:"product"`
		Service  string `json:"service"`
		Category string `json:"category"`
		Events   count  `json:"events"`
	} `json:"log_sources"`
	Webhooks []struct {
		ID        string `json:"id"`
		Delivered count  `json:"delivered"`
		Failed    count  `json:"failed_attempts"`
		Parked    count  `json:"parked"`
		Error     string `json:"error,omitempty"`
	} `json:"webhooks"`
	Stages []struct {
		Name       string `json:"name"`
		Instances  int    `json:"instances"`
		Partitions int    `json:"partitions"`
		Lag        int64  `json:"lag"`
	} `json:"stages"`
	Hints []hint `json:"hints"`
}

// count is how often something happened, and when last.
type count struct {
	Count int64      `json:"count"`
	Last  *time.Time `json:"last,omitempty"`
}

// hint is one sentence where something is obviously wrong.
type hint struct {
	Code    string `json:"code"`
	Text    string `json:"text"`
	Command string `json:"command,omitempty"`
}

func newStatus(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what became of events, what runs, and what is obviously wrong",
		Long: "Show how things are: what became of the tenant's events along the way, which parts run, and, in sentences that\n" +
			"begin with `hint:`, what is obviously wrong with the command that remedies it.\n" +
			"Figures are those of the last 24 hours' processes, up to ten seconds old.",
		Example: "  stormbell status\n  stormbell status -o json",
		Args:    arguments(0, 0),
	}
	finds(cmd, "the gateway is not ready")
	conn := connect(env, cmd)
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		var s status
		if err := gateway.get(ctx, "/v1/status", &s); err != nil {
			return err
		}
		if err := output.show(env, s, s.write); err != nil {
			return err
		}
		if !s.Ready {
			return errFindings
		}
		return nil
	})
	return cmd
}

func (s *status) write(out io.Writer) {
	state := "ready"
	if !s.Ready {
		state = "not ready: " + s.Reason
	}
	fmt.Fprintf(out, "gateway:    %s\ntenant:     %s\nsources:    %s\npartitions: %d\nrules:      all tenants %s, own %s\n",
		printable(state), printable(s.Tenant), printable(anyOf(s.Sources)), s.Partitions, manifestName(s.Manifests.All), manifestName(s.Manifests.Tenant))
	now := time.Now()
	if s.Since == nil {
		fmt.Fprintln(out, "figures:    none yet")
		return
	}
	fmt.Fprintf(out, "counted:    since %s\n\n", s.Since.Local().Format(time.DateTime))
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, row := range []struct{ name, key string }{
		{"received", "received"},
		{"rejected", "rejected"},
		{"late", "late"},
		{"early", "early"},
		{"matched", "matched"},
		{"detections", "detections"},
		{"alerts", "alerts"},
		{"in the shadow", "shadow_alerts"},
		{"without subscriber", "unsubscribed_alerts"},
		{"delivered", "delivered"},
		{"retrying", "retrying"},
		{"parked", "parked"},
		{"dlq", "dlq"},
	} {
		c := s.Counts[row.key]
		if c.Count == 0 && row.key == "shadow_alerts" {
			continue // few have such rules
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", row.name, c.Count, ago(c.Last, now))
	}
	fmt.Fprintf(w, "open groups\t%d\t\n", s.OpenGroups)
	if s.Watermark != nil {
		fmt.Fprintf(w, "watermark\t%.0fs\tbehind\n", *s.Watermark)
	}
	_ = w.Flush() // the writer beneath tells nothing that could be done
	fmt.Fprintln(out)
	for _, src := range s.LogSources {
		fmt.Fprintf(out, "events of %s: %d, %s\n", printable(sourceName(src.Product, src.Service, src.Category)), src.Events.Count, ago(src.Events.Last, now))
	}
	for _, st := range s.Stages {
		if st.Name != "gateway" {
			fmt.Fprintf(out, "stage %s: %s, %s, %d behind\n", printable(st.Name), countOf(st.Instances, "instance"), countOf(st.Partitions, "partition"), st.Lag)
		}
	}
	for _, h := range s.Hints {
		fmt.Fprintln(out, printable(h.line()))
	}
}

// line is a hint with its command.
func (h *hint) line() string {
	if h.Command == "" {
		return "hint: " + h.Text
	}
	return "hint: " + h.Text + ": " + h.Command
}

// sourceName is a log source in short.
func sourceName(product, service, category string) string {
	name := strings.TrimRight(strings.Join([]string{product, service, category}, "/"), "/")
	if name == "" {
		return "no product named"
	}
	return name
}

// ago is how long something is past.
func ago(then *time.Time, now time.Time) string {
	if then == nil {
		return ""
	}
	return max(0, now.Sub(*then)).Round(time.Second).String() + " ago"
}

func manifestName(hash string) string {
	if hash == "" {
		return "none"
	}
	return printable(hash[:min(len(hash), 12)])
}
