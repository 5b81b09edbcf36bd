package program

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// A Fleet is the processes of one deployment, with the number of partitions
// that their topics have.
type Fleet struct {
	Processes  []*Process
	Partitions int
}

// AwaitDrained returns when what was in the log at the call has been read by
// every stage in turn. Ticks keep coming, so the partitions of a stage are not
// asked to be at their ends all at the same moment, but each at one.
func (f Fleet) AwaitDrained(ctx context.Context) error {
	return AwaitDrained(ctx, f.Partitions, f.scrape)
}

// scrape reads the metrics of the processes that answer: of the others, those may own
// all.
func (f Fleet) scrape(ctx context.Context) []string {
	var pages []string
	for _, p := range f.Processes {
		if _, text, err := p.Admin(ctx, "/metrics"); err == nil {
			pages = append(pages, text)
		}
	}
	return pages
}

// AwaitDrained is Fleet.AwaitDrained for processes whose metrics scrape reads.
func AwaitDrained(ctx context.Context, partitions int, scrape func(context.Context) []string) error {
	all := stages()
	// What has been read may still be on its way to the next stage: the second
	// round sees it there.
	for range 2 {
		for _, s := range all {
			if err := s.awaitEnd(ctx, partitions, scrape); err != nil {
				return err
			}
		}
	}
	return nil
}

// AwaitOwned returns when some process that lives reads each partition of every
// stage. What a process that died had owned has none before the group has missed it.
func (f Fleet) AwaitOwned(ctx context.Context) error {
	all := stages()
	return Every(ctx, "each partition of every stage has an owner", func() bool {
		pages := f.scrape(ctx)
		return !slices.ContainsFunc(all, func(s stage) bool { return len(s.lags(pages)) < f.Partitions })
	})
}

// Correlated are the partitions that stage correlate of the processes owns, and how
// far it is behind in each.
func (f Fleet) Correlated(ctx context.Context) map[string]float64 {
	return stages()[1].lags(f.scrape(ctx))
}

// A stage has lines in the metrics that say of each partition that it is read here,
// and how far that has to go.
type stage struct {
	name string
	line *regexp.Regexp // matches partition and lag
}

// stages are those that an event goes through.
func stages() []stage {
	const partition = `[^}]*partition="([0-9]+)"[^}]*`
	line := func(metric, labels string) *regexp.Regexp {
		return regexp.MustCompile(`(?m)^` + metric + `\{` + labels + `\} (\S+)$`)
	}
	return []stage{
		{"detect", line("stormbell_correlator_lag_records", partition+`stage="detect"[^}]*`)},
		{"correlate", line("stormbell_correlator_lag_records", partition+`stage="correlate"[^}]*`)},
		{"notify", line("stormbell_notifier_lag_records", partition)},
	}
}

// awaitEnd returns once each partition was seen at its end.
func (s stage) awaitEnd(ctx context.Context, partitions int, scrape func(context.Context) []string) error {
	drained := map[string]bool{}
	return Every(ctx, fmt.Sprintf("each partition of stage %s is read to its end", s.name), func() bool {
		for partition, lag := range s.lags(scrape(ctx)) {
			if lag == 0 {
				drained[partition] = true
			}
		}
		return len(drained) == partitions
	})
}

// lags are the partitions that are read, and how far each is behind: the least, where
// two say so while one takes over from the other.
func (s stage) lags(pages []string) map[string]float64 {
	out := map[string]float64{}
	for _, text := range pages {
		for _, m := range s.line.FindAllStringSubmatch(text, -1) {
			lag, err := strconv.ParseFloat(m[2], 64)
			if least, ok := out[m[1]]; err == nil && (!ok || lag < least) {
				out[m[1]] = lag
			}
		}
	}
	return out
}
