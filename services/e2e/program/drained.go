package program

import (
	"context"
	"fmt"
	"iter"
	"regexp"
	"strconv"
	"strings"
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
	// What has been read may still be on its way to the next stage: the second
	// round sees it there.
	for range 2 {
		for _, stage := range stages() {
			if err := awaitStage(ctx, partitions, scrape, stage); err != nil {
				return err
			}
		}
	}
	return nil
}

// stages are the lines of the metrics that say of each partition that it is read
// here, and how far that has to go. "*" stands for other labels.
func stages() []string {
	return []string{`stormbell_correlator_lag_records{*stage="detect"`, `stormbell_correlator_lag_records{*stage="correlate"`, "stormbell_notifier_lag_records{"}
}

// AwaitOwned returns when some process that lives reads each partition of every
// stage. What a process that died had owned has none before the group has missed it.
func (f Fleet) AwaitOwned(ctx context.Context) error {
	return Every(ctx, "each partition of every stage has an owner", func() bool {
		pages := f.scrape(ctx)
		for _, stage := range stages() {
			owned := map[string]bool{}
			for partition := range lagsIn(pages, stage) {
				owned[partition] = true
			}
			if len(owned) < f.Partitions {
				return false
			}
		}
		return true
	})
}

// awaitStage returns once each partition in the lines of a stage was seen at zero.
func awaitStage(ctx context.Context, partitions int, scrape func(context.Context) []string, stage string) error {
	drained := map[string]bool{}
	return Every(ctx, fmt.Sprintf("each partition of %s is read to its end", stage), func() bool {
		for partition, lag := range lagsIn(scrape(ctx), stage) {
			if lag == 0 {
				drained[partition] = true
			}
		}
		return len(drained) == partitions
	})
}

// lagsIn are the partitions in the lines of a stage, and how far each is behind.
func lagsIn(pages []string, stage string) iter.Seq2[string, float64] {
	pattern := `(?m)^` + strings.ReplaceAll(regexp.QuoteMeta(stage), `\*`, `[^}]*`) + `[^}]*\} (\S+)$`
	line, partition := regexp.MustCompile(pattern), regexp.MustCompile(`partition="([0-9]+)"`)
	return func(yield func(string, float64) bool) {
		for _, text := range pages {
			for _, m := range line.FindAllStringSubmatch(text, -1) {
				lag, err := strconv.ParseFloat(m[1], 64)
				if at := partition.FindStringSubmatch(m[0]); err == nil && at != nil && !yield(at[1], lag) {
					return
				}
			}
		}
	}
}
