package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/internal/control"
)

func newKeysBootstrap(env *environment) *cobra.Command {
	var file, tenant, out string
	cmd := &cobra.Command{
		Use:   "bootstrap --out FILE",
		Short: "Make the first key of a cluster, straight in Kafka",
		Long: "Make the first key of a cluster, straight in Kafka, and write it to a new file. It has all scopes, that\n" +
			"for the rules of all tenants included.\n" +
			"It needs no key, but access to the brokers, as a gateway has it; topics that are missing are made.\n" +
			"`stormbell up` makes its own first key.",
		Example: "  stormbell keys bootstrap --config stormbell.yaml --out admin.key",
		Args:    arguments(0, 0),
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "YAML file with the settings of the cluster (or STORMBELL_CONFIG)")
	f.StringVar(&tenant, "tenant", process.DefaultTenant, "tenant of the key; it is made where there is none")
	f.StringVar(&out, "out", "", "new file for the key (mode 0600)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if out == "" {
			return usagef("--out: name a new file for the key")
		}
		settings := process.Defaults()
		if err := settings.Load(cmp.Or(file, env.getenv("STORMBELL_CONFIG")), env.environ); err != nil {
			return err
		}
		if err := settings.Kafka.Validate(); err != nil {
			return err
		}
		settings.Telemetry.Admin, settings.Telemetry.LogLevel = "", "warn"
		ctx, done := context.WithCancel(cmd.Context())
		defer done()
		world := process.World{Stdout: env.out, Stderr: env.err, Getenv: env.getenv, Environ: env.environ}
		p, err := process.New(ctx, "keys", settings, world)
		if err != nil {
			return err
		}
		made := false
		err = p.Run(ctx, func(ctx context.Context) error {
			if err := p.Connect(ctx); err != nil {
				return err
			}
			if _, err := p.MintKey(ctx, tenant, "bootstrap", out, control.ScopeOperate); err != nil {
				return err
			}
			made = true
			done()
			return nil
		})
		if err != nil {
			return err
		}
		if !made {
			return fmt.Errorf("no key was made: %w", context.Cause(ctx))
		}
		fmt.Fprintf(env.out, "key: %s\n", out)
		return nil
	}
	return cmd
}
