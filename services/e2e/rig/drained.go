package rig

import (
	"context"
	"regexp"
	"strconv"
)

// AwaitDrained returns when every partition of `events`, `detections` and
// `alerts` is owned by a process that has read it to its end.
func (d *Deployment) AwaitDrained(ctx context.Context) error {
	lagLine := regexp.MustCompile(`(?m)^stormbell_(correlator|notifier)_lag_records(\{[^}]*\}) (\S+)$`)
	return Every(ctx, "all partitions are read to their ends", func() bool {
		seen := map[string]bool{}
		for _, p := range d.Processes {
			_, text, err := p.Admin(ctx, "/metrics")
			if err != nil {
				return false
			}
			for _, m := range lagLine.FindAllStringSubmatch(text, -1) {
				lag, err := strconv.ParseFloat(m[3], 64)
				if err != nil || lag != 0 {
					return false
				}
				seen[m[1]+m[2]] = true
			}
		}
		return len(seen) == stagesWithLag*Partitions
	})
}

// stagesWithLag are detect, correlate and route.
const stagesWithLag = 3
