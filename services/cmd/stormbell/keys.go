package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
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
	cmd.AddCommand(newKeysCreate(env, conn), newKeysList(env, conn), newKeysRevoke(conn), newKeysMint(env), newKeysBootstrap(env), newKeysRewrap(env))
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
	}
	f := cmd.Flags()
	f.StringVar(&req.Name, "name", "", "what the key is for")
	f.StringArrayVar(&req.Scopes, "scope", nil, "ingest, read or manage; may be repeated (default ingest)")
	f.StringArrayVar(&req.Sources, "source", nil, "source that the key may send as; may be repeated (default all)")
	f.DurationVar(&expires, "expires", 0, "time until the key expires (default never)")
	f.StringVar(&outFile, "out", "", "write the key to this new file (mode 0600) and print its id instead")
	completeFlag(cmd, "scope", oneOf("ingest", "read", "manage"))
	completeFlag(cmd, "source", conn.offer(sourceNames))
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		if expires < 0 {
			return usagef("--expires %s: use a duration from now on", expires)
		}
		if expires > 0 {
			at := time.Now().Add(expires).UTC()
			req.ExpiresAt = &at
		}
		var key apiKey
		if err := gateway.call(ctx, http.MethodPost, "/v1/keys", req, &key); err != nil {
			return err
		}
		if outFile != "" {
			if err := seal.WriteNew(outFile, []byte(key.Key+"\n")); err != nil {
				return errors.Join(fmt.Errorf("write the key, which is revoked therefore: %w", err), gateway.remove(ctx, "/v1/keys", key.ID))
			}
			key.Key = ""
		}
		return output.show(env, key, func(out io.Writer) {
			if outFile != "" {
				fmt.Fprintln(out, key.ID)
				return
			}
			fmt.Fprintf(env.err, "Key %s, shown this once:\n", key.ID)
			fmt.Fprintln(out, key.Key)
		})
	})
	return cmd
}

func newKeysList(env *environment, conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List keys, without the keys themselves",
		Example: "  stormbell keys list",
		Args:    arguments(0, 0),
	}
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		var answer struct{ Keys []apiKey }
		if err := gateway.get(ctx, "/v1/keys", &answer); err != nil {
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
	})
	return cmd
}

func newKeysRevoke(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "Revoke a key for good",
		Example: "  stormbell keys revoke 0123456789abcdef",
		Args:    arguments(1, 1),

		SuggestFor:        []string{"delete", "remove", "rm"},
		ValidArgsFunction: conn.offerFirst(keyIDs),
		RunE: conn.with(func(ctx context.Context, gateway *client, args []string) error {
			return gateway.remove(ctx, "/v1/keys", args[0])
		}),
	}
}
