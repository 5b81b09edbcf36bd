package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/seal"
)

func newControl(env *environment) *cobra.Command {
	cmd := group("control", "Back up and restore what a cluster is told: keys, webhooks, rules")
	cmd.Example = "  stormbell control export --config stormbell.yaml --out control.ndjson"
	cmd.AddCommand(newControlExport(env), newControlImport(env))
	return cmd
}

func newControlExport(env *environment) *cobra.Command {
	var file, out string
	cmd := &cobra.Command{
		Use:   "export --out FILE",
		Short: "Write tenants, keys, webhooks and rules to a file",
		Long: "Write the topic control to a new file (mode 0600): tenants, hashes of API keys, webhooks, silences, rules.\n" +
			"Secrets in it are sealed: without the root key, which is not in it, none can be read. Services may go on meanwhile.\n" +
			"It needs access to the brokers, as a gateway has it.",
		Example: "  stormbell control export --config stormbell.yaml --out control.ndjson",
		Args:    arguments(0, 0),
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&out, "out", "", "new file for the backup (mode 0600)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if out == "" {
			return usagef("--out: name a new file for the backup")
		}
		return onBrokers(cmd.Context(), env, file, func(ctx context.Context, p *process.Process) error {
			records, err := control.Snapshot(ctx, control.OnBus(p.Bus))
			if err != nil {
				return err
			}
			var text bytes.Buffer
			if err := control.WriteBackup(&text, records); err != nil {
				return err
			}
			if err := seal.WriteNew(out, text.Bytes()); err != nil {
				return fmt.Errorf("write backup: %w", err)
			}
			fmt.Fprintf(env.out, "exported: %d objects, %d bytes, root keys: %s\n", len(records), text.Len(), listOr(control.RootIDs(records), "none"))
			return nil
		})
	}
	return cmd
}

func newControlImport(env *environment) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Put a backup into a cluster that has none of it yet",
		Long: "Put what `stormbell control export` wrote into the topic control of a new cluster, before any service is\n" +
			"started there. Topics that are missing are made. A topic that holds anything else is refused; an import that was\n" +
			"interrupted may be repeated. The settings must name the root key that the backup was made under, or none.",
		Example: "  stormbell control import --config stormbell.yaml control.ndjson",
		Args:    arguments(1, 1),
	}
	configFlag(cmd, &file)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		records, err := readBackup(args[0])
		if err != nil {
			return err
		}
		return onBrokers(cmd.Context(), env, file, func(ctx context.Context, p *process.Process) error {
			if err := haveRoots(p.Settings.Seal, control.RootIDs(records)); err != nil {
				return err
			}
			written, err := control.Restore(ctx, control.OnBus(p.Bus), records, func(written, of int) {
				if written < of {
					fmt.Fprintf(env.err, "%d of %d\n", written, of)
				}
			})
			if errors.Is(err, control.ErrNotEmpty) {
				return fmt.Errorf("%w: import into a cluster whose services were never started, or choose another kafka.topic_prefix", err)
			}
			if err != nil {
				return fmt.Errorf("%d objects written: %w: repeat the command", written, err)
			}
			fmt.Fprintf(env.out, "imported: %d objects, there already: %d\n", written, len(records)-written)
			return nil
		})
	}
	return cmd
}

func readBackup(path string) ([]control.Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	records, err := control.ReadBackup(io.Reader(f))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return records, nil
}

// haveRoots refuses settings whose root key would not open what is restored.
// Settings without one are those of another machine.
func haveRoots(settings process.Seal, ids []string) error {
	root, err := settings.Root()
	if settings.RootKeyFile == "" && settings.RootKey.Empty() {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) || err == nil {
		for _, id := range ids {
			if err != nil || !root.Has(id) {
				return fmt.Errorf("seal.root_key_file: the backup needs root key %s, which is not there: put the root key of the cluster it was made on in place", id)
			}
		}
		return nil
	}
	return err
}

// listOr joins texts, or says that there are none.
func listOr(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}
