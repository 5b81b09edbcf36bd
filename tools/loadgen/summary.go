package loadgen

import (
	"fmt"
	"strings"
	"time"
)

// A Summary is a Result as it is printed. Times are in milliseconds.
type Summary struct {
	Result

	EventsPerSecond float64 `json:"events_per_second"`
	P50             float64 `json:"p50_ms"`
	P99             float64 `json:"p99_ms"`
	P999            float64 `json:"p99_9_ms"`
	Most            float64 `json:"max_ms"`
	// Cores are how many the generator kept busy.
	Cores float64 `json:"generator_cores"`
}

// Summary returns the figures of r.
func (r *Result) Summary() Summary {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return Summary{
		Result: *r, EventsPerSecond: r.Rate(),
		P50: ms(r.Percentile(50)), P99: ms(r.Percentile(99)), P999: ms(r.Percentile(99.9)), Most: ms(r.Percentile(100)),
		Cores: r.CPU.Seconds() / r.Took.Seconds(),
	}
}

// String is a few lines for people.
func (s Summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sent       %d events in %d requests, %.1f MB, %s\n", s.Sent, s.Requests, float64(s.Bytes)/1e6, s.Took.Round(time.Millisecond))
	fmt.Fprintf(&b, "accepted   %d events, %.0f/s\n", s.Accepted, s.EventsPerSecond)
	for what, n := range s.Errors {
		fmt.Fprintf(&b, "error      %s: %d requests\n", what, n)
	}
	fmt.Fprintf(&b, "latency    p50 %.1f ms, p99 %.1f ms, p99.9 %.1f ms, max %.1f ms from the intended time\n", s.P50, s.P99, s.P999, s.Most)
	fmt.Fprintf(&b, "generator  %.2f cores, %d requests left late\n", s.Cores, s.Behind)
	return b.String()
}
