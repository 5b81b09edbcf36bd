package notifier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/ownership"
	"github.com/stormbell/stormbell/services/internal/seal"
	"github.com/stormbell/stormbell/services/internal/status"
	"github.com/stormbell/stormbell/services/notifier/queue"
)

// GroupNotify is the consumer group of `alerts`, without the topics' prefix.
const GroupNotify = "notify"

// Control is what the notifier knows of subscriptions; *control.View is one,
// and must be running. Subscriptions come sorted by id.
type Control interface {
	Sync(ctx context.Context) error
	Subscriptions(tenant string) []*controlv1.Subscription
	Put(ctx context.Context, objects ...*controlv1.Control) error
}

// Sender sends requests; *egress.Client is one. Timeout bounds all of Do.
type Sender interface {
	Do(req *http.Request) (*egress.Response, error)
	Timeout() time.Duration
}

// Tasks is the part of a queue that gives out deliveries.
type Tasks interface {
	Acquire(ctx context.Context, partition int, token string) (applied int64, err error)
	Create(ctx context.Context, partition int, b *queue.Batch) error
	Claim(ctx context.Context, partition int, r *queue.Request) (queue.Claim, error)
}

// Attempts is the part of a queue that takes down what became of them.
type Attempts interface {
	Settle(ctx context.Context, partition int, t *queue.Settlement) error
	Outbox(ctx context.Context, partition, limit int) ([]queue.Entry, error)
	Trim(ctx context.Context, partition int, token, id string) error
}

// Queue remembers deliveries; *queue.Memory and *queue.Redis are queues.
type Queue interface {
	Tasks
	Attempts
}

// Deps are what a notifier works with. The caller closes them after Run.
type Deps struct {
	Reader   Reader
	Producer Producer
	Group    Group
	Control  Control
	Sealer   *seal.Sealer
	Sender   Sender
	Queue    Queue
	Log      *slog.Logger
	Tracers  trace.TracerProvider
	Meters   metric.MeterProvider
	Clock    func() time.Time
	// Status counts for displays; nil counts for nobody.
	Status *status.Board
	// Fault injects crashes; nil outside tests.
	Fault Fault
}

// Service delivers the alerts of the partitions that one process owns.
type Service struct {
	cfg     Config
	deps    Deps
	counts  *counts
	courier *courier
	owned   *ownership.Partitions[progress]

	mu      sync.Mutex
	started bool
	floors  map[floorKey]floor
}

// New checks the configuration and puts the parts together; it connects to
// nothing.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := cfg.checkLease(deps.Sender.Timeout()); err != nil {
		return nil, err
	}
	endpoints := newEndpoints(cfg)
	counts, err := newCounts(deps.Meters.Meter("stormbell/notifier"), deps.Clock, endpoints.slots)
	if err != nil {
		return nil, err
	}
	if deps.Status != nil {
		counts.board = deps.Status
	}
	counts.board.Watch(counts.stage)
	return &Service{
		cfg: cfg, deps: deps, counts: counts, owned: ownership.New[progress](), floors: make(map[floorKey]floor),
		courier: &courier{
			cfg: cfg, plan: plan{cfg.Schedule, cfg.Jitter, cfg.MaxRetryAfter}, control: deps.Control,
			addresses: newAddresses(deps.Sealer), sender: deps.Sender, endpoints: endpoints,
			tracer: deps.Tracers.Tracer("stormbell/notifier"), counts: counts, fault: deps.Fault, log: deps.Log, clock: deps.Clock,
		},
	}, nil
}

// Run consumes until ctx ends, and returns nil then. It returns an error only
// where going on is impossible.
func (s *Service) Run(ctx context.Context) error {
	if err := s.samePartitions(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.mu.Lock()
	s.started = true
	s.mu.Unlock()
	ctx, crash := context.WithCancelCause(ctx)
	defer crash(nil)
	err := s.deps.Group.Consume(ctx, bus.GroupConfig{ID: GroupNotify, Topics: []string{bus.TopicAlerts}}, func(ctx context.Context, c *bus.Claim) error {
		err := s.own(ctx, c)
		if fault, ok := errors.AsType[*faultError](err); ok {
			crash(fault)
		}
		return err
	})
	if fault, ok := errors.AsType[*faultError](context.Cause(ctx)); ok {
		return fault
	}
	if err != nil {
		return fmt.Errorf("consume %s: %w", bus.TopicAlerts, err)
	}
	return nil
}

// samePartitions refuses topics in which the decisions on a partition's alerts
// would not lie in the partition of the same number.
func (s *Service) samePartitions(ctx context.Context) error {
	ask := func(topic string) (n int, err error) {
		err = retry(ctx, func(err error) { s.deps.Log.Warn("topic is not known yet", "topic", topic, "error", err) }, func() (err error) {
			n, err = s.deps.Producer.Partitions(ctx, topic)
			return err //nolint:wrapcheck // logged with its topic
		})
		return n, err
	}
	alerts, err := ask(bus.TopicAlerts)
	if err != nil {
		return err
	}
	deliveries, err := ask(bus.TopicDeliveries)
	if err != nil {
		return err
	}
	if alerts != deliveries {
		return fmt.Errorf("topic %s has %d partitions and %s has %d: both need the same number", bus.TopicAlerts, alerts, bus.TopicDeliveries, deliveries)
	}
	return nil
}

// Ready is nil once the notifier consumes and no partition of this process is
// being rebuilt; otherwise it says what is missing.
func (s *Service) Ready() error {
	s.mu.Lock()
	started := s.started
	s.mu.Unlock()
	if !started {
		return errors.New("notifier is starting")
	}
	return s.owned.Problem()
}

type floorKey struct {
	topic     string
	partition int
}

// floor is where a rebuild would start, as of a commit.
type floor struct {
	committed int64
	at        progress
	offset    int64
}

// Floor returns the offset from which a rebuild of the queue would have to
// read a partition of `alerts` or `deliveries`, for a broker in the same
// process that must not trim it. It is 0, which keeps everything, where that is
// not known, and for every other topic. It asks the log once per commit and may
// block as long as the log does.
func (s *Service) Floor(ctx context.Context, topic string, partition int) int64 {
	if topic != bus.TopicAlerts && topic != bus.TopicDeliveries {
		return 0
	}
	committed, at, ok := s.owned.Last(partition)
	if !ok {
		return 0
	}
	key := floorKey{topic, partition}
	s.mu.Lock()
	known, cached := s.floors[key]
	s.mu.Unlock()
	if cached && known.committed == committed && known.at == at {
		return known.offset
	}
	var offset int64
	var err error
	if topic == bus.TopicAlerts {
		offset, err = rebuildFrom(ctx, s.deps.Reader, partition, 0, committed, at, true)
	} else {
		offset, err = decisionsFrom(ctx, s.deps.Reader, partition, 0, at.since(), s.cfg.LookBack)
	}
	if err != nil {
		return known.offset
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.floors[key] = floor{committed, at, offset}
	return offset
}

var errOpening = errors.New("deliveries are being read")
