package status_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/status"
	"github.com/stormbell/stormbell/services/sigma"
)

func TestHints(t *testing.T) {
	rule := status.InForce{ID: "r", Title: "Login", Source: sigma.LogSource{Product: "app"}}
	app := status.SourceCount{Source: status.Source{Product: "app"}, Count: status.Count{N: 120}}
	trail := status.SourceCount{Source: status.Source{Product: "aws", Service: "cloudtrail", Strict: true}, Count: status.Count{N: 120}}
	for name, tc := range map[string]struct {
		change func(*status.Summary, *status.Setting)
		want   []string // text: command
	}{
		"all is well": {func(*status.Summary, *status.Setting) {}, nil},
		"nothing has reported": {func(s *status.Summary, _ *status.Setting) {
			s.SinceMS, s.Received.N, s.Sources = 0, 0, nil
		}, nil},
		"no event": {
			func(s *status.Summary, _ *status.Setting) { s.Received.N, s.Sources = 0, nil },
			[]string{"no event has come yet: stormbell send FILE"},
		},
		"rejected": {
			func(s *status.Summary, _ *status.Setting) { s.Rejected.N = 121 },
			[]string{"121 records were rejected, and 120 accepted: the answer to each request says why: stormbell send FILE"},
		},
		"all late": {
			func(s *status.Summary, _ *status.Setting) { s.Late.N = 120 },
			[]string{"all 120 events were late, older than their source's lateness: rules that wait for a window's end leave them out: stormbell send --shift-to-now FILE"},
		},
		"some late": {func(s *status.Summary, _ *status.Setting) { s.Late.N = 119 }, nil},
		"no rules":  {func(_ *status.Summary, in *status.Setting) { in.Rules = nil }, []string{"no rule is in force: stormbell rules push DIR"}},
		"source without rules": {
			func(s *status.Summary, _ *status.Setting) { s.Sources = []status.SourceCount{app, trail} },
			[]string{"events arrive (aws/cloudtrail: 120), but no rule in force is for that source: stormbell rules list"},
		},
		"misspelt product": {func(s *status.Summary, in *status.Setting) {
			s.Sources = []status.SourceCount{app, trail}
			in.Rules = append(in.Rules, status.InForce{ID: "t", Title: "Trail", Source: sigma.LogSource{Product: "aws"}},
				status.InForce{ID: "x", Title: "X", Source: sigma.LogSource{Product: "awss"}})
		}, []string{"rule 'X' is for product 'awss', and no event of that product has come (came: app, aws/cloudtrail): did you mean 'aws'?: stormbell rules explain x < event.json"}},
		"misspelt service": {func(s *status.Summary, in *status.Setting) {
			s.Sources = []status.SourceCount{app, trail}
			in.Rules = append(in.Rules, status.InForce{ID: "t", Title: "Trail", Source: sigma.LogSource{Product: "aws"}},
				status.InForce{ID: "x", Title: "X", Source: sigma.LogSource{Product: "aws", Service: "cloudtrial"}})
		}, []string{"rule 'X' is for service 'cloudtrial', and no event of that service has come (came: app, aws/cloudtrail): did you mean 'cloudtrail'?: stormbell rules explain x < event.json"}},
		"unknown product": {func(_ *status.Summary, in *status.Setting) {
			in.Rules = append(in.Rules, status.InForce{ID: "x", Title: "X", Source: sigma.LogSource{Product: "billing"}},
				status.InForce{ID: "y", Title: "Y", Source: sigma.LogSource{Product: "billing"}})
			// Events that name no product may be of any.
		}, []string{"2 rules ('X', …) are for product 'billing', and no event of that product has come (came: app): stormbell rules explain x < event.json"}},
		"rules that wait": {func(_ *status.Summary, in *status.Setting) {
			in.Rules = append(in.Rules, status.InForce{ID: "x", Source: sigma.LogSource{Product: "windows"}})
		}, nil},
		"a pack for elsewhere": {func(_ *status.Summary, in *status.Setting) {
			for range 21 {
				in.Rules = append(in.Rules, status.InForce{ID: "x", Source: sigma.LogSource{Product: "billing"}})
			}
		}, nil},
		"field never there": {func(s *status.Summary, _ *status.Setting) {
			s.Rules["r"] = &status.RuleCount{Near: 3, Lacking: []string{"userIdentity.mfa"}}
		}, []string{"rule 'Login' was asked 120 times and has never matched: field userIdentity.mfa, which it needs, was in none of the events that it fits otherwise: stormbell rules explain r < event.json"}},
		"group-by never there": {func(s *status.Summary, in *status.Setting) {
			in.Rules = append(in.Rules, status.InForce{ID: "c", Title: "Many", Correlation: true, GroupBy: []string{"user"}})
			s.Rules["c"] = &status.RuleCount{Ungrouped: status.Count{N: 5}}
		}, []string{"correlation 'Many' left out 5 matches: the event lacks a field of its group-by (user) or of the value that it counts: stormbell rules explain c < event.json"}},
		"no subscriber": {
			func(s *status.Summary, in *status.Setting) {
				s.Unheard, in.Webhooks = status.Count{N: 12, LastMS: 100}, nil
			},
			[]string{"12 alerts had no subscriber: stormbell webhooks add URL"},
		},
		"subscribed since": {func(s *status.Summary, _ *status.Setting) { s.Unheard = status.Count{N: 12, LastMS: 10} }, nil},
		"filtered": {
			func(s *status.Summary, _ *status.Setting) { s.Unheard = status.Count{N: 1, LastMS: 100} },
			[]string{"1 alert matched the filter of no webhook: stormbell webhooks list"},
		},
		"parked": {func(s *status.Summary, _ *status.Setting) {
			s.Webhooks = []*status.WebhookCount{{ID: "w", Parked: status.Count{N: 2, LastMS: 9}, Error: "the endpoint answered 500"}}
		}, []string{"webhook w has 2 deliveries parked, given up (the endpoint answered 500): stormbell webhooks test w"}},
		"failing": {func(s *status.Summary, _ *status.Setting) {
			s.Webhooks = []*status.WebhookCount{{ID: "w", Failed: status.Count{N: 2}, Error: "the endpoint answered 500"}, {ID: "removed", Error: "x"}}
		}, []string{"webhook w fails (the endpoint answered 500): its deliveries are tried again: stormbell webhooks test w"}},
		"dead letters": {
			func(s *status.Summary, _ *status.Setting) { s.Dead.N = 1 },
			[]string{"1 record could not be processed and went to dlq: stormbell dlq list"},
		},
		"lag": {
			func(s *status.Summary, _ *status.Setting) { s.Stages["detect"].Lag = 10_000 },
			[]string{"stage detect is 10000 records behind: it catches up, or needs another correlator: correlator --config FILE"},
		},
		"stage missing": {
			func(s *status.Summary, _ *status.Setting) { delete(s.Stages, "notify") },
			[]string{"no notifier reports stage notify: alerts wait for one: notifier --config FILE"},
		},
		"watermark stands": {func(s *status.Summary, _ *status.Setting) {
			s.Stages["correlate"] = &status.Stage{WatermarkMS: 1, AgeMS: (6 * time.Minute).Milliseconds()}
		}, []string{"the watermark lies 6m0s behind: until it moves no window is closed; see whether every correlator and gateway runs: curl ADMIN/readyz"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &status.Summary{
				SinceMS: 1, Received: status.Count{N: 120}, Sources: []status.SourceCount{app}, Rules: map[string]*status.RuleCount{},
				Stages: map[string]*status.Stage{"detect": {}, "correlate": {WatermarkMS: 1, AgeMS: 61_000}, "notify": {}},
			}
			in := &status.Setting{Rules: []status.InForce{rule}, Webhooks: []status.Webhooked{{ID: "w", SinceMS: 50}}, NowMS: 1000}
			tc.change(s, in)
			var got []string
			for _, h := range s.Hints(in) {
				require.NotEmpty(t, h.Code)
				got = append(got, h.Text+": "+h.Command)
			}
			require.Equal(t, tc.want, got)
		})
	}
}
