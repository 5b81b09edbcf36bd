package demo

import (
	"context"
	"slices"
	"time"

	"github.com/stormbell/stormbell/services/e2e/program"
)

// slack is by how much the watermark stays behind the newest ingest time
// (correlator.slack, whose default the demo leaves).
const slack = 60 * time.Second

// settle returns when everything that was accepted until now has had its
// effect: every alert that follows from it has been tried at the subscriber.
//
// The watermark says so for matching and counting: where it stands, all
// events up to its ingest time have been matched, and what follows from them
// been folded. Behind it, alerts are counted hop by hop.
func (s *show) settle(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	posted, fleet := time.Now(), s.stage.fleet
	err := program.Every(ctx, "everything posted has been matched and counted", func() bool {
		allowed := (slack + time.Since(posted)).Seconds() // before the ages are asked for
		ages := fleet.Values(ctx, "stormbell_correlator_watermark_age_seconds")
		return len(ages) == partitions && slices.Max(ages) < allowed
	})
	if err != nil {
		return err
	}
	return program.Every(ctx, "every alert has been delivered", func() bool {
		tried := fleet.Sum(ctx, "stormbell_notifier_attempts_total")
		routed := fleet.Sum(ctx, "stormbell_notifier_routed_total")
		return routed >= fleet.Sum(ctx, "stormbell_correlator_alerts_total") && tried >= routed-fleet.Sum(ctx, "stormbell_notifier_unsubscribed_alerts_total")
	})
}
