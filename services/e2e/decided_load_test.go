package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/tools/oracle"
)

// A teller tells a story of one group.
type teller func(a *author, group string, fires bool) story

// decided tell of what the watermark decides, and of risks.
func decided() []teller {
	return []teller{(*author).absence, (*author).address, (*author).surge, (*author).journey, (*author).risk}
}

// latest is how late events may be, by settings and rules, before a rule that
// the watermark decides leaves them out: nothing but beats ever is.
const latest = 2 * time.Hour

// timely are settings by which the watermark comes by while a load goes on.
func timely(more map[string]string) map[string]string {
	settings := map[string]string{
		"gateway":    fmt.Sprintf("lateness: %s", latest),
		"correlator": fmt.Sprintf("lateness: %s\nslack: %s", latest, slack),
	}
	for group, lines := range more {
		settings[group] = strings.TrimPrefix(settings[group]+"\n"+lines, "\n")
	}
	return settings
}

const slack = 2 * time.Second

// timelyRules are the rules of a directory, for a deployment with timely settings.
func timelyRules(t *testing.T, dir string) ([]oracle.Rule, oracle.Settings) {
	t.Helper()
	rules, settings := rulesOf(t, dir)
	settings.LatenessMS, settings.SlackMS = latest.Milliseconds(), slack.Milliseconds()
	return rules, settings
}

// pass lets the watermark pass all that a load has, so that all is decided, and
// returns what was accepted.
func pass(t *testing.T, d *rig.Deployment) []oracle.Record {
	t.Helper()
	return accepted(t, withoutPoison(d.Pass(t, time.Now().Add(latest+time.Hour))))
}

// absence stops a recorder. It fires where it is not started again in time: never,
// a millisecond too late, or in the same one, which is not after it.
func (a *author) absence(group string, fires bool) story {
	const never = -1
	after := []int64{never, fiveMin + 1, 0}[a.r.IntN(3)]
	if !fires {
		after = []int64{fiveMin, 1 + a.r.Int64N(fiveMin)}[a.r.IntN(2)]
	}
	at := a.when(fiveMin + 1)
	account := map[string]any{"eventSource": "config.amazonaws.com", "recipientAccountId": group}
	s := story{fires: fires, events: []crashEvent{a.event(at, "admin", "StopConfigurationRecorder", account)}}
	if after != never {
		s.events = append(s.events, a.event(at+after, "admin", "StartConfigurationRecorder", account))
	}
	return s
}

// address reads secrets from addresses. One that is new after five minutes fires;
// of two rules one knows an address only for ten.
func (a *author) address(group string, fires bool) story {
	type read struct{ at, address int64 }
	half := fiveMin / 2
	reads := []read{{0, 1}, {half, 1}, {fiveMin, 2}, {tenMin, 1}}
	switch again := a.short(); {
	case !fires && again: // it was seen just within the history
		reads = []read{{0, 1}, {half, 2}, {half + fiveMin, 1}, {half + tenMin, 2}}
	case !fires: // it is told too early
		reads = []read{{0, 1}, {fiveMin - 1, 2}}
	case again: // seen too long ago, or never
		reads = []read{{0, 1}, {half, 2}, {fiveMin, 2}, {tenMin + 1, 1}, {tenMin + 2, 3}}
	}
	start := a.when(half + tenMin)
	s := story{fires: fires}
	for _, r := range reads {
		s.events = append(s.events, a.event(start+r.at, group, "GetSecretValue", map[string]any{
			"eventSource": "secretsmanager.amazonaws.com", "sourceIPAddress": fmt.Sprintf("192.0.2.%d", r.address),
		}))
	}
	return s
}

// surge lists secrets twice a minute, and then often. Three times as often fires.
func (a *author) surge(group string, fires bool) story {
	const minute = fiveMin / 5
	often := 5
	if fires {
		often = 6 + a.r.IntN(3)
	}
	start := (a.when(6*minute)/minute + 1) * minute
	s := story{fires: fires}
	for period, n := range []int{1, 2, 2, 2, often} { // the first is not whole
		for range n {
			at := start + int64(period)*minute + a.r.Int64N(minute)
			s.events = append(s.events, a.event(at, group, "ListSecrets", map[string]any{"eventSource": "secretsmanager.amazonaws.com"}))
		}
	}
	return s
}

// journey reads objects in two regions. To be in Frankfurt a quarter of an hour
// after Dublin is too fast, to be there after 25 minutes is not.
func (a *author) journey(group string, fires bool) story {
	after, to := a.r.Int64N(3*fiveMin), []string{"eu-central-1", "ap-southeast-2"}[a.r.IntN(2)]
	if !fires {
		to = "eu-west-1"
		if a.short() {
			after, to = 5*fiveMin+a.r.Int64N(fiveMin), "eu-central-1"
		}
	}
	start := a.when(6 * fiveMin)
	s := story{fires: fires}
	for i, region := range []string{"eu-west-1", to} {
		s.events = append(s.events, a.event(start+int64(i)*after, group, "GetObject", map[string]any{"eventSource": "s3.amazonaws.com", "awsRegion": region}))
	}
	return s
}

// risk reads a password and deletes three objects of a bucket, which is a risk
// where all of it is within 20 minutes; nothing else adds up to it.
func (a *author) risk(group string, fires bool) story {
	passwords, deleted, after := 1+a.r.IntN(2), 3, a.r.Int64N(3*fiveMin+1)
	if !fires {
		switch a.r.IntN(3) {
		case 0:
			deleted = 2
		case 1:
			passwords, deleted = 0, 9
		default:
			passwords, after = 1, 4*fiveMin+1
		}
	}
	start := a.when(6 * fiveMin)
	s := story{fires: fires}
	for range passwords {
		s.events = append(s.events, a.event(start, group, "GetPasswordData", map[string]any{"eventSource": "ec2.amazonaws.com"}))
	}
	for i := range deleted {
		at := start + after + int64(i)*fiveMin/int64(deleted)
		s.events = append(s.events, a.event(at, group, "DeleteObject", map[string]any{
			"eventSource": "s3.amazonaws.com", "requestParameters": map[string]any{"bucketName": "of-" + group},
		}))
	}
	return s
}

// A pulse beats with a load, by the clock: one host after the other, until it
// falls silent. So the watermark decides while the load goes on.
type pulse struct {
	mu sync.Mutex
	a  *author
	n  int
}

// beatsOfHost is after how many beats a host falls silent.
const beatsOfHost = 6

func newPulse(seed uint64) *pulse {
	return &pulse{a: &author{r: rand.New(rand.NewPCG(seed, 31)), n: 700_000_000}}
}

// with appends a beat of now.
func (p *pulse) with(events []crashEvent) []crashEvent {
	p.mu.Lock()
	defer p.mu.Unlock()
	host := fmt.Sprintf("host-%d", p.n/beatsOfHost)
	p.n++
	beat := p.a.event(time.Now().UnixMilli(), host, "Beat", map[string]any{"recipientAccountId": "444455556666"})
	return append(slices.Clip(events), beat)
}

// requireDecided holds that so many rules of kinds that Sigma does not have, or that
// count what these say, have said something.
func requireDecided(t *testing.T, want map[string]oracle.Alert, least int) {
	t.Helper()
	told := map[string]int{}
	for _, a := range want {
		if strings.HasPrefix(a.RuleID, decidedIDs) || strings.HasPrefix(a.RuleID, pulseIDs) {
			told[a.RuleID]++
		}
	}
	require.GreaterOrEqual(t, len(told), least, "rules that have told something: %v", told)
}

// decidedIDs and pulseIDs are how the ids of rules begin that the stories of decided
// are for, and beats.
const (
	decidedIDs = "6f1f6d2e-d"
	pulseIDs   = "6f1f6d2e-e"
)

// withoutPoison leaves out records that are not events.
func withoutPoison(records []bus.Record) []bus.Record {
	out := records[:0]
	for i := range records {
		if records[i].Header(poisonHeader) == nil {
			out = append(out, records[i])
		}
	}
	return out
}
