package oracle

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
)

// earlyMS is how far ahead of its ingest an event may be.
const earlyMS = 5 * 60 * 1000

// A step is one event of a group, whose steps are taken in order.
type step struct {
	hit
	rules map[string]bool // that it matched
}

// counts says that a record is neither late nor early. What its source says does
// not matter: all rules that are supported have a lateness of their own.
func (r *Rule) counts(e *Record) bool {
	age := e.IngestMS - e.TimeMS
	return -earlyMS <= age && age <= r.lateness
}

// steps are the events that count, each once, in order of their times. An event
// counts if any copy does, and is as the copy that was received first.
func (g *group) steps() ([]step, error) {
	byID := map[string]*step{}
	for _, h := range g.hits {
		switch s := byID[h.id]; {
		case len(h.of.way) > 1:
			return nil, fmt.Errorf("%s of what a correlation says: not supported", g.rule.kind)
		case !g.rule.counts(h.of.record) || len(g.rule.field) > 0 && !h.hasValue:
		case s == nil:
			byID[h.id] = &step{hit: h, rules: map[string]bool{h.rule: true}}
		case s.time != h.time || s.value != h.value:
			return nil, fmt.Errorf("event %s has two times or values: not supported in %s", h.id, g.rule.kind)
		default:
			if s.rules[h.rule] = true; h.ingest < s.ingest {
				s.hit = h
			}
		}
	}
	out := make([]step, 0, len(byID))
	for _, s := range byID {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b step) int { return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.id, b.id)) })
	return out, nil
}

// decide tells by which events a rule fires once the watermark has passed them
// all.
func (g *group) decide(s Settings, found map[string]Alert, asked bool) (fired []signal, err error) {
	steps, err := g.steps()
	if err != nil {
		return nil, err
	}
	is := g.rule.deciders()[g.rule.kind]
	for i, e := range steps {
		fires, err := is(steps, i)
		if err != nil {
			return nil, fmt.Errorf("event %s: %w", e.id, err)
		}
		if !fires {
			continue
		}
		bucket, label, of := int64(0), ofEvents, e.of.record.ID
		width := g.rule.suppress
		if g.rule.kind == "rate" {
			width = cmp.Or(width, g.rule.timespan)
		}
		if width > 0 {
			bucket = floorDiv(e.time, width)
			label, of = ofBuckets, strconv.FormatInt(bucket, 10)
		}
		id := g.id(s, label, of)
		if _, known := found[id]; !known {
			found[id] = Alert{ID: id, Tenant: g.tenant, RuleID: g.rule.ID, Group: g.values, Bucket: bucket, EventID: e.of.record.ID}
		}
		if asked {
			e.of.alert = id
			fired = append(fired, e.of)
		}
	}
	return fired, nil
}

// absent says that what was to follow an event did not. The first rule is the one
// that is missing. If it is the only one, each event demands the next.
func (r *Rule) absent(steps []step, i int) (bool, error) {
	e, missing := steps[i], r.refs[0]
	if len(r.refs) == 1 {
		return i+1 == len(steps) || steps[i+1].time > e.time+r.timespan, nil
	}
	if !e.rules[r.refs[1]] {
		return false, nil
	}
	return !slices.ContainsFunc(steps, func(x step) bool {
		return x.rules[missing] && e.time < x.time && x.time <= e.time+r.timespan
	}), nil
}

// isNew says that the group has not shown the event's value within the history
// before it, and is old enough. Its age is that of the first event since it last
// showed nothing for as long as the history.
func (r *Rule) isNew(steps []step, i int) (bool, error) {
	e, born := steps[i], steps[i].time
	for _, x := range slices.Backward(steps[:i]) {
		if born-x.time > r.own.history {
			break
		}
		if born = x.time; x.value == e.value && e.time-x.time <= r.own.history {
			return false, nil
		}
	}
	return e.time-born >= r.own.learn, nil
}

// isMore says that by this event the count of its period comes to what the rule
// demands. A group is known since its first period, which is not whole, after the
// last time that it had no event in a whole baseline.
func (r *Rule) isMore(steps []step, i int) (bool, error) {
	period := func(s step) int64 { return floorDiv(s.time, r.timespan) }
	now, length := period(steps[i]), r.own.baseline/r.timespan
	counts, born, count := map[int64]int64{}, now, int64(0)
	for _, x := range slices.Backward(steps[:i+1]) {
		if born-period(x) > length {
			break
		}
		if born = period(x); born == now {
			count++
		} else {
			counts[born]++
		}
	}
	var before []int64
	for p := max(born+1, now-length); p < now; p++ {
		before = append(before, counts[p])
	}
	if int64(len(before))*r.timespan < r.own.learn {
		return false, nil
	}
	usual, ok := new(big.Rat).SetString(r.own.Ratio)
	if !ok {
		return false, fmt.Errorf("ratio %q: not supported", r.own.Ratio)
	}
	usual.Mul(usual, average(before, r.own.Average == "median"))
	enough := func(n int64) bool { return n >= r.own.Min && big.NewRat(n, 1).Cmp(usual) >= 0 }
	return enough(count) && !enough(count-1), nil
}

// average is that of counts, of which there is one at least.
func average(counts []int64, median bool) *big.Rat {
	n := len(counts)
	if median {
		counts = slices.Sorted(slices.Values(counts))
		return big.NewRat(counts[(n-1)/2]+counts[n/2], 2)
	}
	sum := int64(0)
	for _, c := range counts {
		sum += c
	}
	return big.NewRat(sum, int64(n))
}

// isTooFast says that nobody gets here from where the event before this one was.
// What is within a twentieth of a limit it does not know: where a region is, is
// not that well known.
func (r *Rule) isTooFast(steps []step, i int) (bool, error) {
	to, err := placeOf(steps[i])
	if err != nil || i == 0 {
		return false, err
	}
	from, err := placeOf(steps[i-1])
	if err != nil {
		return false, err
	}
	km, hours := from.distance(to), float64(steps[i].time-steps[i-1].time)/3_600_000
	far, err := exceeds(km, float64(r.own.MinDistance))
	if err != nil || !far {
		return false, err
	}
	return exceeds(km, float64(r.own.MaxSpeed)*hours)
}

func exceeds(a, b float64) (bool, error) {
	if math.Abs(a-b) < b/20 {
		return false, fmt.Errorf("%.0f km lie too near to the limit of %.0f: not supported", a, b)
	}
	return a > b, nil
}

// A place is a point on the Earth, in degrees.
type place struct{ lat, lon float64 }

func placeOf(s step) (place, error) {
	var region string
	if _, err := fmt.Sscanf(s.value, "[%q]", &region); err != nil {
		return place{}, fmt.Errorf("place %s: not supported: %w", s.value, err)
	}
	p, ok := map[string]place{
		"eu-west-1":      {53.3, -6.3},
		"eu-central-1":   {50.1, 8.7},
		"us-east-1":      {39.0, -77.5},
		"ap-southeast-2": {-33.9, 151.2},
	}[region]
	if !ok {
		return place{}, fmt.Errorf("place %q: not supported", region)
	}
	return p, nil
}

// distance is the length in km of the arc between two directions from the centre
// of a round Earth.
func (p place) distance(q place) float64 {
	direction := func(p place) [3]float64 {
		lat, lon := p.lat*math.Pi/180, p.lon*math.Pi/180
		return [3]float64{math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)}
	}
	a, b := direction(p), direction(q)
	cos := a[0]*b[0] + a[1]*b[1] + a[2]*b[2]
	return 6371 * math.Acos(min(1, cos))
}
