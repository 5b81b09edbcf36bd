package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	statusv1 "github.com/stormbell/stormbell/proto/stormbell/status/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

// A Log is what a view reads the topic from; *bus.Client is one.
type Log interface {
	OffsetAtTime(ctx context.Context, topic string, partition int, t time.Time) (int64, error)
	Follow(ctx context.Context, topic string, partition int, from int64, fn func([]bus.Record) error) error
}

// maxInstances bounds the processes of which a view remembers the last report.
const maxInstances = 2000

// View is the last report of each process of the last bus.StatusRetention. It
// is safe for concurrent use.
type View struct {
	log   Log
	slog  *slog.Logger
	clock func() time.Time

	mu      sync.Mutex
	reports map[string]*statusv1.Report // by instance; they never change
}

// NewView returns a view that is empty until Run has read the topic.
func NewView(log Log, logger *slog.Logger, clock func() time.Time) *View {
	return &View{log: log, slog: logger, clock: clock, reports: make(map[string]*statusv1.Report)}
}

// Run follows the topic until ctx ends, and returns nil then. A log that fails
// is tried again for ever.
func (v *View) Run(ctx context.Context) error {
	for failed := false; ctx.Err() == nil; {
		err := v.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !failed {
			v.slog.WarnContext(ctx, "status of other processes cannot be read, trying again", "error", err)
		}
		failed = true
		select {
		case <-ctx.Done():
		case <-time.After(readAgain):
		}
	}
	return nil
}

// readAgain is the pause after a read that failed.
const readAgain = time.Second

func (v *View) follow(ctx context.Context) error {
	from, err := v.log.OffsetAtTime(ctx, bus.TopicStatus, 0, v.clock().Add(-bus.StatusRetention))
	if err != nil {
		return err //nolint:wrapcheck // the bus names the topic
	}
	err = v.log.Follow(ctx, bus.TopicStatus, 0, from, func(records []bus.Record) error {
		for i := range records {
			if err := v.take(&records[i]); err != nil {
				v.slog.DebugContext(ctx, "status record skipped", "offset", records[i].Offset, "error", err)
			}
		}
		return nil
	})
	return err //nolint:wrapcheck // the bus names the topic
}

func (v *View) take(r *bus.Record) error {
	if string(r.Header(event.HeaderSchema)) != schemaReport {
		return errors.New("unknown schema")
	}
	report := new(statusv1.Report)
	if err := proto.Unmarshal(r.Value, report); err != nil {
		return fmt.Errorf("decode report: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, known := v.reports[report.GetInstance()]; !known && len(v.reports) >= maxInstances {
		v.forget()
	}
	v.reports[report.GetInstance()] = report
	return nil
}

// forget drops the report that is oldest.
func (v *View) forget() {
	var oldest *statusv1.Report
	for _, r := range v.reports {
		if oldest == nil || r.GetTimeMs() < oldest.GetTimeMs() {
			oldest = r
		}
	}
	delete(v.reports, oldest.GetInstance())
}

// current returns the reports that still count, and drops the others.
func (v *View) current(nowMS int64) []*statusv1.Report {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]*statusv1.Report, 0, len(v.reports))
	for id, r := range v.reports {
		if r.GetTimeMs() < nowMS-bus.StatusRetention.Milliseconds() {
			delete(v.reports, id)
			continue
		}
		out = append(out, r)
	}
	return out
}
