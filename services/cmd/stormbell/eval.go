package main

import (
	"bufio"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/spf13/cobra"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/cmd/internal/gatewayproc"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/sigma"
)

// A chunk is what one worker gets at a time. Ids depend on its bounds, never
// on how many workers there are.
const (
	chunkEvents = 256
	chunkBytes  = 1 << 20
)

// A process that lives as long as its input may let memory grow to five times of
// what it holds, which halves what the collector takes, as long as that is little.
const (
	calmGC    = 400
	calmBytes = 128 << 20 // of live memory; beyond it the collector's own setting holds
)

// collect puts the collector back to what it does by itself, once there is much to
// hold.
func (e *evaluation) collect() {
	if e.folded++; e.folded%64 != 0 || e.env.getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	if metrics.Read(live); live[0].Value.Kind() == metrics.KindUint64 && live[0].Value.Uint64() > calmBytes {
		debug.SetGCPercent(usualGC)
	}
}

// usualGC is what GOGC is where nobody says.
const usualGC = 100

// evaluation runs rules over files, without services.
type evaluation struct {
	env     *environment
	out     *bufio.Writer
	line    []byte // scratch of print
	folded  int    // chunks
	output  *format
	quiet   bool
	updates bool
	workers int
	decoder *gateway.Decoder
	routing routing
	set     *sigma.Set
	summary *summary // nil: alerts are printed
	run     *correlator.Evaluation

	warned                   sync.Mutex
	events, alerts, rejected int
}

func newEval(env *environment) *cobra.Command {
	var (
		rules     []string
		source    string
		summarize bool
		e         = &evaluation{env: env}
	)
	cmd := &cobra.Command{
		Use:   "eval -r PATH… [FILE…|-]",
		Short: "Run rules over files, without any service, and print the alerts",
		Long: "Run rules over files or standard input, without any service, and print each alert as one line of JSON,\n" +
			"as a webhook carries it in `data`. Files are as for `stormbell send`, directories stand for the files in them;\n" +
			"the same input gives the same output. With -o brief a line names rule, group, window and counts, and no events;\n" +
			"with --summary it prints how often each rule matched instead.\n" +
			"All events count as received at one time, so none is late; an event without a time that can be\n" +
			"read has that of the one before it, and the first ones that of 1970.",
		Example: "  stormbell eval -r ./rules logs/*.json.gz\n  zcat app.ndjson.gz | stormbell eval -r ./rules --quiet -\n" +
			"  stormbell eval -r ./rules --logsource product=windows,service=sysmon --summary logs/",
		Args: arguments(0, -1),
	}
	finds(cmd, "an event was rejected")
	e.output = outputOf(cmd, asNDJSON, asJSON, asText, asBrief)
	f := cmd.Flags()
	f.StringArrayVarP(&rules, "rules", "r", nil, "file, directory or archive (.tar.gz) with Sigma rules; may be repeated")
	f.StringVar(&source, "source", "", "name of the configured source that the events come from (default: detect)")
	e.routing.flags(f)
	f.BoolVar(&summarize, "summary", false, "print how often each rule matched, as a table or with -o json, in place of the alerts")
	f.BoolVar(&e.updates, "updates", false, "print too what alerts came to at the close of their buckets, of rules that say updates; as alerts with updated: true")
	f.BoolVarP(&e.quiet, "quiet", "q", false, "print alerts alone: no warnings, no figures")
	f.IntVar(&e.workers, "workers", runtime.GOMAXPROCS(0), "events are matched on so many threads; the output is the same")
	f.Lookup("workers").DefValue = "number of processors"
	load := ruleSettings(env, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(rules) == 0:
			return usagef("-r: name the rules to run")
		case e.workers < 1 || e.workers > 1024:
			return usagef("--workers %d: use 1 to 1024", e.workers)
		}
		if err := e.routing.check(); err != nil {
			return err
		}
		if summarize {
			e.summary = newSummary()
			if !cmd.Flags().Changed("output") {
				e.output.name = asText
			}
		}
		settings, err := load()
		if err != nil {
			return err
		}
		if e.decoder, err = gateway.NewDecoder(gateway.Config(settings.Gateway), process.DefaultTenant, source); err != nil {
			return usageError{err}
		}
		e.decoder.ReadLogsource(e.routing.names())
		if e.set, err = e.compile(settings, rules); err != nil {
			return err
		}
		if e.run, err = correlator.NewEvaluation(cmd.Context(), correlator.Config(settings.Correlator), e.set); err != nil {
			return err
		}
		if e.summary != nil || e.output.name == asBrief {
			e.run.Brief()
		}
		in, err := openInputs(env.in, args)
		if err != nil {
			return err
		}
		defer in.close()
		return e.all(cmd.Context(), in)
	}
	return cmd
}

// compile reads rules; those that are rejected are told and left out.
func (e *evaluation) compile(settings *process.Settings, paths []string) (*sigma.Set, error) {
	files, err := rulefiles.Read(paths...)
	if err != nil {
		return nil, err
	}
	var (
		docs     []sigma.Document
		problems []sigma.Problem
	)
	for _, f := range files {
		d, p := sigma.Parse(f.Content, f.Name)
		docs, problems = append(docs, d...), append(problems, p...)
	}
	set, bad := sigma.Compile(docs, gatewayproc.Sigma(settings))
	problems = append(problems, bad...)
	if !e.quiet {
		for _, line := range rejections(e.env, problemsOf(problems)) {
			fmt.Fprintln(e.env.err, line)
		}
	}
	if len(set.Rules()) == 0 && len(set.Correlations()) == 0 {
		return nil, fmt.Errorf("none of %d rules compiles: see `stormbell rules check`", sigma.Rejected(problems))
	}
	return set, nil
}

// all evaluates all events, and then says how many there were.
func (e *evaluation) all(ctx context.Context, in *inputs) error {
	began := time.Now()
	if e.env.getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(calmGC))
	}
	e.out = bufio.NewWriterSize(e.env.out, 1<<16)
	err := e.pipeline(ctx, in)
	if err == nil {
		err = e.run.Close(ctx, e.print)
	}
	if err == nil && e.summary != nil {
		err = e.summary.tell(e.env, e.output, e.set)
	}
	if flushed := e.out.Flush(); err == nil && flushed != nil {
		err = fmt.Errorf("print alerts: %w", flushed)
	}
	if err != nil {
		return err
	}
	if !e.quiet {
		took := time.Since(began)
		fmt.Fprintf(e.env.err, "events: %d, rejected: %d, alerts: %d, time: %.3f s, events per second: %.0f\n",
			e.events, e.rejected, e.alerts, took.Seconds(), float64(e.events)/max(took.Seconds(), 1e-9))
	}
	if e.rejected > 0 {
		return errFindings
	}
	return nil
}

// count adds to the summary what rules matched.
func (e *evaluation) count(m *correlator.Matched) {
	if e.summary == nil {
		return
	}
	for id, n := range m.Hits {
		e.summary.matches[id] += n
	}
}

// print prints an alert. One goroutine at a time does.
func (e *evaluation) print(a *alertv1.Alert) (err error) {
	updated := alert.TypeOf(a) == alert.TypeUpdated
	if updated && (!e.updates || e.summary != nil) {
		return nil
	}
	if e.summary != nil {
		e.tally(a.GetRule().GetId())
		return nil
	}
	if e.line, err = e.appendLine(e.line[:0], a); err != nil {
		return err
	}
	if updated {
		e.alerts-- // it is none
	}
	return e.write(e.line)
}

// render makes a line of an alert, and returns what prints it when it is its turn.
func (e *evaluation) render(a *alertv1.Alert) (func() error, error) {
	if e.summary != nil {
		id := a.GetRule().GetId()
		return func() error {
			e.tally(id)
			return nil
		}, nil
	}
	line, err := e.appendLine(nil, a)
	if err != nil {
		return nil, err
	}
	return func() error { return e.write(line) }, nil
}

func (e *evaluation) tally(rule string) {
	e.alerts++
	e.summary.alerts[rule]++
}

func (e *evaluation) appendLine(line []byte, a *alertv1.Alert) (_ []byte, err error) {
	if e.output.name == asText {
		line = append(line, headline(e.env, a.GetRule().GetLevel(), a.GetSummary())...)
	} else if e.output.name == asBrief {
		line = alert.AppendBrief(line, a)
	} else if line, err = alert.AppendData(line, a, true); err != nil {
		return nil, err
	}
	return append(line, '\n'), nil
}

func (e *evaluation) write(line []byte) error {
	e.alerts++
	if _, err := e.out.Write(line); err != nil {
		return fmt.Errorf("print alerts: %w", err)
	}
	return nil
}

func (e *evaluation) warn(reason string) {
	if e.quiet {
		return
	}
	e.warned.Lock()
	defer e.warned.Unlock()
	fmt.Fprintln(e.env.err, printable(reason))
}
