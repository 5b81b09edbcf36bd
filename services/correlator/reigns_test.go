package correlator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/state"
)

// opening is where a manifest of a scope rules.
type opening struct {
	ruling
	partition int32
}

// plainReigns are all that was told, without a bound: since when a manifest is
// open in each partition, and what is over.
type plainReigns struct {
	open map[opening]int64
	over []reign
}

func (m *plainReigns) tell(r *detectionv1.Ruling) {
	scope, p := r.GetTenant(), r.GetUpstreamPartition()
	if until := r.GetPreviousUntilMs(); until != 0 {
		was := opening{ruling{scope, string(r.GetPrevious())}, p}
		from, ok := m.open[was]
		if !ok {
			from = unseen
		}
		delete(m.open, was)
		m.over = append(m.over, reign{scope: scope, manifest: was.manifest, from: from, until: until})
	}
	is := opening{ruling{scope, string(r.GetManifest())}, p}
	if from, ok := m.open[is]; !ok || r.GetFromIngestMs() < from {
		m.open[is] = r.GetFromIngestMs()
	}
}

func (m *plainReigns) forget(horizon int64) {
	maps.DeleteFunc(m.open, func(_ opening, from int64) bool { return from < horizon })
	m.over = slices.DeleteFunc(m.over, func(x reign) bool { return x.until < horizon })
}

// others are the manifests besides one that ruled at some time from start to end.
func (m *plainReigns) others(scope, manifest string, start, end int64) map[string]bool {
	out := make(map[string]bool)
	meets := func(name string, from, until int64) {
		if name != manifest && from <= end && start <= until {
			out[name] = true
		}
	}
	for _, x := range m.over {
		if x.scope == scope {
			meets(x.manifest, x.from, x.until)
		}
	}
	for o, from := range m.open {
		until := int64(open)
		for y, began := range m.open {
			if y.scope == o.scope && y.manifest != o.manifest && began > from {
				until = min(until, began)
			}
		}
		if o.scope == scope {
			meets(o.manifest, from, until)
		}
	}
	return out
}

func othersOf(rs reigns, scope, manifest string, start, end int64) map[string]bool {
	out := make(map[string]bool)
	for _, x := range rs.within(scope, []byte(manifest), start, end) {
		if x.manifest != manifest {
			out[x.manifest] = true
		}
	}
	return out
}

// teller tells of scopes and partitions what stage detect might.
type teller struct {
	t      *rapid.T
	scopes []string
	now    int64
	// ruled is what the claim of a partition has seen last.
	ruled map[opening]string
	// forgets has claims begin anew, and tell again what was told.
	forgets bool
}

func (l *teller) number(what string, n int) int { return rapid.IntRange(0, n-1).Draw(l.t, what) }

func (l *teller) scope() string { return l.scopes[l.number("scope", len(l.scopes))] }

func (l *teller) manifest() string { return []string{"", "m1", "m2", "m3"}[l.number("manifest", 4)] }

// next is a ruling that is news, by what the other side knows.
func (l *teller) next(all *plainReigns) *detectionv1.Ruling {
	l.now += int64(l.number("passes", 4))
	at := opening{ruling{scope: l.scope()}, int32(l.number("partition", 4))}
	manifest := l.manifest()
	r := &detectionv1.Ruling{Tenant: at.scope, Manifest: []byte(manifest), FromIngestMs: l.now - int64(l.number("late", 6)), UpstreamPartition: at.partition}
	was, known := l.ruled[at]
	if l.forgets && l.number("forgets", 3) == 0 {
		known = false
	}
	if known {
		began := all.open[opening{ruling{at.scope, was}, at.partition}]
		if was == manifest { // only that it began before is news
			r.FromIngestMs = min(r.GetFromIngestMs(), began)
		} else {
			r.Previous, r.PreviousUntilMs = []byte(was), max(l.now-int64(l.number("until", 6)), began, 1)
		}
	}
	l.ruled[at] = manifest
	return r
}

// TestReignsAgainstAll holds what is kept to all that was told: within the bound
// they are the same, and beyond it each window that is cut by all is cut.
func TestReignsAgainstAll(t *testing.T) {
	seen := make(map[string]int)
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.SampledFrom([]int{4, 6, 10, 16, maxReigns}).Draw(t, "most")
		l := &teller{t: t, scopes: []string{allTenants, "a", "b", "c", "d", "e"}, ruled: make(map[opening]string), forgets: rapid.Bool().Draw(t, "forgetful")}
		l.scopes = l.scopes[:rapid.IntRange(1, len(l.scopes)).Draw(t, "scopes")]
		all := &plainReigns{open: make(map[opening]int64)}
		var kept reigns
		exact, horizon := true, int64(unseen)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			r := l.next(all)
			all.tell(r)
			kept = kept.told(r)
			exact = exact && len(kept) <= most
			kept = kept.bounded(most)
			require.LessOrEqual(t, len(kept), most)
			if l.number("watermark", 10) == 0 {
				horizon = max(horizon, l.now-int64(l.number("back", 20)))
				all.forget(horizon)
				kept = kept.forget(horizon)
			}
			read, err := decodeReigns(kept.append(nil))
			require.NoError(t, err)
			require.ElementsMatch(t, kept, read)
			for _, s := range l.scopes {
				if kept.unknown(s) { // all are cut
					if seen["unknown"]++; l.forgets {
						return // what is told again is new then, and was old
					}
					continue
				}
				m, start := l.manifest(), max(horizon, l.now-int64(l.number("start", 20)))
				end := start + int64(l.number("length", 10))
				want, got := all.others(s, m, start, end), othersOf(kept, s, m, start, end)
				if exact {
					seen["exact"]++
					require.Equal(t, want, got, "%q %q %d..%d: %+v", s, m, start, end, kept)
					continue
				}
				seen["bounded"] += min(len(want), 1)
				for name := range want {
					require.Contains(t, got, name, "%q %q %d..%d: %+v, of %+v", s, m, start, end, kept, all)
				}
			}
		}
	})
	for _, what := range []string{"exact", "bounded", "unknown"} {
		require.Positive(t, seen[what], "%v", seen)
	}
}

func told(tenant int, p int32, from int64) *detectionv1.Ruling {
	return &detectionv1.Ruling{Tenant: fmt.Sprint("t", tenant), Manifest: []byte("x"), FromIngestMs: from, UpstreamPartition: p}
}

// TestReignsOfManyTenants: that many tenants are told of in each partition loses
// no change of the rules of one; that too many are has their windows cut.
func TestReignsOfManyTenants(t *testing.T) {
	three, four := ruleWith(t, "3"), ruleWith(t, "4")
	plans := byName{"none": three, "none/three": three, "none/four": four, "": three}
	const partitions = 24
	for name, tc := range map[string]struct {
		tenants int
		// what is decided of a window across the change, after it, and of another tenant's
		across, after, another bool
	}{"some": {43, true, false, false}, "many": {900, true, false, false}, "too many": {maxReigns, true, true, true}} {
		t.Run(name, func(t *testing.T) {
			f := openFolder(t, modelConfig(), three, 10, state.NewMemory())
			f.plans = plans
			for p := range int32(partitions) {
				for _, r := range rulingsOf(newMatchingFor(t, DefaultConfig()), []stamped{{"none", "three", 0}, {"none", "three", 55_000}, {"none", "four", 60_000 + 1000*int64(p)}}).rulings {
					r.UpstreamPartition = p
					f.meta.reigns = f.meta.reigns.tell(r)
				}
			}
			for p := range int32(partitions) {
				for i := range tc.tenants {
					f.meta.reigns = f.meta.reigns.tell(told(i, p, t0+200_000+1000*int64(p)))
				}
			}
			require.LessOrEqual(t, len(f.meta.reigns), maxReigns)
			cut := func(tenant, own string, start, end int64) bool {
				got, err := f.cut(t.Context(), &detectionv1.Detection{
					Tenant: tenant, CorrelationId: "count", CorrelationRevision: four.correlations["count"].Revision,
					ManifestAll: []byte("none"), ManifestTenant: []byte(own),
				}, t0+start, t0+end)
				require.NoError(t, err)
				return got
			}
			plans["none/x"] = four
			require.Equal(t, tc.across, cut("t", "four", 50_000, 90_000))
			require.Equal(t, tc.after, cut("t", "four", 90_000, 95_000))
			require.Equal(t, tc.another, cut("t1", "x", 190_000, 250_000))
			f.meta.reigns = f.meta.reigns.forget(t0 + 300_000)
			require.Empty(t, f.meta.reigns)
		})
	}
}

// TestReignsOfATenantThatChangesAllTheTime cost no other tenant what is known of it.
func TestReignsOfATenantThatChangesAllTheTime(t *testing.T) {
	var rs reigns
	for i := range int64(10) {
		rs = rs.tell(told(int(i), 0, t0+i))
	}
	for i := range int64(3 * maxReigns) {
		rs = rs.tell(&detectionv1.Ruling{
			Tenant: "loud", Manifest: fmt.Append(nil, i), FromIngestMs: t0 + i, Previous: fmt.Append(nil, i-1), PreviousUntilMs: t0 + i,
		})
	}
	require.LessOrEqual(t, len(rs), maxReigns)
	require.True(t, rs.unknown("loud"))
	for i := range 10 {
		require.False(t, rs.unknown(fmt.Sprint("t", i)))
		require.GreaterOrEqual(t, rs.open(fmt.Sprint("t", i), "x", 0), 0)
	}
	at := slices.MaxFunc(rs, func(a, b reign) int { return cmp.Compare(a.last(), b.last()) })
	require.Empty(t, rs.forget(at.last()+1))
}
