package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/cmd/internal/process"
)

func newKeysRewrap(env *environment) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "rewrap",
		Short: "Have all tenants' keys wrapped by the last root key, so that older ones may go",
		Long: "Have all tenants' keys wrapped by the last key in the root key file, straight in Kafka. Thereafter the lines\n" +
			"before it are not needed. Every gateway and notifier must have the last line already. It may be repeated.\n" +
			"It needs the root key file and access to the brokers, as a gateway has them. `stormbell up` does it at its start.",
		Example: "  stormbell keys rewrap --config stormbell.yaml",
		Args:    arguments(0, 0),
	}
	configFlag(cmd, &file)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return onBrokers(cmd.Context(), env, file, func(ctx context.Context, p *process.Process) error {
			root, err := p.Settings.Seal.Root()
			if err != nil {
				return err
			}
			sealer, err := p.Sealer(root)
			if err != nil {
				return err
			}
			all := p.Control.TenantKeys()
			n, err := sealer.Rewrap(ctx, all)
			if err != nil {
				return fmt.Errorf("%d of %d keys rewrapped: %w", n, len(all), err)
			}
			fmt.Fprintf(env.out, "tenant keys: %d, rewrapped: %d, root key: %s\n", len(all), n, root.Last())
			return nil
		})
	}
	return cmd
}
