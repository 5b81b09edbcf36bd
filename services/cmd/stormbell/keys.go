package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/internal/seal"
)

// apiKey is a key as the gateway shows it.
type apiKey struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Key       string     `json:"key,omitempty"`
	Scopes    []string   `json:"scopes"`
	Sources   []string   `json:"sources"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

func newKeys(env *environment) *cobra.Command {
	cmd := group("keys", "Manage API keys")
	cmd.Example = "  stormbell keys create --name ci --scope ingest"
	conn := connect(env, cmd)
	cmd.AddCommand(newKeysCreate(env, conn), newKeysList(env, conn), newKeysRevoke(conn), newKeysBootstrap(env))
	return cmd
}

func newKeysCreate(env *environment, conn *connection) *cobra.Command {
	var (
		req struct {
			Name      string     `json:"name"`
			Scopes    []string   `json:"scopes,omitempty"`
			Sources   []string   `json:"sources,omitempty"`
			ExpiresAt *time.Time `json:"expires_at,omitempty"`
		}
		expires time.Duration
		outFile string
	)
	cmd := &cobra.Command{
		Use:     "create",
		Short:   "Create a key and print it, once",
		Example: "  stormbell keys create --name trail --scope ingest --expires 2160h --out trail.key",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if expires < 0 {
				return usagef("--expires %s: use a duration from now on", expires)
			}
			if expires > 0 {
				at := time.Now().Add(expires).UTC()
				req.ExpiresAt = &at
			}
			c, err := conn.open()
			if err != nil {
				return err
			}
			defer c.close()
			var key apiKey
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/keys", req, &key); err != nil {
				return err
			}
			if outFile == "" {
				fmt.Fprintf(env.err, "Key %s, shown this once:\n", key.ID)
				fmt.Fprintln(env.out, key.Key)
				return nil
			}
			if err := seal.WriteNew(outFile, []byte(key.Key+"\n")); err != nil {
				undo := c.call(cmd.Context(), http.MethodDelete, "/v1/keys/"+url.PathEscape(key.ID), nil, nil)
				return errors.Join(fmt.Errorf("write the key, which is revoked therefore: %w", err), undo)
			}
			fmt.Fprintf(env.out, "%s\n", key.ID)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Name, "name", "", "what the key is for")
	f.StringArrayVar(&req.Scopes, "scope", nil, "ingest, read or manage; may be repeated (default ingest)")
	f.StringArrayVar(&req.Sources, "source", nil, "source that the key may send as; may be repeated (default all)")
	f.DurationVar(&expires, "expires", 0, "time until the key expires (default never)")
	f.StringVar(&outFile, "out", "", "write the key to this new file (mode 0600) and print its id instead")
	return cmd
}

func newKeysList(env *environment, conn *connection) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List keys, without the keys themselves",
		Example: "  stormbell keys list",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := conn.open()
			if err != nil {
				return err
			}
			defer c.close()
			var answer struct{ Keys []apiKey }
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/keys", nil, &answer); err != nil {
				return err
			}
			return list(env, output, answer.Keys, "ID\tNAME\tSCOPES\tSOURCES\tCREATED\tSTATE", func(k apiKey) string {
				state := "active"
				switch {
				case k.RevokedAt != nil:
					state = "revoked " + day(*k.RevokedAt)
				case k.ExpiresAt != nil && k.ExpiresAt.Before(time.Now()):
					state = "expired " + day(*k.ExpiresAt)
				case k.ExpiresAt != nil:
					state = "until " + day(*k.ExpiresAt)
				}
				return strings.Join([]string{k.ID, k.Name, strings.Join(k.Scopes, ","), anyOf(k.Sources), day(k.CreatedAt), state}, "\t")
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func newKeysRevoke(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "Revoke a key for good",
		Example: "  stormbell keys revoke 0123456789abcdef",
		Args:    arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := conn.open()
			if err != nil {
				return err
			}
			defer c.close()
			return c.call(cmd.Context(), http.MethodDelete, "/v1/keys/"+url.PathEscape(args[0]), nil, nil)
		},
	}
}

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "text", "text or json")
}

// list prints values as a table, or one JSON value per line. row returns the
// cells with tabs between them.
func list[T any](env *environment, output string, values []T, head string, row func(T) string) error {
	switch output {
	case "json":
		encoder := json.NewEncoder(env.out)
		for _, v := range values {
			if err := encoder.Encode(v); err != nil {
				return fmt.Errorf("print: %w", err)
			}
		}
		return nil
	case "text":
	default:
		return usagef("--output %q: use text or json", output)
	}
	w := tabwriter.NewWriter(env.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, v := range values {
		cells := strings.Split(row(v), "\t")
		for i := range cells {
			cells[i] = printable(cells[i])
		}
		_, _ = io.WriteString(w, strings.Join(cells, "\t")+"\n")
	}
	return w.Flush()
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func anyOf(values []string) string {
	if len(values) == 0 {
		return "any"
	}
	return strings.Join(values, ",")
}
