package bus_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/bus"
)

func one(value string) func([]bus.Message) []bus.Message {
	return func(dst []bus.Message) []bus.Message { return append(dst, bus.Message{Value: []byte(value)}) }
}

// values reads all that partition 0 of events holds.
func values(t testing.TB, c *bus.Client) []string {
	t.Helper()
	first, end, err := c.Offsets(t.Context(), bus.TopicEvents, 0)
	require.NoError(t, err)
	var out []string
	require.NoError(t, c.Read(t.Context(), bus.TopicEvents, 0, first, end, func(r []bus.Record) error {
		for _, x := range r {
			out = append(out, string(x.Value))
		}
		return nil
	}))
	return out
}

// held submits a record whose build does not return before release is called,
// so that all that comes later waits.
func held(t testing.TB, p *bus.Producer, size int) (result chan error, release func()) {
	t.Helper()
	building, hold := make(chan struct{}), make(chan struct{})
	result = make(chan error, 1)
	go func() {
		result <- p.Submit(context.Background(), 0, size, func(dst []bus.Message) []bus.Message {
			close(building)
			<-hold
			return one("held")(dst)
		})
	}()
	<-building
	release = sync.OnceFunc(func() { close(hold) })
	t.Cleanup(p.Close)
	t.Cleanup(release) // before Close
	return result, release
}

func TestProducerGroupsAndBuildsLate(t *testing.T) {
	c, _ := start(t, 1)
	p := bus.NewProducer(c, bus.TopicEvents, bus.DefaultProducerConfig())
	result, release := held(t, p, 10)
	const n = 200
	var wg sync.WaitGroup
	errs := make(chan error, n)
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i))
		wg.Go(func() { errs <- p.Submit(t.Context(), 0, 10, one(fmt.Sprint(i))) })
	}
	require.Eventually(t, func() bool { return p.Queued() == 10*(n+1) }, 10*time.Second, time.Millisecond)
	release()
	wg.Wait()
	require.NoError(t, <-result)
	for range n {
		require.NoError(t, <-errs)
	}
	require.ElementsMatch(t, append(want, "held"), values(t, c))
	p.Close()
	require.Zero(t, p.Queued())
	require.ErrorIs(t, p.Submit(t.Context(), 0, 1, nil), bus.ErrClosed)
}

func TestProducerRefusesBeyondItsBounds(t *testing.T) {
	c, _ := start(t, 1)
	tests := []struct {
		name   string
		change func(*bus.ProducerConfig)
	}{
		{"bytes", func(c *bus.ProducerConfig) { c.MaxQueuedBytes = 100 }},
		{"requests", func(c *bus.ProducerConfig) { c.MaxQueuedRequests = 1 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := bus.DefaultProducerConfig()
			tt.change(&cfg)
			require.NoError(t, cfg.Validate())
			p := bus.NewProducer(c, bus.TopicEvents, cfg)
			result, release := held(t, p, 90)
			require.ErrorIs(t, p.Submit(t.Context(), 0, 20, nil), bus.ErrQueueFull)
			release()
			require.NoError(t, <-result)
			require.NoError(t, p.Submit(t.Context(), 0, 20, one("after")), "the place is free again")
		})
	}
}

func TestProducerTakesBackWhatStillWaits(t *testing.T) {
	c, _ := start(t, 1)
	p := bus.NewProducer(c, bus.TopicEvents, bus.DefaultProducerConfig())
	result, release := held(t, p, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := p.Submit(ctx, 0, 5, one("taken back"))
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, bus.ErrOutcomeUnknown, "nothing was written, and that is known")
	require.EqualValues(t, 10, p.Queued())
	release()
	require.NoError(t, <-result)
	require.Equal(t, []string{"held"}, values(t, c))
}

func TestProducerDoesNotKnowWhatBecomesOfWhatIsUnderWay(t *testing.T) {
	c, _ := start(t, 1)
	p := bus.NewProducer(c, bus.TopicEvents, bus.DefaultProducerConfig())
	ctx, cancel := context.WithCancel(t.Context())
	hold := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		result <- p.Submit(ctx, 0, 10, func(dst []bus.Message) []bus.Message {
			cancel()
			<-hold
			return one("late")(dst)
		})
	}()
	require.ErrorIs(t, <-result, bus.ErrOutcomeUnknown)
	close(hold)
	p.Close()
	require.Equal(t, []string{"late"}, values(t, c), "an error does not mean that it is not written")
}

// TestOneTooLargeDoesNotFailItsCompany: random bytes, since the limit is on
// compressed batches.
func TestOneTooLargeDoesNotFailItsCompany(t *testing.T) {
	port := freePort(t)
	fake(t, t.TempDir(), port) // takes a mebibyte, as Kafka does
	c := open(t, at(port))
	_, err := c.EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	p := bus.NewProducer(c, bus.TopicEvents, bus.DefaultProducerConfig())
	result, release := held(t, p, 10)
	large := make([]byte, 3<<20)
	_, _ = rand.Read(large)
	var wg sync.WaitGroup
	var good [3]error
	var bad error
	wg.Go(func() { bad = p.Submit(t.Context(), 0, 10, one(string(large))) })
	for i := range good {
		wg.Go(func() { good[i] = p.Submit(t.Context(), 0, 10, one(fmt.Sprint(i))) })
	}
	require.Eventually(t, func() bool { return p.Queued() == 50 }, 10*time.Second, time.Millisecond)
	release()
	wg.Wait()
	require.NoError(t, <-result)
	require.ErrorIs(t, bad, bus.ErrTooLarge)
	for _, err := range good {
		require.NoError(t, err)
	}
	stored := values(t, c)
	for _, v := range []string{"held", "0", "1", "2"} {
		require.Contains(t, stored, v)
	}
	require.NotContains(t, strings.Join(stored, " "), string(large[:64]))
}

func TestProducerConfigIsHeldToItsLimits(t *testing.T) {
	for name, change := range map[string]func(*bus.ProducerConfig){
		"no bytes":    func(c *bus.ProducerConfig) { c.MaxQueuedBytes = 0 },
		"no requests": func(c *bus.ProducerConfig) { c.MaxQueuedRequests = 0 },
		"large batch": func(c *bus.ProducerConfig) { c.MaxBatchBytes = 1 << 20 },
	} {
		cfg := bus.DefaultProducerConfig()
		change(&cfg)
		require.Error(t, cfg.Validate(), name)
	}
}
