package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// engineLog turns the engine's log into ours. The engine reports errors of
// the disk only there, so it also tells them apart.
type engineLog struct {
	log    *slog.Logger
	clock  func() time.Time
	failed func(err error, final bool) // a write failed

	warnings, errors atomic.Int64

	mu   sync.Mutex
	last map[string]time.Time // by format, so bounded by the engine's code
	held map[string]int
}

// Logf implements kfake.Logger.
func (l *engineLog) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelWarn
	switch level {
	case kfake.LogLevelWarn:
		l.warnings.Add(1)
	case kfake.LogLevelError:
		l.errors.Add(1)
		to = slog.LevelError
	default:
		return // requests, one line each
	}
	detail := fmt.Sprintf(format, args...)
	// "persist batch" and "persist group entry" are refused or repeated and
	// may work again when space is free. The rest is state that the engine
	// now holds only in memory.
	if strings.HasPrefix(format, "persist ") {
		retried := strings.HasPrefix(format, "persist batch") || strings.HasPrefix(format, "persist group entry")
		l.failed(fmt.Errorf("%w: %s", errDisk, detail), !retried)
	}
	if suppressed, ok := l.due(format); ok {
		l.log.Log(context.Background(), to, "broker engine reports a problem", "detail", detail, "suppressed", suppressed)
	}
}

// due lets one line per format and second pass.
func (l *engineLog) due(format string) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock()
	if last, seen := l.last[format]; seen && now.Sub(last) < time.Second {
		l.held[format]++
		return 0, false
	}
	l.last[format] = now
	suppressed = l.held[format]
	delete(l.held, format)
	return suppressed, true
}
