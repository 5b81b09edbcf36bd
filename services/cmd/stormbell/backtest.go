package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
)

// backtestLine is one line of a gateway's answer.
type backtestLine struct {
	Progress *struct {
		Done  int64 `json:"done"`
		Total int64 `json:"total"`
	} `json:"progress"`
	Alert   json.RawMessage  `json:"alert"`
	Summary *backtestSummary `json:"summary"`
	Error   string           `json:"error"`
}

type backtestSummary struct {
	Events   int64          `json:"events"`
	Failed   int64          `json:"failed"`
	Alerts   int64          `json:"alerts"`
	Rules    []backtestRule `json:"rules"`
	Problems []ruleProblem  `json:"problems"`
	// LogBegins is set where the log no longer holds all that would have been read.
	LogBegins *time.Time `json:"log_begins,omitempty"`
}

type backtestRule struct {
	ID       string `json:"id"`
	Title    string `json:"title"`
	Hits     int64  `json:"hits"`
	Alerts   int64  `json:"alerts"`
	Shadowed int64  `json:"shadow_alerts"`
}

func newBacktest(env *environment) *cobra.Command {
	var (
		from, to string
		rules    []string
		updates  bool
		now      = time.Now()
	)
	cmd := &cobra.Command{
		Use:   "backtest --from TIME [--to TIME] [-r PATH…]",
		Short: "Run rules over the events in the log, and say what they find",
		Long: "Run rules over the events that the tenant has sent and the log still holds, by the code that judges new ones,\n" +
			"and say how often each matched and alerted. Nothing is delivered, and nothing remembers it.\n" +
			"Without -r each event meets the rules that it met then: the alerts, and their ids, are those that there have been.\n" +
			"With -r those rules, and no others, are put to all events.\n" +
			"TIME is RFC 3339, a date, or how long ago, such as 6h or 7d; it is the time at which events were received. Events\n" +
			"before --from are read as far back as the rules look. -o ndjson prints each alert as a webhook carries it in `data`.\n" +
			"A gateway runs one backtest at a time; its settings of lateness, and its geo_file, must be those of the correlators.",
		Example: "  stormbell backtest --from 24h\n  stormbell backtest --from 2026-11-01 --to 2026-11-02 -r ./rules -o ndjson",
		Args:    arguments(0, 0),
	}
	conn := connect(env, cmd)
	conn.timeout = 0 // it takes as long as it takes, and tells how far it is
	output := outputOf(cmd, asText, asJSON, asNDJSON)
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "time of the first event")
	f.StringVar(&to, "to", "", "time behind the last event (default: now)")
	f.BoolVar(&updates, "updates", false, "print too what alerts came to at the close of their buckets, of rules that say updates; as alerts with updated: true")
	f.StringArrayVarP(&rules, "rules", "r", nil, "file, directory or archive (.tar.gz) with rules to try; may be repeated")
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		request := make(map[string]any)
		begin, err := timeOf(from, now)
		if err != nil {
			return usagef("--from: %w", err)
		}
		if request["from"] = begin; updates {
			request["updates"] = true
		}
		if to != "" {
			end, err := timeOf(to, now)
			if err != nil {
				return usagef("--to: %w", err)
			}
			request["to"] = end
		}
		if len(rules) > 0 {
			files, err := rulefiles.Read(rules...)
			if err != nil {
				return err
			}
			request["files"] = pushedFiles(rules, files)
		}
		return runBacktest(ctx, env, gateway, output, request)
	})
	return cmd
}

// timeOf reads a time, or how long ago it is.
func timeOf(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, errors.New("is missing: give a time, or how long ago, such as 24h")
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := time.ParseDuration(days + "h"); err == nil && n > 0 {
			return now.Add(-24 * n), nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("%q: use RFC 3339, a date, or how long ago, such as 6h or 7d", text)
}

func runBacktest(ctx context.Context, env *environment, gateway *client, output *format, request any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	header := http.Header{"Content-Type": {"application/json"}}
	answer, err := gateway.stream(ctx, http.MethodPost, "/v1/backtests", header, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = answer.Close() }() // it is read to its end, or given up
	lines := bufio.NewScanner(answer)
	lines.Buffer(nil, maxBacktestLine)
	for lines.Scan() {
		var line backtestLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return errors.New("the gateway's answer is damaged: try again")
		}
		switch {
		case line.Error != "":
			env.clearProgress()
			return errors.New(printable(line.Error))
		case line.Progress != nil:
			env.progress("backtest", line.Progress.Done, line.Progress.Total)
		case line.Alert != nil && output.name == asNDJSON:
			env.clearProgress()
			fmt.Fprintln(env.out, string(line.Alert))
		case line.Summary != nil:
			env.clearProgress()
			return line.Summary.tell(env, output)
		}
	}
	return fmt.Errorf("the answer ends before the backtest does: try again, or a shorter time: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}

const maxBacktestLine = 4 << 20

func (s *backtestSummary) tell(env *environment, output *format) error {
	for _, line := range rejections(env, s.Problems) {
		fmt.Fprintln(env.err, line)
	}
	if s.LogBegins != nil {
		fmt.Fprintf(env.err, "backtest: the log begins at %s: alerts soon after that may lack events that are gone\n", s.LogBegins.UTC().Format(time.RFC3339))
	}
	if output.name == asNDJSON {
		fmt.Fprintf(env.err, "backtest: %d events, %d alerts, %d failed\n", s.Events, s.Alerts, s.Failed)
		return nil
	}
	return output.show(env, s, func(out io.Writer) {
		w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
		if len(s.Rules) > 0 {
			fmt.Fprintln(w, "ALERTS\tHITS\tSHADOW\tID\tTITLE")
		}
		for _, r := range s.Rules {
			fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%s\n", r.Alerts, r.Hits, r.Shadowed, printable(r.ID), printable(r.Title))
		}
		_ = w.Flush() // the writer beneath tells nothing that could be done
		fmt.Fprintf(out, "backtest: %d events, %d alerts, %d failed\n", s.Events, s.Alerts, s.Failed)
	})
}

// progress draws a bar on a terminal.
func (e *environment) progress(what string, done, total int64) {
	if !e.live || total <= 0 {
		return
	}
	const width = 30
	full := int(width * min(done, total) / total)
	fmt.Fprintf(e.err, "\r%s [%s%s] %d%%\x1b[K", what, strings.Repeat("#", full), strings.Repeat(".", width-full), 100*min(done, total)/total)
}

// clearProgress takes the bar away.
func (e *environment) clearProgress() {
	if e.live {
		fmt.Fprint(e.err, "\r\x1b[K")
	}
}
