package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// deadLetter is a record that could not be processed.
type deadLetter struct {
	ID         string          `json:"id"`
	Topic      string          `json:"topic"`
	Partition  int             `json:"partition"`
	Offset     int64           `json:"offset"`
	Stage      string          `json:"stage"`
	Reason     string          `json:"reason"`
	Attempts   int             `json:"attempts"`
	At         time.Time       `json:"at"`
	WrittenAt  *time.Time      `json:"written_at,omitempty"`
	TraceID    string          `json:"trace_id,omitempty"`
	ReplayOf   string          `json:"replay_of,omitempty"`
	Kind       string          `json:"kind,omitempty"`
	RecordID   string          `json:"record_id,omitempty"`
	Replayable bool            `json:"replayable"`
	WhyNot     string          `json:"why_not,omitempty"`
	Size       int             `json:"size"`
	Content    json.RawMessage `json:"content,omitempty"`
	Bytes      []byte          `json:"bytes,omitempty"`
	Truncated  bool            `json:"truncated,omitempty"`
}

func newDeadLetters(env *environment) *cobra.Command {
	cmd := group("dlq", "Look at records that could not be processed, and replay them")
	cmd.Example = "  stormbell dlq list"
	conn := connect(env, cmd)
	cmd.AddCommand(newDLQList(env, conn), newDLQShow(env, conn), newDLQReplay(env, conn))
	return cmd
}

// deadQuery adds the flags that choose dead letters.
func deadQuery(cmd *cobra.Command) func() url.Values {
	f := cmd.Flags()
	ones := map[string]*string{
		"topic":  f.String("topic", "", "only records of this topic: events, detections or alerts"),
		"stage":  f.String("stage", "", "only records that this stage gave up: detect, correlate or notify"),
		"reason": f.String("reason", "", "only records with this in their reason"),
	}
	completeFlag(cmd, "topic", oneOf("events", "detections", "alerts"))
	completeFlag(cmd, "stage", oneOf("detect", "correlate", "notify"))
	completeFlag(cmd, "reason", cobra.NoFileCompletions)
	return func() url.Values {
		q := make(url.Values)
		for name, value := range ones {
			if *value != "" {
				q.Set(name, *value)
			}
		}
		return q
	}
}

func listDead(ctx context.Context, gateway *client, q url.Values, limit int) (found []deadLetter, err error) {
	seen := make(map[string]bool)
	_, err = pages(ctx, gateway, "/v1/dlq", q, limit, func(raw json.RawMessage) (bool, error) {
		var d deadLetter
		if err := json.Unmarshal(raw, &d); err != nil {
			return false, fmt.Errorf("read a dead letter: %w", err)
		}
		if seen[d.ID] {
			return false, nil // it was written again
		}
		seen[d.ID] = true
		found = append(found, d)
		return true, nil
	})
	return found, err
}

func newDLQList(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List records that could not be processed, newest first",
		Example: "  stormbell dlq list --stage detect",
		Args:    arguments(0, 0),
	}
	chosen := deadQuery(cmd)
	limit := cmd.Flags().Int("limit", 100, "list at most this many; 0 lists all")
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		found, err := listDead(ctx, gateway, chosen(), *limit)
		if err != nil {
			return err
		}
		return list(env, output, found, "ID\tSTAGE\tAT\tWHAT\tATTEMPTS\tREPLAYABLE\tREASON", func(d deadLetter) string {
			return strings.Join([]string{
				d.ID, d.Stage, d.At.Format(time.RFC3339), strings.TrimSpace(d.Kind + " " + d.RecordID), strconv.Itoa(d.Attempts), yesNo(d.Replayable),
				strings.ReplaceAll(d.Reason, "\t", " "),
			}, "\t")
		})
	})
	return cmd
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func newDLQShow(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a record that could not be processed, why, and what it holds",

		SuggestFor: []string{"get", "describe"},

		Example:           "  stormbell dlq show events-0-17",
		Args:              arguments(1, 1),
		ValidArgsFunction: conn.offerFirst(deadIDs),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, args []string) error {
		var d deadLetter
		if err := gateway.patiently(ctx, http.MethodGet, "/v1/dlq/"+url.PathEscape(args[0]), &d); err != nil {
			return err
		}
		return output.show(env, d, d.write)
	})
	return cmd
}

// deadIDs completes ids.
func deadIDs(ctx context.Context, gateway *client) (found []cobra.Completion, err error) {
	dead, err := listDead(ctx, gateway, make(url.Values), 50)
	for _, d := range dead {
		found = append(found, cobra.CompletionWithDesc(d.ID, printable(d.Reason)))
	}
	return found, err
}

func (d *deadLetter) write(out io.Writer) {
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(out, "%-11s %s\n", name+":", printable(text))
		}
	}
	line("id", d.ID)
	line("reason", d.Reason)
	line("stage", fmt.Sprintf("%s, after %s", d.Stage, countOf(d.Attempts, "attempt")))
	line("at", d.At.Format(time.RFC3339))
	if d.WrittenAt != nil {
		line("written", d.WrittenAt.Format(time.RFC3339))
	}
	line("record", fmt.Sprintf("%s/%d/%d, %s", d.Topic, d.Partition, d.Offset, countOf(d.Size, "byte")))
	line("what", strings.TrimSpace(d.Kind+" "+d.RecordID))
	line("trace id", d.TraceID)
	line("replay of", d.ReplayOf)
	line("replayable", strings.TrimSuffix(yesNo(d.Replayable)+": "+d.WhyNot, ": "))
	switch {
	case len(d.Content) > 0:
		fmt.Fprintf(out, "\n%s\n", printable(string(d.Content)))
	case len(d.Bytes) > 0:
		fmt.Fprintf(out, "\n%q\n", d.Bytes)
	}
	if d.Truncated {
		fmt.Fprintln(out, "(it is larger than is shown)")
	}
}

// replayed is a record that was appended anew, or why it was not.
type replayed struct {
	ID        string `json:"id"`
	Kind      string `json:"kind,omitempty"`
	RecordID  string `json:"record_id,omitempty"`
	Topic     string `json:"topic,omitempty"`
	Partition int    `json:"partition"`
	Offset    int64  `json:"offset"`
	Note      string `json:"note,omitempty"`
	Error     string `json:"error,omitempty"`
}

func newDLQReplay(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay [ID…]",
		Short: "Append records again that could not be processed",
		Long: "Append records again that could not be processed, once what was wrong is mended.\n" +
			"Each becomes a new record under the old id of its event or alert, so that replaying one twice adds nothing.\n" +
			"Events are judged by the rules in force now. The old records stay listed, and stay skipped.",
		Example:           "  stormbell dlq replay events-0-17\n  stormbell dlq replay --all --reason 'match panicked'",
		Args:              arguments(0, -1),
		ValidArgsFunction: conn.offerFirst(deadIDs),
	}
	finds(cmd, "a record cannot be replayed")
	all := cmd.Flags().Bool("all", false, "replay all that are chosen by --reason, --topic and --stage")
	chosen := deadQuery(cmd)
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, ids []string) error {
		q := chosen()
		switch {
		case *all == (len(ids) > 0):
			return usagef("name the records to replay, or --all")
		case !*all && len(q) > 0:
			return usagef("--reason, --topic and --stage are for --all")
		case *all:
			dead, err := listDead(ctx, gateway, q, 0)
			if err != nil {
				return err
			}
			for _, d := range dead {
				ids = append(ids, d.ID)
			}
		}
		return replay(ctx, env, gateway, ids, output)
	})
	return cmd
}

func replay(ctx context.Context, env *environment, gateway *client, ids []string, output *format) error {
	done, refused := 0, 0
	for _, id := range ids {
		r := replayed{ID: id}
		err := gateway.patiently(ctx, http.MethodPost, "/v1/dlq/"+url.PathEscape(id)+"/replay", &r)
		said, ok := errors.AsType[*apiError](err)
		switch {
		case err == nil:
			done++
		case ok && (said.Status == http.StatusConflict || said.Status == http.StatusNotFound):
			refused++
			r.Error = said.Detail
		default:
			return err
		}
		if err := output.show(env, r, r.write); err != nil {
			return err
		}
	}
	fmt.Fprintf(env.err, "%d replayed, %d not\n", done, refused)
	if refused > 0 {
		return errFindings
	}
	return nil
}

func (r *replayed) write(out io.Writer) {
	if r.Error != "" {
		fmt.Fprintf(out, "%s: not replayed: %s\n", printable(r.ID), printable(r.Error))
		return
	}
	fmt.Fprintf(out, "%s: %s %s as %s/%d/%d\n", printable(r.ID), printable(r.Kind), printable(r.RecordID), printable(r.Topic), r.Partition, r.Offset)
}
