package up

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFloors(t *testing.T) {
	var offset atomic.Int64
	release := make(chan struct{})
	f := newFloors("stormbell.", 2)
	f.ask("detections", func(_ context.Context, topic string, partition int) int64 {
		<-release
		require.Equal(t, "detections", topic)
		return offset.Load() + int64(partition)
	})
	offset.Store(40)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.run(ctx, time.Millisecond) }()

	// A service that blocks does not hold up who asks; everything stays meanwhile.
	require.Zero(t, f.known("stormbell.detections", 1))
	require.Equal(t, int64(-1), f.known("stormbell.events", 0), "nobody knows about events")
	require.Equal(t, int64(-1), f.known("stormbell.detections", 2))
	close(release)
	require.Eventually(t, func() bool { return f.known("stormbell.detections", 1) == 41 }, time.Minute, time.Millisecond)
	offset.Store(50)
	require.Eventually(t, func() bool { return f.known("stormbell.detections", 0) == 50 }, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
}
