package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/seal"
)

func newKeysBootstrap(env *environment) *cobra.Command {
	var file, tenant, out, from string
	cmd := &cobra.Command{
		Use:   "bootstrap --out FILE | --from-file FILE",
		Short: "Make the first key of a cluster, straight in Kafka",
		Long: "Make the first key of a cluster, straight in Kafka, and write it to a new file. It has all scopes, that\n" +
			"for the rules of all tenants included.\n" +
			"With --from-file the key is one that `stormbell keys mint` has made before; it may be repeated.\n" +
			"It needs no key, but access to the brokers, as a gateway has it; topics that are missing are made.\n" +
			"`stormbell up` makes its own first key.",
		Example: "  stormbell keys bootstrap --config stormbell.yaml --out admin.key",
		Args:    arguments(0, 0),
	}
	f := cmd.Flags()
	configFlag(cmd, &file)
	f.StringVar(&tenant, "tenant", process.DefaultTenant, "tenant of the key; it is made where there is none")
	f.StringVar(&out, "out", "", "new file for the key (mode 0600)")
	f.StringVar(&from, "from-file", "", "file with a key to make known, in place of a new one")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if (out == "") == (from == "") {
			return usagef("--out or --from-file: name a new file for the key, or one that holds a key")
		}
		return onBrokers(cmd.Context(), env, file, func(ctx context.Context, p *process.Process) error {
			if from != "" {
				return register(ctx, env.out, p, tenant, from)
			}
			if _, err := p.MintKey(ctx, tenant, "bootstrap", out, control.ScopeOperate); err != nil {
				return err
			}
			fmt.Fprintf(env.out, "key: %s\n", out)
			return nil
		})
	}
	return cmd
}

func register(ctx context.Context, out io.Writer, p *process.Process, tenant, file string) error {
	plain, err := process.ReadSecret(file)
	if err != nil {
		return fmt.Errorf("--from-file: %w", err)
	}
	id, added, err := p.RegisterKey(ctx, tenant, "bootstrap", plain, control.ScopeOperate)
	if err != nil {
		return err
	}
	if added {
		fmt.Fprintf(out, "key %s: added\n", id)
	} else {
		fmt.Fprintf(out, "key %s: known already\n", id)
	}
	return nil
}

func newKeysMint(env *environment) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "mint --out FILE",
		Short: "Make a key that nobody knows yet, on this machine alone",
		Long: "Make a key that nobody knows yet, on this machine alone, and write it to a new file.\n" +
			"`stormbell keys bootstrap --from-file` makes it known to a cluster.",
		Example: "  stormbell keys mint --out admin.key",
		Args:    arguments(0, 0),
	}
	cmd.Flags().StringVar(&out, "out", "", "new file for the key (mode 0600)")
	cmd.RunE = func(*cobra.Command, []string) error {
		if out == "" {
			return usagef("--out: name a new file for the key")
		}
		if err := seal.WriteNew(out, []byte(control.MintKey()+"\n")); err != nil {
			return fmt.Errorf("write API key: %w", err)
		}
		fmt.Fprintf(env.out, "key: %s\n", out)
		return nil
	}
	return cmd
}

func newTopics(env *environment) *cobra.Command {
	cmd := group("topics", "Set up the topics of a cluster")
	cmd.Example = "  stormbell topics create --config stormbell.yaml"
	cmd.AddCommand(newTopicsCreate(env))
	return cmd
}

func newTopicsCreate(env *environment) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create the topics that are missing and check the others",
		Long: "Create the topics that are missing and check the others. Nothing that exists is changed, so it may be repeated.\n" +
			"It waits for brokers that do not answer. Every service does the same at its start: give this one the right to\n" +
			"create topics, and the services need it no more.",
		Example: "  stormbell topics create --config stormbell.yaml",
		Args:    arguments(0, 0),
	}
	configFlag(cmd, &file)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return onBrokers(cmd.Context(), env, file, func(_ context.Context, p *process.Process) error {
			fmt.Fprintf(env.out, "topics: %d partitions each\n", p.Partitions)
			return nil
		})
	}
	return cmd
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "", "YAML file with the settings of the cluster (or STORMBELL_CONFIG)")
}

// onBrokers runs do in a process that is connected as services are, with the
// topics set up and control read.
func onBrokers(ctx context.Context, env *environment, file string, do func(context.Context, *process.Process) error) error {
	settings := process.Defaults()
	if err := settings.Load(cmp.Or(file, env.getenv("STORMBELL_CONFIG")), env.environ); err != nil {
		return err
	}
	if err := settings.Kafka.Validate(); err != nil {
		return err
	}
	settings.Telemetry.Admin, settings.Telemetry.LogLevel = "", "warn"
	ctx, done := context.WithCancel(ctx)
	defer done()
	world := process.World{Stdout: env.out, Stderr: env.err, Getenv: env.getenv, Environ: env.environ}
	p, err := process.New(ctx, "operator", settings, world)
	if err != nil {
		return err
	}
	finished := false
	err = p.Run(ctx, func(ctx context.Context) error {
		if err := p.Connect(ctx); err != nil {
			return err
		}
		if err := do(ctx, p); err != nil {
			return err
		}
		finished = true
		done()
		return nil
	})
	if err != nil {
		return err
	}
	if !finished {
		return fmt.Errorf("nothing was done: %w", context.Cause(ctx))
	}
	return nil
}
