package correlator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	statusv1 "github.com/stormbell/stormbell/proto/stormbell/status/v1"
	"github.com/stormbell/stormbell/services/correlator/geo"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/ownership"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/internal/status"
	"github.com/stormbell/stormbell/services/sigma"
)

// Consumer groups of the two stages, without the topics' prefix.
const (
	GroupDetect    = "detect"
	GroupCorrelate = "correlate"
)

// Deps are what a correlator works with. The caller closes them after Run.
type Deps struct {
	Reader   Reader
	Producer Producer
	Group    Group
	// Control is the view of `control`; it must be running.
	Control ruleset.Control
	// Store is needed by stage correlate only.
	Store   Store
	Log     *slog.Logger
	Tracers trace.TracerProvider
	Meters  metric.MeterProvider
	Clock   func() time.Time
	// Placeholders are the values of `%name%` in rules.
	Placeholders map[string][]string
	// Status counts for displays; nil counts for nobody.
	Status *status.Board
	// Fault injects crashes; nil outside tests.
	Fault Fault
}

// Service runs the stages of one process.
type Service struct {
	cfg    Config
	deps   Deps
	plans  *ruleset.Cache[*plan]
	counts *counts
	places *geo.Locator
	owned  *ownership.Partitions[progress]
	gate   *gate // of both stages

	mu      sync.Mutex
	started bool
	floors  map[int]floor
}

// New checks the configuration and puts the parts together; it connects to
// nothing.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.correlates() && deps.Store == nil {
		return nil, errors.New("correlator: stage correlate needs a store")
	}
	places, err := geo.Open(cfg.GeoFile)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	counts, err := newCounts(deps.Meters.Meter("stormbell/correlator"), deps.Clock)
	if err != nil {
		return nil, err
	}
	if deps.Status != nil {
		counts.board = deps.Status
	}
	for stage, runs := range map[string]bool{stageDetect: cfg.detects(), stageCorrelate: cfg.correlates()} {
		if runs {
			counts.board.Watch(func() *statusv1.Stage { return counts.stage(stage) })
		}
	}
	opts := ruleset.Options{Limit: cfg.RuleSets, Options: sigma.Options{Placeholders: deps.Placeholders, Accept: cfg.Accept}}
	return &Service{
		cfg: cfg, deps: deps, counts: counts, places: places, owned: ownership.New[progress](), gate: new(gate), floors: make(map[int]floor),
		plans: ruleset.NewCache(deps.Control, opts, deps.Log, cfg.newPlan),
	}, nil
}

// Run consumes until ctx ends, and returns nil then. It returns an error only
// where going on is impossible.
func (s *Service) Run(ctx context.Context) error {
	events, detections, err := s.partitions(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.mu.Lock()
	s.started = true
	s.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	if s.cfg.detects() {
		g.Go(func() error { return s.consume(ctx, GroupDetect, TopicEvents, s.detector(detections).own) })
	}
	if s.cfg.correlates() {
		g.Go(func() error {
			return s.consume(ctx, GroupCorrelate, TopicDetections, s.correlator(events, detections).own)
		})
	}
	return g.Wait() //nolint:wrapcheck // consume's own errors
}

// partitions asks how many partitions the topics have, as long as it takes.
func (s *Service) partitions(ctx context.Context) (events, detections int, err error) {
	ask := func(topic string) (n int, err error) {
		err = retry(ctx, func(err error) { s.deps.Log.Warn("topic is not known yet", "topic", topic, "error", err) }, func() (err error) {
			n, err = s.deps.Producer.Partitions(ctx, topic)
			return err //nolint:wrapcheck // logged with its topic
		})
		return n, err
	}
	if events, err = ask(TopicEvents); err != nil {
		return 0, 0, err
	}
	if events > maxUpstream {
		return 0, 0, fmt.Errorf("topic %s has %d partitions, at most %d are supported", TopicEvents, events, maxUpstream)
	}
	detections, err = ask(TopicDetections)
	return events, detections, err
}

// consume runs one stage. An injected fault ends it at once.
func (s *Service) consume(ctx context.Context, id, topic string, own func(context.Context, *claim) error) error {
	ctx, crash := context.WithCancelCause(ctx)
	defer crash(nil)
	err := s.deps.Group.Consume(ctx, bus.GroupConfig{ID: id, Topics: []string{topic}}, func(ctx context.Context, c *bus.Claim) error {
		err := own(ctx, &claim{Partition: c.Partition, Committed: c.Committed, Metadata: c.Metadata, Commit: c.Commit})
		if fault, ok := errors.AsType[*faultError](err); ok {
			crash(fault)
		}
		return err
	})
	if fault, ok := errors.AsType[*faultError](context.Cause(ctx)); ok {
		return fault
	}
	if err != nil {
		return fmt.Errorf("consume %s: %w", topic, err)
	}
	return nil
}

func (s *Service) detector(detections int) *detector {
	return &detector{
		cfg: s.cfg, reader: s.deps.Reader, producer: s.deps.Producer, plans: s.plans,
		tracer: s.deps.Tracers.Tracer("stormbell/correlator"), counts: s.counts, fault: s.deps.Fault,
		log: s.deps.Log.With("stage", stageDetect), clock: s.deps.Clock, gate: s.gate, places: s.places, detections: detections, look: true,
	}
}

func (s *Service) correlator(events, detections int) *correlator {
	return &correlator{
		cfg: s.cfg, reader: s.deps.Reader, producer: s.deps.Producer, store: s.deps.Store, plans: s.plans,
		tracer: s.deps.Tracers.Tracer("stormbell/correlator"), counts: s.counts, fault: s.deps.Fault,
		log: s.deps.Log.With("stage", stageCorrelate), clock: s.deps.Clock, events: events, siblings: detections, owned: s.owned, gate: s.gate,
		share: max(1, (s.cfg.Groups+int64(detections)-1)/int64(detections)),
	}
}

// Ready is nil once the stages run and no partition of this process is being
// rebuilt; otherwise it says what is missing.
func (s *Service) Ready() error {
	s.mu.Lock()
	started := s.started
	s.mu.Unlock()
	if !started {
		return errors.New("correlator is starting")
	}
	return s.owned.Problem()
}

// floor is where a rebuild would start, as of a commit.
type floor struct{ committed, offset int64 }

// Floor returns the offset from which a rebuild of a partition of
// `detections` would have to read, for a broker in the same process that must
// not trim it. It is 0, which keeps everything, where that is not known, and
// for every other topic: what is committed is known to the broker. It asks the
// log once per commit and may block as long as the log does.
func (s *Service) Floor(ctx context.Context, topic string, partition int) int64 {
	if topic != TopicDetections {
		return 0
	}
	committed, at, ok := s.owned.Last(partition)
	if !ok {
		return 0
	}
	s.mu.Lock()
	known, cached := s.floors[partition]
	s.mu.Unlock()
	if cached && known.committed == committed {
		return known.offset
	}
	offset, err := rebuildFrom(ctx, s.deps.Reader, partition, 0, committed, at)
	if err != nil {
		return known.offset
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.floors[partition] = floor{committed, offset}
	return offset
}
