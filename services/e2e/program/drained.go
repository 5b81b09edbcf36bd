package program

import (
	"context"
	"fmt"
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
	return AwaitDrained(ctx, f.Partitions, func(ctx context.Context) []string {
		var pages []string
		for _, p := range f.Processes {
			if _, text, err := p.Admin(ctx, "/metrics"); err == nil {
				pages = append(pages, text) // of those that do not answer, others may own all
			}
		}
		return pages
	})
}

// AwaitDrained is Fleet.AwaitDrained for processes whose metrics scrape reads.
func AwaitDrained(ctx context.Context, partitions int, scrape func(context.Context) []string) error {
	// What has been read may still be on its way to the next stage: the second
	// round sees it there.
	for range 2 {
		for _, stage := range []string{`stormbell_correlator_lag_records{*stage="detect"`, `stormbell_correlator_lag_records{*stage="correlate"`, "stormbell_notifier_lag_records{"} {
			if err := awaitStage(ctx, partitions, scrape, stage); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitStage returns once each partition in the lines of a metric was seen at
// zero. "*" in line stands for other labels.
func awaitStage(ctx context.Context, partitions int, scrape func(context.Context) []string, line string) error {
	pattern := `(?m)^` + strings.ReplaceAll(regexp.QuoteMeta(line), `\*`, `[^}]*`) + `[^}]*\} (\S+)$`
	lagLine, partition := regexp.MustCompile(pattern), regexp.MustCompile(`partition="([0-9]+)"`)
	drained := map[string]bool{}
	return Every(ctx, fmt.Sprintf("each partition of %s is read to its end", line), func() bool {
		for _, text := range scrape(ctx) {
			for _, m := range lagLine.FindAllStringSubmatch(text, -1) {
				lag, err := strconv.ParseFloat(m[1], 64)
				if at := partition.FindStringSubmatch(m[0]); err == nil && lag == 0 && at != nil {
					drained[at[1]] = true
				}
			}
		}
		return len(drained) == partitions
	})
}
