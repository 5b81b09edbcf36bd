package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTimeout is how long a shell waits for a gateway's part of a
// completion.
const completionTimeout = 2 * time.Second

func newCompletion(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that lets a shell complete commands, flags and ids",
		Long: "Print a script that lets a shell complete commands, flags and ids.\n" +
			"Ids of webhooks, keys and rules come from the gateway, if it answers within 2 s.",
		Example: "  source <(stormbell completion bash)\n" +
			"  stormbell completion zsh > \"${fpath[1]}/_stormbell\"\n" +
			"  stormbell completion fish > ~/.config/fish/completions/stormbell.fish",
		Args:      arguments(1, 1),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		switch root := cmd.Root(); args[0] {
		case "bash":
			err = root.GenBashCompletionV2(env.out, true)
		case "zsh":
			err = root.GenZshCompletion(env.out)
		case "fish":
			err = root.GenFishCompletion(env.out, true)
		case "powershell":
			err = root.GenPowerShellCompletionWithDesc(env.out)
		default:
			return usagef("no completion for %q: use bash, zsh, fish or powershell", args[0])
		}
		if err != nil {
			return fmt.Errorf("print completion: %w", err)
		}
		return nil
	}
	return cmd
}

// completeNothing keeps shells from offering files to commands that take no
// arguments.
func completeNothing(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		if !strings.Contains(sub.Use, " ") && sub.ValidArgsFunction == nil {
			sub.ValidArgsFunction = cobra.NoFileCompletions
		}
		completeNothing(sub)
	}
}

// choices asks a gateway for what may stand in a place.
type choices func(ctx context.Context, gateway *client) ([]cobra.Completion, error)

// offer completes a flag with what a gateway knows; nothing, where it does not
// answer at once.
func (c *connection) offer(ask choices) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		gateway, err := c.open()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer gateway.close()
		found, err := ask(ctx, gateway)
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// offerFirst completes the first argument alone.
func (c *connection) offerFirst(ask choices) cobra.CompletionFunc {
	offer := c.offer(ask)
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return offer(cmd, args, typed)
	}
}

func webhookIDs(ctx context.Context, gateway *client) (ids []cobra.Completion, err error) {
	var answer struct{ Webhooks []webhook }
	err = gateway.get(ctx, "/v1/webhooks", &answer)
	for _, w := range answer.Webhooks {
		ids = append(ids, described(w.ID, w.Name+" "+w.URL))
	}
	return ids, err
}

func keyIDs(ctx context.Context, gateway *client) (ids []cobra.Completion, err error) {
	var answer struct{ Keys []apiKey }
	err = gateway.get(ctx, "/v1/keys", &answer)
	for _, k := range answer.Keys {
		if k.RevokedAt == nil {
			ids = append(ids, described(k.ID, k.Name+" "+strings.Join(k.Scopes, ",")))
		}
	}
	return ids, err
}

func ruleIDs(ctx context.Context, gateway *client) (ids []cobra.Completion, err error) {
	var answer struct{ Rules []rule }
	err = gateway.get(ctx, "/v1/rules", &answer)
	for _, r := range answer.Rules {
		ids = append(ids, described(r.ID, r.Title))
	}
	return ids, err
}

func sourceNames(ctx context.Context, gateway *client) ([]cobra.Completion, error) {
	var s status
	err := gateway.get(ctx, "/v1/status", &s)
	return s.Sources, err
}

func described(id, text string) cobra.Completion {
	return cobra.CompletionWithDesc(id, printable(strings.TrimSpace(text)))
}

// completeFlag sets what completes a flag, which is there.
func completeFlag(cmd *cobra.Command, name string, complete cobra.CompletionFunc) {
	_ = cmd.RegisterFlagCompletionFunc(name, complete)
}

// oneOf completes with fixed words.
func oneOf(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// directories completes with directories.
func directories(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}
