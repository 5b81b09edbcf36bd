package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/internal/alert"
)

// filter chooses alerts, as the gateway takes it.
type filter struct {
	RuleIDs  []string `json:"rule_ids,omitempty"`
	MinLevel string   `json:"min_level,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	Sources  []string `json:"sources,omitempty"`
	Types    []string `json:"types,omitempty"`
}

// webhookRequest creates a subscription.
type webhookRequest struct {
	Name      string            `json:"name,omitempty"`
	URL       string            `json:"url,omitempty"`
	Secret    string            `json:"secret,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
	Filter    *filter           `json:"filter,omitempty"`
	ExpiresAt *time.Time        `json:"expires_at,omitempty"`
}

// webhook is a subscription as the gateway shows it.
type webhook struct {
	ID             string     `json:"id"`
	Name           string     `json:"name"`
	Revision       string     `json:"revision"`
	URL            string     `json:"url"`
	Secret         string     `json:"secret,omitempty"`
	HasHeaders     bool       `json:"has_headers"`
	Filter         filter     `json:"filter"`
	Disabled       bool       `json:"disabled"`
	DisabledReason string     `json:"disabled_reason,omitempty"`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
	ExpiresAt      *time.Time `json:"expires_at,omitempty"`
}

func newWebhooks(env *environment) *cobra.Command {
	cmd := group("webhooks", "Manage where alerts are sent to")
	cmd.Example = "  stormbell webhooks add https://hooks.example.com/stormbell --min-level high"
	conn := connect(env, cmd)
	cmd.AddCommand(newWebhooksAdd(env, conn), newWebhooksList(env, conn), newWebhooksRemove(conn), newWebhooksTest(env, conn), newWebhooksListen(env, conn))
	return cmd
}

// filterFlags adds the flags that choose alerts.
func filterFlags(cmd *cobra.Command, conn *connection) *filter {
	f := new(filter)
	cmd.Flags().StringArrayVar(&f.RuleIDs, "rule", nil, "only alerts of the rule with this id; may be repeated")
	cmd.Flags().StringVar(&f.MinLevel, "min-level", "", "only alerts at least this severe: informational, low, medium, high or critical")
	cmd.Flags().StringArrayVar(&f.Tags, "tag", nil, "only alerts with this tag; may be repeated")
	cmd.Flags().StringArrayVar(&f.Sources, "alert-source", nil, "only alerts of events from this source; may be repeated")
	cmd.Flags().StringArrayVar(&f.Types, "type", nil, "webhooks of this type: "+alert.Type+", which is the default, or "+alert.TypeUpdated+"; may be repeated")
	completeFlag(cmd, "type", oneOf(alert.Type, alert.TypeUpdated))
	completeFlag(cmd, "rule", conn.offer(ruleIDs))
	completeFlag(cmd, "min-level", oneOf("informational", "low", "medium", "high", "critical"))
	completeFlag(cmd, "tag", cobra.NoFileCompletions)
	completeFlag(cmd, "alert-source", conn.offer(sourceNames))
	return f
}

func newWebhooksAdd(env *environment, conn *connection) *cobra.Command {
	var (
		req                    webhookRequest
		secretFile, headerFile string
	)
	cmd := &cobra.Command{
		Use:   "add URL|-",
		Short: "Send alerts to a URL from now on, and print the signing secret, once",

		SuggestFor: []string{"create", "new"},

		Long: "Send alerts to a URL from now on, and print the signing secret, once.\n" +
			"A URL that holds a credential is better read from standard input (-) than given as an argument,\nwhich others on this machine can see.",
		Example: "  stormbell webhooks add https://hooks.example.com/stormbell --name soc --min-level high",
		Args:    arguments(1, 1),
	}
	req.Filter = filterFlags(cmd, conn)
	cmd.Flags().StringVar(&req.Name, "name", "", "what the webhook is for")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with the signing secret, whsec_… (default: one is made)")
	cmd.Flags().StringVar(&headerFile, "header-file", "", "file with headers to send along, one `Name: value` per line")
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, args []string) (err error) {
		if req.URL, err = argumentOrLine(env.in, args[0]); err != nil {
			return err
		}
		if secretFile != "" {
			text, err := os.ReadFile(secretFile)
			if err != nil {
				return fmt.Errorf("read signing secret: %w", err)
			}
			req.Secret = strings.TrimSpace(string(text))
		}
		if headerFile != "" {
			if req.Headers, err = readHeaders(headerFile); err != nil {
				return err
			}
		}
		var made webhook
		if err := gateway.call(ctx, http.MethodPost, "/v1/webhooks", req, &made); err != nil {
			return err
		}
		return output.show(env, made, func(out io.Writer) {
			fmt.Fprintf(out, "id: %s\n", made.ID)
			if req.Secret == "" {
				fmt.Fprintf(out, "secret: %s\n", made.Secret)
			}
		})
	})
	return cmd
}

// argumentOrLine returns an argument, or the first line of in for "-".
func argumentOrLine(in io.Reader, arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	line, err := bufio.NewReader(io.LimitReader(in, 8<<10)).ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("read URL from standard input: it is empty: %w", err)
	}
	return line, nil
}

func readHeaders(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	headers, n := make(map[string]string), 0
	for line := range strings.Lines(string(text)) {
		n++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, usagef("%s:%d: use `Name: value`", path, n)
		}
		headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return headers, nil
}

func newWebhooksList(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List webhooks",
		Example: "  stormbell webhooks list -o json",
		Args:    arguments(0, 0),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		var answer struct{ Webhooks []webhook }
		if err := gateway.get(ctx, "/v1/webhooks", &answer); err != nil {
			return err
		}
		return list(env, output, answer.Webhooks, "ID\tNAME\tURL\tFILTER\tSTATE", func(w webhook) string {
			state := "active"
			switch {
			case w.Disabled:
				state = "disabled"
			case w.ExpiresAt != nil:
				state = "until " + w.ExpiresAt.UTC().Format(time.RFC3339)
			}
			chosen, _ := json.Marshal(w.Filter) // strings and lists of them
			return strings.Join([]string{w.ID, w.Name, w.URL, string(chosen), state}, "\t")
		})
	})
	return cmd
}

func newWebhooksRemove(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:     "remove ID",
		Short:   "Send nothing more to a webhook",
		Example: "  stormbell webhooks remove wh_0123456789abcdef0123",
		Args:    arguments(1, 1),

		SuggestFor:        []string{"delete", "rm"},
		ValidArgsFunction: conn.offerFirst(webhookIDs),
		RunE: conn.with(func(ctx context.Context, gateway *client, args []string) error {
			return gateway.remove(ctx, "/v1/webhooks", args[0])
		}),
	}
}

// probe is how a receiver took a test message.
type probe struct {
	Delivered  bool   `json:"delivered"`
	StatusCode int    `json:"status_code"`
	Error      string `json:"error,omitempty"`
	DurationMS int    `json:"duration_ms"`
}

func newWebhooksTest(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "test ID",
		Short:   "Send a test message to a webhook and show how it answers",
		Example: "  stormbell webhooks test wh_0123456789abcdef0123",
		Args:    arguments(1, 1),

		ValidArgsFunction: conn.offerFirst(webhookIDs),
	}
	finds(cmd, "the message was not delivered")
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, args []string) error {
		var p probe
		if err := gateway.call(ctx, http.MethodPost, "/v1/webhooks/"+url.PathEscape(args[0])+"/test", struct{}{}, &p); err != nil {
			return err
		}
		if err := output.show(env, p, p.write); err != nil {
			return err
		}
		if !p.Delivered {
			return errFindings
		}
		return nil
	})
	return cmd
}

func (p *probe) write(out io.Writer) {
	answer := "no answer"
	if p.StatusCode > 0 {
		answer = fmt.Sprintf("the receiver answered %d after %d ms", p.StatusCode, p.DurationMS)
	}
	what := "delivered: "
	if !p.Delivered {
		what = "not delivered: "
	}
	if p.Error != "" {
		answer += ": " + p.Error
	}
	fmt.Fprintln(out, printable(what+answer))
}
