package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/stormbell/stormbell/services/internal/run"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// A Program is one kind of process of a cluster.
type Program struct {
	// Kind is its name.
	Kind string
	// Check reports what of the settings of its own service cannot work.
	Check func(*Settings) error
	// Start connects it and adds its service.
	Start func(context.Context, *Process) error
}

// Main runs a process of a cluster from its command line to its end and
// returns the exit code. It is all that their mains do.
func Main(program Program) int {
	ctx, stop := run.Signals(context.Background())
	defer stop()
	world := World{Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Environ: os.Environ()}
	return Execute(ctx, program, world, os.Args[1:])
}

// Execute is Main for a given world.
func Execute(ctx context.Context, program Program, world World, args []string) int {
	kind, settings := program.Kind, Defaults()
	flags := newFlags(kind, world)
	err := flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return exitOK
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintf(world.Stderr, "%s: %v\nTry --help.\n", kind, err)
		return exitUsage
	}
	if flags.show {
		fmt.Fprintf(world.Stdout, "%s %s\n", kind, Version())
		return exitOK
	}
	err = settings.Load(flags.file, world.Environ)
	if err == nil {
		flags.apply(&settings)
		if flags.probe != "" {
			err = Probe(ctx, settings.Telemetry.Admin, flags.probe)
		} else if err = settings.Validate(kind, program.Check); err == nil {
			err = serve(ctx, program, settings, world)
		}
	}
	if err != nil {
		fmt.Fprintf(world.Stderr, "%s: %v\n", kind, err)
		return exitFailed
	}
	return exitOK
}

func serve(ctx context.Context, program Program, settings Settings, world World) error {
	p, err := New(ctx, program.Kind, settings, world)
	if err != nil {
		return err
	}
	return p.Run(ctx, func(ctx context.Context) error { return program.Start(ctx, p) })
}

// flags are those of a cluster's process. They override file and environment.
type flags struct {
	*pflag.FlagSet
	file, listen, admin, stages, probe string
	show                               bool
}

func newFlags(kind string, world World) *flags {
	f := &flags{FlagSet: pflag.NewFlagSet(kind, pflag.ContinueOnError)}
	f.SetOutput(world.Stderr)
	f.StringVar(&f.file, "config", world.Getenv("STORMBELL_CONFIG"), "YAML file with settings (or STORMBELL_CONFIG)")
	f.StringVar(&f.admin, "admin", "", "host and port of /metrics, /healthz and /readyz (telemetry.admin)")
	f.StringVar(&f.probe, "probe", "", "ask the process with these settings whether it is live or ready, and exit with 0 or 1")
	f.BoolVar(&f.show, "version", false, "print the version")
	f.Lookup("config").DefValue = ""
	switch kind {
	case "gateway":
		f.StringVar(&f.listen, "listen", "", "host and port of the API (gateway.listen)")
	case "correlator":
		f.StringVar(&f.stages, "stages", "", "stages to run: detect, correlate or both (correlator.stages)")
	}
	f.Usage = func() { fmt.Fprint(world.Stdout, f.usage(kind)) }
	return f
}

func (f *flags) usage(kind string) string {
	return fmt.Sprintf("Stormbell's %s, for a cluster on Kafka and Redis. `stormbell up` needs neither.\n\nUsage:\n  %s [flags]\n\nFlags:\n%s",
		kind, kind, f.FlagUsages())
}

// Usage is what --help says.
func Usage(kind string) string {
	return newFlags(kind, World{Stderr: io.Discard, Getenv: func(string) string { return "" }}).usage(kind)
}

func (f *flags) apply(s *Settings) {
	for _, o := range []struct {
		value string
		into  *string
	}{{f.admin, &s.Telemetry.Admin}, {f.listen, &s.Gateway.Listen}, {f.stages, &s.Correlator.Stages}} {
		if o.value != "" {
			*o.into = o.value
		}
	}
}
