package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/cmd/stormbell/up"
)

func newUp(env *environment) *cobra.Command {
	var (
		file, listen, admin string
		probe               string
		opts                up.Options
		logMaxBytes         int64
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything in one process",

		SuggestFor: []string{"serve", "start", "run"},

		Long: "Run everything in one process: gateway, correlator and notifier on a log of their own.\n" +
			"Nothing else needs to be installed. The first start prints an API key and writes it to DIR/api-key.\n" +
			"The rules that come with Stormbell are in force, and those of --rules: of two with one id or name, yours counts.\n" +
			"Once requests are served, a line {\"msg\":\"ready\",…} on standard output says where. SIGHUP reads the rules again.",
		Example: "  stormbell up --rules ./rules",
		Args:    arguments(0, 0),
	}
	f := cmd.Flags()
	f.StringVar(&opts.Data, "data", env.dataDir(), "directory of the log and the keys (or STORMBELL_DATA)")
	f.StringVar(&listen, "listen", "", "host and port of the API (gateway.listen)")
	f.StringVar(&admin, "admin", "", "host and port of /metrics, /healthz and /readyz (telemetry.admin)")
	f.StringArrayVar(&opts.Rules, "rules", nil, "directory or archive (.tar.gz) with Sigma rules for all tenants, watched for changes; may be repeated")
	f.BoolVar(&opts.NoDefaultRules, "no-default-rules", false, "leave out the rules that come with Stormbell")
	f.StringVar(&file, "config", "", "YAML file with settings (or STORMBELL_CONFIG)")
	f.Int64Var(&logMaxBytes, "log-max-bytes", 0, "cap of the log on disk, in bytes (embedded.log_max_bytes)")
	f.StringVar(&probe, "probe", "", "ask the process with these settings whether it is live or ready, and exit with 0 or 1")
	completeFlag(cmd, "probe", oneOf("live", "ready"))
	completeFlag(cmd, "data", directories)
	completeFlag(cmd, "rules", directories)
	f.Lookup("data").DefValue = "~/.local/share/stormbell"
	f.Lookup("listen").DefValue = "127.0.0.1:8080"
	f.Lookup("admin").DefValue = "127.0.0.1:8081"
	f.Lookup("log-max-bytes").DefValue = "1073741824"
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		settings := process.UpDefaults()
		if env.live {
			settings.Telemetry.LogFormat = "text"
		}
		if file == "" {
			file = env.getenv("STORMBELL_CONFIG")
		}
		if err := settings.Load(file, env.environ); err != nil {
			return err
		}
		if listen != "" {
			settings.Gateway.Listen = listen
		}
		if cmd.Flags().Changed("admin") {
			settings.Telemetry.Admin = admin
		}
		if cmd.Flags().Changed("log-max-bytes") {
			settings.Embedded.LogMaxBytes = logMaxBytes
		}
		if probe != "" {
			return process.Probe(cmd.Context(), settings.Telemetry.Admin, probe) //nolint:wrapcheck // it says all
		}
		settings.NarrowEgress()
		if err := settings.Validate("up", up.Check); err != nil {
			return err
		}
		if len(opts.Rules) > 0 && strings.TrimSpace(strings.Join(opts.Rules, "")) == "" {
			return usagef("--rules: name a directory")
		}
		reload := make(chan os.Signal, 1)
		signal.Notify(reload, syscall.SIGHUP)
		defer signal.Stop(reload)
		opts.Reload = reload
		world := process.World{Stdout: env.out, Stderr: env.err, Getenv: env.getenv, Environ: env.environ}
		err := up.Run(cmd.Context(), settings, opts, world)
		if errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("%w: choose a directory that you may write to with --data", err)
		}
		return err
	}
	return cmd
}
