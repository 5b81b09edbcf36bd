package notifier

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/notifier/queue"
)

// bell counts wake-ups.
type bell struct{ rung int }

func (b *bell) wake() { b.rung++ }

// street is endpoints with a clock.
type street struct {
	*endpoints
	t   *testing.T
	now time.Time
	w   *bell
}

func newStreet(t *testing.T, change ...func(*Config)) *street {
	c := DefaultConfig()
	for _, f := range change {
		f(&c)
	}
	return &street{newEndpoints(c), t, time.Unix(1_700_000_000, 0), new(bell)}
}

// visit makes n requests that end alike.
func (s *street) visit(n int, r result) {
	s.t.Helper()
	for range n {
		require.True(s.t, s.begin("x", s.now, s.w))
		s.end("x", s.now, r, false, 0)
	}
}

// space is the room of x, and when it opens.
func (s *street) space() (most int, opens time.Time) {
	_, rooms := s.rooms(s.now, s.w)
	room := queue.Room{Max: firstLimit}
	for _, r := range rooms {
		if r.Endpoint == "x" {
			room = r
		}
	}
	return room.Max, time.UnixMilli(room.NotBeforeMS)
}

func TestRoomGrowsAndShrinks(t *testing.T) {
	s := newStreet(t)
	for _, want := range []int{1, 2, 4, 8, 16, 16} {
		most, _ := s.space()
		require.Equal(t, want, most)
		s.visit(1, succeeded)
	}
	for _, want := range []int{8, 4, 1, 1} { // the third failure in a row makes a suspect
		s.visit(1, failed)
		most, _ := s.space()
		require.Equal(t, want, most)
	}
	s.visit(1, succeeded)
	most, _ := s.space()
	require.Equal(t, 2, most)
}

func TestSlots(t *testing.T) {
	s := newStreet(t, func(c *Config) { c.Workers = 2 })
	require.True(t, s.begin("x", s.now, s.w))
	require.False(t, s.begin("x", s.now, s.w), "one at a time, at first")
	require.True(t, s.begin("y", s.now, s.w))
	limit, _ := s.rooms(s.now, s.w)
	require.Zero(t, limit)
	require.Equal(t, 2, s.slots())
	s.end("y", s.now, succeeded, false, 0)
	require.Positive(t, s.w.rung, "a slot is free")
	limit, _ = s.rooms(s.now, s.w)
	require.Equal(t, 1, limit)
	rung := s.w.rung
	s.end("x", s.now, unknown, false, 0)
	require.Greater(t, s.w.rung, rung)
	s.leave(s.w)
	require.Zero(t, s.slots())
}

func TestSuspectsShareHalf(t *testing.T) {
	s := newStreet(t, func(c *Config) { c.Workers, c.BreakerRequests = 4, 1000 })
	for _, name := range []string{"a", "b", "c"} {
		for range suspectFailures {
			require.True(t, s.begin(name, s.now, s.w))
			s.end(name, s.now, failed, false, 0)
		}
	}
	require.True(t, s.begin("a", s.now, s.w))
	require.True(t, s.begin("b", s.now, s.w))
	require.False(t, s.begin("c", s.now, s.w), "half of the workers are for those that work")
	require.True(t, s.begin("x", s.now, s.w))
	_, _ = s.rooms(s.now, s.w)
	rung := s.w.rung
	s.end("a", s.now, failed, false, 0)
	require.Greater(t, s.w.rung, rung)
	require.True(t, s.begin("c", s.now, s.w))
}

func TestRate(t *testing.T) {
	s := newStreet(t, func(c *Config) { c.Rate, c.Burst = 10, 3 })
	s.visit(3, succeeded)
	most, opens := s.space()
	require.Zero(t, most)
	require.WithinDuration(t, s.now.Add(100*time.Millisecond), opens, 2*time.Millisecond)
	require.False(t, s.begin("x", s.now, s.w))
	s.now = s.now.Add(100 * time.Millisecond)
	most, _ = s.space()
	require.Equal(t, 1, most)
	s.now = s.now.Add(time.Hour)
	s.visit(3, succeeded)
	require.False(t, s.begin("x", s.now, s.w), "not more than a burst")
}

func TestBreaker(t *testing.T) {
	s := newStreet(t)
	s.visit(3, succeeded)
	s.visit(6, failed)
	_, opens := s.space()
	require.True(t, opens.Before(s.now), "six of nine")
	s.visit(1, failed)
	most, opens := s.space()
	require.Zero(t, most)
	require.WithinDuration(t, s.now.Add(30*time.Second), opens, 2*time.Millisecond)
	require.True(t, s.fails("x"))
	pause := 30 * time.Second
	for range 6 { // one probe after each pause, which doubles
		s.now = s.now.Add(pause + time.Millisecond)
		most, _ = s.space()
		require.Equal(t, 1, most)
		s.visit(1, failed)
		pause = min(2*pause, 5*time.Minute)
		_, opens = s.space()
		require.WithinDuration(t, s.now.Add(pause), opens, 2*time.Millisecond)
	}
	s.now = s.now.Add(pause + time.Millisecond)
	s.visit(1, succeeded)
	require.False(t, s.fails("x"))
	most, opens = s.space()
	require.Equal(t, 2, most)
	require.True(t, opens.Before(s.now))
}

// Requests that were under way when the breaker opened do not stretch its pause.
func TestBreakerCountsProbesOnly(t *testing.T) {
	s := newStreet(t)
	s.visit(5, succeeded)
	for range 16 {
		require.True(t, s.begin("x", s.now, s.w))
	}
	for range 16 {
		s.end("x", s.now, failed, false, 0)
	}
	_, opens := s.space()
	require.WithinDuration(t, s.now.Add(30*time.Second), opens, 2*time.Millisecond)
}

func TestFailuresOfLongAgo(t *testing.T) {
	s := newStreet(t)
	for range 5 {
		s.visit(4, failed)
		s.now = s.now.Add(6 * time.Minute)
	}
	_, opens := s.space()
	require.True(t, opens.Before(s.now))
}

func TestThrottle(t *testing.T) {
	s := newStreet(t)
	for _, want := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second} {
		require.True(t, s.begin("x", s.now, s.w))
		s.end("x", s.now, failed, true, 0)
		_, opens := s.space()
		require.WithinDuration(t, s.now.Add(want), opens, 2*time.Millisecond)
		s.now = opens
	}
	require.True(t, s.begin("x", s.now, s.w))
	s.end("x", s.now, failed, true, time.Hour)
	_, opens := s.space()
	require.WithinDuration(t, s.now.Add(time.Hour), opens, 2*time.Millisecond, "as the receiver asks")
}

// A claim is not told of endpoints without requests: the first one wakes it.
func TestIdleEndpoint(t *testing.T) {
	s := newStreet(t)
	s.visit(3, succeeded)
	_, rooms := s.rooms(s.now, s.w)
	require.Len(t, rooms, 1)
	s.now = s.now.Add(idleAge + time.Second)
	_, rooms = s.rooms(s.now, s.w)
	require.Empty(t, rooms)
	rung := s.w.rung
	require.True(t, s.begin("x", s.now, s.w))
	require.Greater(t, s.w.rung, rung)
	most, _ := s.space()
	require.Equal(t, 7, most)
}

func TestIdleEndpointsAreForgotten(t *testing.T) {
	s := newStreet(t)
	s.visit(1, succeeded)
	s.now = s.now.Add(sweepAge + time.Minute)
	s.sweep(s.now)
	require.Empty(t, s.all)
}
