// Package demo plays events to a whole Stormbell and shows what comes of them:
// by default the story of package story, whose alerts are known, else a folder
// of CloudTrail files. Everything goes through public ports: the gateway's API,
// a webhook receiver, an OTLP receiver.
//
// It starts what it needs on free ports in a temporary directory and ends all
// of it, by process id, before it returns.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/stormbell/stormbell/services/e2e/spans"
	"github.com/stormbell/stormbell/tools/ledger"
)

// patience bounds each wait, far above what it takes.
const patience = 90 * time.Second

// ErrFailed says that the demo ran and showed that something is wrong. What it
// is has been printed.
var ErrFailed = errors.New("the demo failed")

// Options say what to play, and on what.
type Options struct {
	// Bin is the directory of Stormbell's programs.
	Bin string
	// Rules is the directory of the shipped rules. Shipped is false where
	// another directory takes their place.
	Rules   string
	Shipped bool
	// Data is a folder of CloudTrail files to play in place of the story.
	Data string
	// Cluster plays on a real Kafka and a real Redis.
	Cluster bool
	// Began is when the user typed the command; zero is now.
	Began time.Time
}

// Forget removes what the environment says to another Stormbell or to its
// telemetry: the demo's has settings of its own.
func Forget() {
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "STORMBELL_") || strings.HasPrefix(name, "OTEL_") {
			_ = os.Unsetenv(name) // it can be named, so it can be removed
		}
	}
}

// show is one run.
type show struct {
	*screen
	opts     Options
	began    time.Time // when Stormbell was started
	stage    *stage
	client   *client
	spans    *spans.Collector
	receiver *ledger.Receiver
}

// Run plays, and prints to out. It returns ErrFailed, after it has said why, if
// an alert is missing or one too many came.
func Run(ctx context.Context, opts Options, out io.Writer, color bool) (err error) {
	s := &show{screen: &screen{out: out, color: color}, opts: opts, stage: &stage{opts: opts}}
	if s.opts.Began.IsZero() {
		s.opts.Began = time.Now()
	}
	defer func() {
		if ctx.Err() != nil {
			err = errors.New("interrupted: everything that was started has been ended")
		}
	}()
	defer func() { err = errors.Join(err, s.close()) }()
	play := s.story
	if opts.Data != "" {
		play = s.folder
	}
	err = play(ctx)
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrFailed) {
		err = fmt.Errorf("%w\n%s", err, s.stage.lastWords())
	}
	return err
}

// start brings up the stage, and the subscriber.
func (s *show) start(ctx context.Context) (err error) {
	s.began = time.Now()
	if s.spans, err = spans.Listen(ctx); err != nil {
		return err
	}
	if s.receiver, err = ledger.NewReceiver(ctx, ledger.NewSecret(), ledger.Behave{}); err != nil {
		return err
	}
	how := "stormbell up: one process, a log of its own on disk, nothing else installed"
	if s.opts.Cluster {
		how = "a cluster: gateway, correlator and notifier by themselves, on a real Kafka and a real Redis"
	}
	s.step("start %s", how)
	if err := s.stage.open(ctx, s.step, s.spans.Env("traces")); err != nil {
		return err
	}
	rules := ""
	if s.stage.rules > 0 {
		rules = fmt.Sprintf(", %d rules in force", s.stage.rules)
	}
	s.step("ready at %s%s", s.stage.url, rules)
	s.client = &client{url: s.stage.url, key: s.stage.key, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}}
	url := s.receiver.URL("/alerts")
	if err := s.client.subscribe(ctx, url, s.receiver.Secret()); err != nil {
		return err
	}
	s.step("webhook added: %s, with a signing secret of its own", url)
	return nil
}

func (s *show) close() error {
	err := s.stage.close()
	if s.client != nil {
		s.client.http.CloseIdleConnections()
	}
	if s.receiver != nil {
		err = errors.Join(err, s.receiver.Close())
	}
	if s.spans != nil {
		err = errors.Join(err, s.spans.Close())
	}
	return err
}

// step prints what happens, and when.
func (s *show) step(format string, args ...any) {
	s.say("%s  %s", s.dim(fmt.Sprintf("%7.2f s", time.Since(s.began).Seconds())), fmt.Sprintf(format, args...))
}

// watch tells of each alert as it arrives, until the end is closed and all that
// had come by then has been told.
func (s *show) watch(ctx context.Context, end <-chan struct{}, tell func(alert)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-end:
			cancel()
		case <-ctx.Done():
		}
	}()
	told := 0
	news := func() {
		all, _ := alerts(s.receiver.Deliveries())
		for _, a := range all[told:] {
			tell(a)
		}
		told = len(all)
	}
	for {
		n := len(s.receiver.Deliveries())
		news()
		if s.receiver.Await(ctx, func(got []ledger.Delivery) bool { return len(got) > n }) != nil {
			news()
			return
		}
	}
}
