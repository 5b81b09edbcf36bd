// Package settings holds the settings of the notifier, so that a program that
// reads them need not link the notifier. What they may be is checked there.
package settings

import "time"

// Config says how the notifier delivers. Limits of an endpoint hold in each
// process that delivers to it.
type Config struct {
	// Schedule is the pause before each attempt; as many attempts are made as
	// it has entries.
	Schedule []time.Duration `yaml:"schedule" env:"SCHEDULE"`
	// Jitter is the part of each pause by which it may be longer or shorter.
	Jitter float64 `yaml:"jitter" env:"JITTER"`
	// MaxRetryAfter bounds how far a receiver's Retry-After may put off an attempt.
	MaxRetryAfter time.Duration `yaml:"max_retry_after" env:"MAX_RETRY_AFTER"`
	// LookBack is how long after an alert its record may be written again, with
	// what clocks differ.
	LookBack time.Duration `yaml:"look_back" env:"LOOK_BACK"`
	// Retention is how long `alerts` and `deliveries` are kept.
	Retention time.Duration `yaml:"retention" env:"RETENTION"`
	// Workers bounds the requests under way in this process.
	Workers int `yaml:"workers" env:"WORKERS"`
	// InFlight bounds those to one endpoint. One that fails gets one at a time.
	InFlight int `yaml:"in_flight" env:"IN_FLIGHT"`
	// Rate bounds the requests to one endpoint, per second; 0 is without bound.
	Rate float64 `yaml:"rate" env:"RATE"`
	// Burst is how many requests may exceed the rate at once.
	Burst int `yaml:"burst" env:"BURST"`
	// BreakerRequests is the least number of requests within BreakerWindow
	// after which an endpoint, of which BreakerFailed (0 to 1) failed, is left
	// alone for BreakerPause, and longer each time up to BreakerMaxPause.
	BreakerRequests int           `yaml:"breaker_requests" env:"BREAKER_REQUESTS"`
	BreakerFailed   float64       `yaml:"breaker_failed" env:"BREAKER_FAILED"`
	BreakerWindow   time.Duration `yaml:"breaker_window" env:"BREAKER_WINDOW"`
	BreakerPause    time.Duration `yaml:"breaker_pause" env:"BREAKER_PAUSE"`
	BreakerMaxPause time.Duration `yaml:"breaker_max_pause" env:"BREAKER_MAX_PAUSE"`
	// Throttle is the least pause of an endpoint that answered 429, 502 or 504.
	Throttle time.Duration `yaml:"throttle" env:"THROTTLE"`
	// Lease is how long a delivery belongs to who has claimed it. It must
	// exceed the whole time-out of a request.
	Lease time.Duration `yaml:"lease" env:"LEASE"`
	// Poll is the longest pause between two looks at the queue.
	Poll time.Duration `yaml:"poll" env:"POLL"`
	// Commit is the time between two commits of a partition's offset.
	Commit time.Duration `yaml:"commit" env:"COMMIT"`
	// Grace is how long requests under way may take to end when a partition is
	// given up. It must be well below kafka.rebalance_timeout.
	Grace time.Duration `yaml:"grace" env:"GRACE"`
}

// Default returns the schedule of Standard Webhooks: ten attempts over
// 75 hours.
func Default() Config {
	return Config{
		Schedule: []time.Duration{
			0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour,
			5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
		},
		Jitter: 0.1, MaxRetryAfter: 24 * time.Hour, LookBack: 25 * time.Hour, Retention: 7 * 24 * time.Hour,
		Workers: 1024, InFlight: 16, Rate: 500, Burst: 1000,
		BreakerRequests: 10, BreakerFailed: 0.7, BreakerWindow: 5 * time.Minute, BreakerPause: 30 * time.Second, BreakerMaxPause: 5 * time.Minute,
		Throttle: 5 * time.Second, Lease: 30 * time.Second, Poll: time.Second, Commit: 500 * time.Millisecond, Grace: 2 * time.Second,
	}
}
