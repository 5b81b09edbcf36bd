package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/formats/vpcflow"
)

const (
	batchEvents = 500
	batchBytes  = 900_000 // one request goes to one partition, in one produce
	shownErrors = 20
)

// sender posts events in batches and counts what became of them.
type sender struct {
	env      *environment
	client   *client
	path     string
	run      string        // begins each batch's Idempotency-Key
	retryFor time.Duration // after which a batch is given up

	mu sync.Mutex
	tally
	shown int // errors that were told
}

// tally is what became of events.
type tally struct {
	Sent     int `json:"sent"`
	Accepted int `json:"accepted"`
	Late     int `json:"late"`
	Rejected int `json:"rejected"`
}

func (t *tally) write(out io.Writer) {
	fmt.Fprintf(out, "sent: %d, accepted: %d, late: %d, rejected: %d\n", t.Sent, t.Accepted, t.Late, t.Rejected)
}

// batch is one request.
type batch struct {
	number int
	body   bytes.Buffer // lines
	places []place      // of each line
}

// place is where an event stood, for messages.
type place struct {
	file   string
	number int // of the event in its file, from 1
}

func newSend(env *environment) *cobra.Command {
	var (
		source   string
		shift    bool
		parallel int
		s        = &sender{env: env}
	)
	cmd := &cobra.Command{
		Use:   "send [FILE…|-]",
		Short: "Post events from files or standard input to a gateway",
		Long: "Post events from files or standard input to a gateway.\n" +
			"A file holds JSON (an object, an array, one object per line) or is a CloudTrail log file; gzip is recognised.\n" +
			"Requests that fail for a while are repeated and count once. The last line tells what became of the events.",
		Example: "  stormbell send --shift-to-now logs/*.json.gz\n  journalctl -o json | stormbell send --source host -",
		Args:    arguments(0, -1),
	}
	finds(cmd, "an event was rejected")
	conn := connect(env, cmd)
	output := outputFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&source, "source", "", "name of the configured source that the events come from (default: detect)")
	f.BoolVar(&shift, "shift-to-now", false, "move event times so that the newest is now; events get new ids")
	f.IntVar(&parallel, "parallel", 4, "requests under way at a time")
	completeFlag(cmd, "source", conn.offer(sourceNames))
	f.DurationVar(&s.retryFor, "retry-for", 5*time.Minute, "time to repeat a request that fails")
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, args []string) error {
		if parallel < 1 || parallel > 256 {
			return usagef("--parallel %d: use 1 to 256", parallel)
		}
		s.client, s.path = gateway, "/v1/events"
		if source != "" {
			s.path += "?source=" + url.QueryEscape(source)
		}
		random := make([]byte, 12)
		_, _ = rand.Read(random) // never fails: crypto/rand ends the process instead
		s.run = hex.EncodeToString(random)
		in, err := openInputs(env.in, args)
		if err != nil {
			return err
		}
		defer in.close()
		err = s.send(ctx, in, shift, parallel)
		if err = errors.Join(err, output.show(env, s.tally, s.write)); err != nil {
			return err
		}
		s.hint()
		if s.Rejected > 0 {
			return errFindings
		}
		return nil
	})
	return cmd
}

func (s *sender) send(ctx context.Context, in *inputs, shift bool, parallel int) error {
	change := func(event []byte) ([]byte, error) { return event, nil }
	if shift {
		shifter, err := newShifter(ctx, in, s.run, time.Now())
		if err != nil {
			return err
		}
		change = shifter.shift
	}
	bar := s.bar(in.size)
	defer func() { _ = bar.Finish() }()
	in.progress = func(n int) { _ = bar.Add(n) }
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	number := 0
	next := func() *batch { number++; return &batch{number: number} }
	b := next()
	flush := func() {
		full := b
		group.Go(func() error { return s.post(ctx, full) })
		b = next()
	}
	var header []byte // of the file, which each of its requests begins with
	file := ""
	err := in.each(ctx, func(event []byte, at place) error {
		if at.file != file && header != nil {
			header = nil
			if len(b.places) > 0 {
				flush()
			}
			b.body.Reset()
		}
		file = at.file
		if vpcflow.IsHeader(event) {
			header = append(bytes.Clone(event), '\n')
			b.body.Write(header)
			return nil
		}
		event, err := change(event)
		if err != nil {
			return fmt.Errorf("%s: event %d: %w", at.file, at.number, err)
		}
		if len(b.places) > 0 && (len(b.places) == batchEvents || b.body.Len()+len(event) > batchBytes) {
			flush()
			b.body.Write(header)
		}
		b.body.Write(event)
		b.body.WriteByte('\n')
		b.places = append(b.places, at)
		return nil
	})
	if len(b.places) > 0 && ctx.Err() == nil {
		flush() // what was read before a bad file is sent
	}
	if failed := group.Wait(); failed != nil {
		return failed
	}
	return err
}

func (s *sender) bar(size int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(s.env.err), progressbar.OptionSetVisibility(s.env.live),
		progressbar.OptionShowBytes(true), progressbar.OptionSetDescription("sending"),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
}

// post sends a batch until it is answered for good.
func (s *sender) post(ctx context.Context, b *batch) error {
	var body bytes.Buffer
	zip := gzip.NewWriter(&body)
	_, err := zip.Write(b.body.Bytes())
	if err = errors.Join(err, zip.Close()); err != nil {
		return fmt.Errorf("compress events: %w", err)
	}
	key := fmt.Sprintf("%s-%d", s.run, b.number)
	deadline := time.Now().Add(s.retryFor)
	for attempt := 0; ; attempt++ {
		header := http.Header{
			"Content-Type": {"application/x-ndjson"}, "Content-Encoding": {"gzip"}, "Idempotency-Key": {key},
		}
		var answer struct {
			Accepted  int         `json:"accepted"`
			Late      int         `json:"late"`
			Rejected  []rejection `json:"rejected"`
			Truncated int         `json:"rejected_truncated"`
		}
		err := s.client.do(ctx, http.MethodPost, s.path, header, bytes.NewReader(body.Bytes()), &answer)
		if err == nil {
			s.count(b, answer.Accepted, answer.Late, answer.Rejected, answer.Truncated)
			return nil
		}
		var refused *apiError
		if errors.As(err, &refused) && s.final(b, refused) {
			return nil
		}
		wait, again := pause(err, attempt)
		if !again || ctx.Err() != nil || time.Now().Add(wait).After(deadline) {
			s.count(b, 0, 0, nil, 0)
			return fmt.Errorf("events from %s on were not accepted: %w", b.places[0].file, err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// final counts a batch whose events are all rejected for good.
func (s *sender) final(b *batch, refused *apiError) bool {
	switch {
	case refused.Status == http.StatusBadRequest && len(refused.Rejected) > 0:
		s.count(b, 0, 0, refused.Rejected, refused.Truncated)
	case refused.Status == http.StatusRequestEntityTooLarge && len(b.places) == 1:
		s.count(b, 0, 0, []rejection{{0, refused.Code, refused.Detail}}, 0)
	default:
		return false
	}
	return true
}

// pause returns how long to wait before a request is repeated, if that can help.
func pause(err error, attempt int) (time.Duration, bool) {
	wait := min(200*time.Millisecond<<min(attempt, 10), 15*time.Second)
	wait = wait/2 + mathrand.N(wait/2) //nolint:gosec // jitter is no secret
	var refused *apiError
	if !errors.As(err, &refused) {
		return wait, true // the network
	}
	switch {
	case refused.Status == http.StatusTooManyRequests, refused.Status == http.StatusRequestTimeout, refused.Status >= 500:
		return max(wait, refused.retryAfter), true
	}
	return 0, false
}

func (s *sender) count(b *batch, accepted, late int, rejected []rejection, truncated int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Sent += len(b.places)
	s.Accepted += accepted
	s.Late += late
	s.Rejected += len(rejected) + truncated
	for _, r := range rejected {
		if s.shown++; s.shown > shownErrors {
			return
		}
		at := place{}
		if r.Index >= 0 && r.Index < len(b.places) {
			at = b.places[r.Index]
		}
		fmt.Fprintf(s.env.err, "%s: event %d: %s\n", at.file, at.number, printable(r.Detail))
	}
}

// hint says what to do where nothing of what was sent will do what it should.
func (s *sender) hint() {
	switch {
	case s.Sent == 0:
	case s.Rejected == s.Sent:
		fmt.Fprintln(s.env.err, "hint: all events were rejected, for the reasons above: a file holds JSON objects, or one object per line")
	case s.Accepted > 0 && s.Late == s.Accepted:
		fmt.Fprintln(s.env.err, "hint: all events are late, older than their source's lateness: rules that wait for a window's end leave them out: --shift-to-now moves them to now")
	}
}
