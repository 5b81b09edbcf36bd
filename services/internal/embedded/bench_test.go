package embedded

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkProduce measures acknowledged records of 1 KiB, each batch one
// request, from so many connections at once.
func BenchmarkProduce(b *testing.B) {
	for _, synced := range []bool{true, false} {
		for _, writers := range []int{1, 16} {
			for _, size := range []int{1, 50, 500} {
				b.Run(fmt.Sprintf("sync=%t/writers=%d/batch=%d", synced, writers, size), func(b *testing.B) {
					benchmarkProduce(b, synced, writers, size)
				})
			}
		}
	}
}

func benchmarkProduce(b *testing.B, synced bool, writers, size int) {
	cfg := testConfig(b.TempDir())
	cfg.Sync, cfg.SegmentBytes, cfg.LogMaxBytes = synced, 0, 1<<30
	broker := mustOpen(b, cfg, time.Now)
	createTopic(b, client(b, broker), events, 4)
	values := make([][]byte, size)
	for i := range values {
		values[i] = bytes.Repeat([]byte{byte('a' + i%26)}, 1024)
	}
	work := make(chan struct{}, writers)
	var wg sync.WaitGroup
	for w := range writers {
		c := client(b, broker)
		mustProduce(b, c, events, w%4, values[0])
		wg.Go(func() {
			for range work {
				if _, err := produce(b.Context(), c, events, w%4, values...); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.SetBytes(int64(size) * 1024)
	b.ResetTimer()
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64(b.N)*float64(size)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkOpen measures the start on a log of 256 MiB after a kill.
func BenchmarkOpen(b *testing.B) {
	cfg := testConfig(b.TempDir())
	cfg.Sync, cfg.SegmentBytes, cfg.LogMaxBytes = false, 0, 1<<30
	broker := mustOpen(b, cfg, time.Now)
	c := client(b, broker)
	createTopic(b, c, events, 4)
	values := make([][]byte, 500)
	for i := range values {
		values[i] = bytes.Repeat([]byte{byte('a' + i%26)}, 1024)
	}
	for i := range 512 {
		mustProduce(b, c, events, i%4, values...)
	}
	require.NoError(b, broker.Close())
	b.SetBytes(512 * 500 * 1024)
	b.ReportAllocs()
	for b.Loop() {
		broker, err := Open(cfg, quiet(), time.Now)
		require.NoError(b, err)
		require.NoError(b, broker.Close())
	}
}
