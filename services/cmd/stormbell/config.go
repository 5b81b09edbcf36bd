package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/stormbell/stormbell/services/cmd/internal/correlatorproc"
	"github.com/stormbell/stormbell/services/cmd/internal/gatewayproc"
	"github.com/stormbell/stormbell/services/cmd/internal/notifierproc"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/cmd/stormbell/up"
	"github.com/stormbell/stormbell/services/internal/config"
)

func version() string { return process.Version() }

// build is what runs.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func newVersion(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  stormbell version",
		Args:    arguments(0, 0),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		b := build{version(), process.Revision(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
		return output.show(env, b, func(out io.Writer) {
			fmt.Fprintf(out, "stormbell %s %s %s/%s", b.Version, b.Go, b.OS, b.Arch)
			if b.Commit != "" {
				fmt.Fprintf(out, " commit %.12s", b.Commit)
			}
			fmt.Fprintln(out)
		})
	}
	return cmd
}

func newConfig(env *environment) *cobra.Command {
	var file, kind string
	cmd := group("config", "Check and show settings")
	cmd.Long = "Check and show settings: the defaults, then the file, then STORMBELL_… environment variables."
	cmd.Example = "  stormbell config check --config stormbell.yaml"
	cmd.PersistentFlags().StringVar(&file, "config", "", "YAML file with settings (or STORMBELL_CONFIG)")
	cmd.PersistentFlags().StringVar(&kind, "for", "up", "process to check for: up, gateway, correlator or notifier")
	completeFlag(cmd, "for", oneOf("up", "gateway", "correlator", "notifier"))
	load := func() (*process.Settings, error) {
		s := process.Defaults()
		if kind == "up" {
			s = process.UpDefaults()
		}
		if file == "" {
			file = env.getenv("STORMBELL_CONFIG")
		}
		if err := s.Load(file, env.environ); err != nil {
			return nil, err
		}
		unknown, err := s.Unknown(env.environ)
		if err != nil {
			return nil, err
		}
		for _, name := range unknown {
			fmt.Fprintf(env.err, "stormbell: warning: the environment variable %s is no setting\n", name)
		}
		check, err := checkOf(kind)
		if err != nil {
			return nil, err
		}
		return &s, s.Validate(kind, check)
	}
	check := &cobra.Command{
		Use:     "check",
		Short:   "Say what is wrong with the settings",
		Example: "  stormbell config check --config stormbell.yaml --for gateway",
		Args:    arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if _, err := load(); err != nil {
				return err
			}
			fmt.Fprintln(env.out, "settings: ok")
			return nil
		},
	}
	show := &cobra.Command{
		Use:     "print",
		Short:   "Print all settings in force as YAML, secrets left out",
		Example: "  stormbell config print --config stormbell.yaml",
		Args:    arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			s, err := load()
			if err != nil {
				return err
			}
			return config.Print(env.out, s)
		},
	}
	cmd.AddCommand(check, show)
	return cmd
}

// checkOf is the check of what is a kind's own. It names no Program: this one
// would link what they start.
func checkOf(kind string) (func(*process.Settings) error, error) {
	check := map[string]func(*process.Settings) error{
		"up": up.Check, "gateway": gatewayproc.CheckAlone, "correlator": correlatorproc.CheckAlone, "notifier": notifierproc.CheckAlone,
	}[kind]
	if check == nil {
		return nil, fmt.Errorf("unknown process %q: use up, gateway, correlator or notifier", kind)
	}
	return check, nil
}
