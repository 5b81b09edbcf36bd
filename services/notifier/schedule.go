package notifier

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A plan says when attempts are due. It is pure.
type plan struct {
	schedule []time.Duration
	jitter   float64
	most     time.Duration // of Retry-After
}

// pause is how long to wait after the given number of attempts, all failed,
// and false where there is no further one. The jitter is the same for the same
// names, so that a repetition decides alike.
func (p plan) pause(webhookID, endpoint string, attempts int) (time.Duration, bool) {
	if attempts >= len(p.schedule) {
		return 0, false
	}
	base := float64(p.schedule[attempts])
	return time.Duration(base + base*p.jitter*spread(webhookID, endpoint, attempts)), true
}

// spread is a figure in [−1, 1) that looks random.
func spread(webhookID, endpoint string, attempts int) float64 {
	h := sha256.Sum256([]byte(webhookID + "\n" + endpoint + "\n" + strconv.Itoa(attempts)))
	return float64(binary.BigEndian.Uint64(h[:])>>11)/(1<<52) - 1
}

// retryAfter is what a response's header asks for: seconds or a date. 0 where
// it says nothing that can be read.
func (p plan) retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return 0
	}
	var after time.Duration
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 {
		after = time.Duration(math.Min(seconds, p.most.Seconds()) * float64(time.Second))
	} else if at, err := http.ParseTime(text); err == nil {
		after = at.Sub(now)
	}
	return min(max(after, 0), p.most)
}

// throttles reports whether a status asks to leave the endpoint alone, and not
// just this task.
func throttles(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusBadGateway || status == http.StatusGatewayTimeout
}
