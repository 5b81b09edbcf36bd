package bus

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

type metrics struct {
	produce  metric.Float64Histogram
	batch    metric.Int64Histogram
	records  metric.Int64Counter
	retries  metric.Int64Counter
	failures metric.Int64Counter
	requeues metric.Int64Counter
	observer metric.Registration

	mu     sync.Mutex
	queues map[*Producer]struct{}
	lags   map[place]int64 // of the partitions owned now
}

// place is where a consumer stands.
type place struct {
	group, topic string
	partition    int
}

func newMetrics(meter metric.Meter) (*metrics, error) {
	m := &metrics{queues: map[*Producer]struct{}{}, lags: map[place]int64{}}
	var errs [8]error
	m.produce, errs[0] = meter.Float64Histogram("stormbell_bus_produce_duration_seconds", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30),
		metric.WithDescription("Time from building a produce to its acknowledgement, retries included."))
	m.batch, errs[1] = meter.Int64Histogram("stormbell_bus_produce_batch_records",
		metric.WithExplicitBucketBoundaries(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
		metric.WithDescription("Records in one acknowledged produce."))
	m.records, errs[2] = meter.Int64Counter("stormbell_bus_produced_records_total", metric.WithDescription("Acknowledged records."))
	m.retries, errs[3] = meter.Int64Counter("stormbell_bus_produce_retries_total", metric.WithDescription("Produces sent again after a fault that may pass."))
	m.failures, errs[4] = meter.Int64Counter("stormbell_bus_produce_failures_total", metric.WithDescription("Produces given up: their outcome is unknown."))
	m.requeues, errs[5] = meter.Int64Counter("stormbell_bus_handler_restarts_total", metric.WithDescription("Times a partition's handler returned an error and was started again."))
	queue, err := meter.Int64ObservableGauge("stormbell_bus_queue_bytes", metric.WithUnit("By"), metric.WithDescription("Bytes that wait for a produce or are under way."))
	errs[6] = err
	lag, err := meter.Int64ObservableGauge("stormbell_bus_lag_records", metric.WithDescription("Records between the last one fetched and the end of an owned partition."))
	errs[7] = err
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	m.observer, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		m.observe(o, queue, lag)
		return nil
	}, queue, lag)
	return m, err
}

func (m *metrics) observe(o metric.Observer, queue, lag metric.Int64Observable) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.queues {
		o.ObserveInt64(queue, p.Queued(), metric.WithAttributes(attribute.String("topic", p.topic)))
	}
	for at, n := range m.lags {
		o.ObserveInt64(lag, n, metric.WithAttributes(attribute.String("group", at.group),
			attribute.String("topic", at.topic), attribute.Int("partition", at.partition)))
	}
}

// close ends the observation; that it fails twice is no news.
func (m *metrics) close() { _ = m.observer.Unregister() }

func (m *metrics) watch(p *Producer) {
	m.mu.Lock()
	m.queues[p] = struct{}{}
	m.mu.Unlock()
}

func (m *metrics) unwatch(p *Producer) {
	m.mu.Lock()
	delete(m.queues, p)
	m.mu.Unlock()
}

func (m *metrics) behind(at place, n int64) {
	m.mu.Lock()
	m.lags[at] = n
	m.mu.Unlock()
}

// released forgets a partition that another member will report.
func (m *metrics) released(at place) {
	m.mu.Lock()
	delete(m.lags, at)
	m.mu.Unlock()
}
