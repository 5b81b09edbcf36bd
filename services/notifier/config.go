package notifier

import (
	"errors"
	"fmt"
	"time"

	"github.com/stormbell/stormbell/services/notifier/settings"
)

// Config says how the notifier delivers.
type Config settings.Config

// DefaultConfig returns the schedule of Standard Webhooks: ten attempts over
// 75 hours.
func DefaultConfig() Config { return Config(settings.Default()) }

const (
	maxWorkers  = 100_000
	maxInFlight = 1000
	maxAttempts = 100
	maxJitter   = 0.5
	// leaseMargin is what a lease must leave, beyond the request, for reading
	// secrets before it and for writing the attempt after it.
	leaseMargin = 2 * time.Second
)

// Validate reports every setting that cannot work.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("notifier: "+format, args...)) }
	if len(c.Schedule) == 0 || len(c.Schedule) > maxAttempts {
		bad("schedule of %d attempts: use 1 to %d", len(c.Schedule), maxAttempts)
	}
	for _, d := range c.Schedule {
		if d < 0 {
			bad("schedule has a pause of %s: use 0 or more", d)
		}
	}
	if c.Jitter < 0 || c.Jitter > maxJitter {
		bad("jitter %g: use 0 to %g", c.Jitter, maxJitter)
	}
	if need := c.LookBack + c.horizon(); c.Retention < need {
		bad("retention %s: a rebuild reads alerts and deliveries back for look_back and the whole schedule: keep them for %s or longer, or shorten those", c.Retention, need)
	}
	if c.Workers < 1 || c.Workers > maxWorkers {
		bad("workers %d: use 1 to %d", c.Workers, maxWorkers)
	}
	if c.InFlight < 1 || c.InFlight > maxInFlight {
		bad("in_flight %d: use 1 to %d", c.InFlight, maxInFlight)
	}
	if c.Rate < 0 || c.Burst < 1 {
		bad("rate %g and burst %d: use 0 or more, and 1 or more", c.Rate, c.Burst)
	}
	if c.BreakerRequests < 1 || c.BreakerFailed <= 0 || c.BreakerFailed > 1 {
		bad("breaker_requests %d and breaker_failed %g: use 1 or more, and a part of 1", c.BreakerRequests, c.BreakerFailed)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"look_back", c.LookBack},
		{"max_retry_after", c.MaxRetryAfter},
		{"breaker_window", c.BreakerWindow},
		{"breaker_pause", c.BreakerPause},
		{"throttle", c.Throttle},
		{"lease", c.Lease},
		{"poll", c.Poll},
		{"commit", c.Commit},
		{"grace", c.Grace},
	} {
		if d.value <= 0 {
			bad("%s %s: use more than 0", d.name, d.value)
		}
	}
	if c.BreakerMaxPause < c.BreakerPause {
		bad("breaker_max_pause %s: use at least breaker_pause", c.BreakerMaxPause)
	}
	return errors.Join(errs...)
}

// checkLease refuses a lease that a request could outlive: the task would be
// sent twice.
func (c Config) checkLease(timeout time.Duration) error {
	if c.Lease < timeout+leaseMargin {
		return fmt.Errorf("notifier: lease %s: a request may take %s: use at least %s", c.Lease, timeout, timeout+leaseMargin)
	}
	return nil
}

// horizon is how long after its first attempt the last one may be due.
func (c Config) horizon() time.Duration {
	var sum time.Duration
	for _, d := range c.Schedule {
		sum += d
	}
	return sum + time.Duration(float64(sum)*c.Jitter)
}
