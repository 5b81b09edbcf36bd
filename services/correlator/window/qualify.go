package window

import (
	"math/big"
	"math/bits"
	"slices"
)

// Firing says that a bucket of a group has fired: an event in it qualifies. A
// signal says that of an event by itself, whatever its bucket has said before.
type Firing struct {
	// Signal: only EventID, Time, Ingest, Bucket, ByEvent, Start, End, Carry, Keep,
	// Trace and Near are set.
	Signal bool
	// Update says that the bucket has fired before, and what it came to in the end:
	// EventID, Time and Ingest are those of the last event, Near is what is kept of it
	// or, where nothing is, of another.
	Update bool
	// Carry and Keep are what a signal's Record had; Keep, where it is kept whole.
	Carry, Keep []byte
	// Bucket is floor(Time / Width), the last part of the alert's id.
	Bucket int64
	// EventID, Time and Ingest are those of the event that qualifies.
	EventID      string
	Time, Ingest int64
	// Start and End are the window's ends, both in.
	Start, End int64
	// Count is what the condition counted in it: distinct events, values or rules;
	// where it measures numbers, the events that have one.
	Count int
	// Measured is what the numbers come to, as a decimal, where that is asked.
	Measured string
	// AtLeast says that Count is a lower bound: the group was full, or it is of a
	// kind that is compacted and the count is so high that its group may have been.
	AtLeast bool
	// Total is how many distinct events the window holds, or of how many of the
	// latest the group knows for sure; Events names up to MaxRefs of them, the first
	// and the last, in order of (time, id).
	Total  int
	Events []Ref
	// Trace is the event's Record.Trace, and Near what is kept of it, or of the
	// event nearest to it of which anything is, where the watermark has decided.
	Trace string
	Near  []byte
	// ByEvent says that the alert is of the event, which names it in the bucket's
	// place.
	ByEvent bool
	// Metres is how far apart two places are, Baseline what a count was compared
	// with, in thousandths.
	Metres, Baseline int64
	// Tactics are those of a risk, Parts up to MaxParts of the AllParts scores of
	// which it is made.
	Tactics  uint64
	Parts    []Part
	AllParts int
	since    int64 // how far back the decision reaches, where that is before Start
}

// MaxRefs is how many events a Firing names.
const MaxRefs = 100

// Ref is one event of a Firing.
type Ref struct {
	ID    string
	Time  int64
	Rules uint64
	// Late is what the record said.
	Late bool
	// Keep is what Record.Keep was, for the events that the group keeps whole.
	Keep []byte
	// Object is what Record.Object was, for these.
	Object any
	// Score is the first one's of a Risk, as text.
	Score string
}

// evaluate re-evaluates every window that contains a newcomer at time t, and
// so every event in [t, t+T]: without this, the order of arrival would decide.
func (g *Group) evaluate(t, ingest int64) []Firing {
	if g.spec.Shape == Tumbling {
		return g.evaluateOne(t, ingest)
	}
	if b := g.spec.Bucket(t); b == g.spec.Bucket(g.recs.latest().time) {
		if last, ok := g.fired[b]; ok { // there is no other to look at
			g.touch(b, last, ingest)
			return nil
		}
	}
	var out []Firing
	for j := g.recs.lower(t); j < g.recs.len() && g.recs.at(j).time <= t+g.spec.Timespan; {
		b := g.spec.Bucket(g.recs.at(j).time)
		if last, ok := g.fired[b]; ok {
			g.touch(b, last, ingest)
			j = g.recs.lower((b + 1) * g.spec.Width())
			continue
		}
		f, next := g.qualifies(j)
		if next > 0 {
			j = max(next, j+1)
			continue
		}
		f.Bucket = b
		out = append(out, f)
		g.touch(b, ingest, f.Ingest)
		j = g.recs.lower((b + 1) * g.spec.Width())
	}
	return out
}

// evaluateOne re-evaluates the window of the newcomer where each event is in one
// only: a set that satisfies the condition by the newcomer contains it.
func (g *Group) evaluateOne(t, ingest int64) []Firing {
	b := g.spec.Bucket(t)
	if last, ok := g.fired[b]; ok {
		g.touch(b, last, ingest)
		return nil
	}
	j := g.recs.lower(t)
	for g.recs.at(j).seq != g.pages.next-1 {
		if j++; j == g.recs.len() {
			return nil // the group was full, and the newcomer has gone
		}
	}
	f, next := g.qualifies(j)
	if next > 0 {
		return nil
	}
	f.Bucket = b
	g.touch(b, ingest, f.Ingest)
	return []Firing{f}
}

// touch marks a bucket as fired, for as long as records that touch it can
// reach others.
func (g *Group) touch(bucket, last, ingest int64) {
	was, ok := g.fired[bucket]
	now := max(last, ingest)
	if ok && was == now {
		return
	}
	g.fired[bucket] = now
	g.pages.meta = true
	g.minDrop = min(g.minDrop, g.markDropAt(now))
	if !g.spec.Updates {
		return
	}
	if at, open := g.closesAt(bucket); open {
		g.minDrop = min(g.minDrop, at)
	}
}

// qualifies is the two-dimensional test: whether some set of records that
// contains the one at j satisfies the condition, with all event times in [t−T, t]
// and all ingest times within R of each other. Where it does not, next is the
// first later record that could qualify instead, above zero; else it is zero.
func (g *Group) qualifies(j int) (f Firing, next int) {
	e := g.recs.at(j)
	lo, hi := g.window(e)
	if next := g.impossible(lo, hi); next > 0 {
		return Firing{}, next
	}
	best, count := g.stretch(lo, hi, e)
	if count < g.least() {
		return Firing{}, j + 1
	}
	return g.firing(e, best, count), 0
}

// window is which records lie in the window that ends at e.
func (g *Group) window(e *record) (lo, hi int) {
	if end := g.spec.end(e.time); end <= g.recs.latest().time {
		return g.recs.lower(g.spec.start(e.time)), g.recs.lower(end)
	}
	return g.front, g.recs.len()
}

// least is the least that measure gives of a set that satisfies the condition.
func (g *Group) least() int { return max(g.spec.Min, 1) }

// impossible refuses cheaply the window of records lo to hi for which the condition
// can't hold, ingest times left aside. It returns the first record at which it
// could, above zero, or zero where the window must be looked at.
//
// That window and all later ones lie in what is left from lo on: the latest window,
// and the records from lo to front. Where these do not suffice together, none does.
func (g *Group) impossible(lo, hi int) int {
	switch g.spec.Kind {
	case EventCount:
		n := hi - lo
		if n >= g.spec.Min && g.ids.repeated > 0 && n-g.ids.repeated < g.spec.Min {
			n = len(g.sweep(lo, hi).ids)
		}
		return g.further(hi, n)
	case ValueCount:
		if g.values.total.distinct < g.spec.Min {
			return g.recs.len()
		}
		if hi == g.recs.len() {
			return g.further(hi, g.values.front.distinct)
		}
		if g.values.front.distinct+g.front-lo < g.spec.Min { // a value for each record that front lacks
			return g.recs.len()
		}
		return g.further(hi, g.sweep(lo, hi).values.distinct)
	case ValueSum:
		return g.sumImpossible(lo, hi)
	case Risk:
		return g.riskImpossible(lo, hi)
	default:
		if t, ok := g.rules.enoughAt(g, g.recs.at(lo).time, g.recs.at(hi-1).time); !ok {
			return g.recs.lower(t)
		}
		if g.rules.climb != nil {
			return g.outOfOrder(hi)
		}
		return 0
	}
}

// further is the first record at which a window that counts n at its end hi
// could count enough: each further record adds at most one.
func (g *Group) further(hi, n int) int {
	if n >= g.spec.Min {
		return 0
	}
	return hi - 1 + g.spec.Min - n
}

// stretch finds, among the records lo to hi, whose ingest times lie in
// some stretch of length R that contains e's, those that count most. The count
// is zero where no stretch satisfies the condition.
func (g *Group) stretch(lo, hi int, e *record) (best []*record, count int) {
	reach := g.spec.Reach()
	byIngest := make([]*record, 0, hi-lo)
	first, last := e.ingest, e.ingest
	for _, r := range g.recs.each(lo, hi) {
		if r.ingest < e.ingest-reach || r.ingest > e.ingest+reach {
			continue
		}
		byIngest = append(byIngest, r)
		first, last = min(first, r.ingest), max(last, r.ingest)
	}
	if last-first <= reach {
		return byIngest, g.measure(byIngest)
	}
	slices.SortStableFunc(byIngest, func(a, b *record) int {
		if a.ingest != b.ingest {
			if a.ingest < b.ingest {
				return -1
			}
			return 1
		}
		return compare(a, b)
	})
	// Only stretches that begin at a record and are maximal to the right can be
	// best; those with the same end hold less the later they begin.
	end, ended := 0, -1
	for begin, b := range byIngest {
		if b.ingest > e.ingest {
			break
		}
		for end < len(byIngest) && byIngest[end].ingest <= b.ingest+reach {
			end++
		}
		if end == ended || end-begin < g.leastRecords() {
			continue
		}
		ended = end
		if c := g.measure(byIngest[begin:end]); c > count {
			best, count = byIngest[begin:end], c
		}
	}
	return best, count
}

func (g *Group) leastRecords() int {
	if g.spec.Kind == Temporal || g.spec.Kind == Risk {
		return 1
	}
	return g.least()
}

// measure is what the condition counts in a set of records; for
// TemporalOrdered zero unless they are in order.
func (g *Group) measure(recs []*record) int {
	switch g.spec.Kind {
	case EventCount:
		if g.ids.repeated == 0 {
			return len(recs)
		}
		return distinct(recs)
	case ValueCount:
		if whole := g.recs.len() - g.front; len(recs) == whole && recs[0].seq == g.recs.at(g.front).seq {
			return g.values.front.distinct // it is the latest window
		}
		seen := make(map[int32]struct{}, g.spec.Min)
		for _, r := range recs {
			seen[r.value] = struct{}{}
		}
		return len(seen)
	case ValueSum:
		return g.summed(recs)
	case Risk:
		return g.risk(recs)
	case Temporal:
		var seen uint64
		for _, r := range recs {
			seen |= r.rules
		}
		if g.spec.Expr != "" && !exprHolds(g.spec.Expr, seen, seen) {
			return 0
		}
		return bits.OnesCount64(seen)
	default:
		return g.ordered(recs)
	}
}

// sumImpossible is impossible for sums: each further record adds at most the
// greatest number.
func (g *Group) sumImpossible(lo, hi int) int {
	n, b := g.values.numbers, g.condition.bounds[0]
	if !b.op.holds(n.total.Cmp(b.number)) {
		return g.recs.len()
	}
	sum := &n.front
	if hi < g.recs.len() {
		most := new(big.Int).Mul(n.most, big.NewInt(int64(g.front-lo)))
		if !b.op.holds(most.Add(most, sum).Cmp(b.number)) {
			return g.recs.len()
		}
		sum = &g.sweep(lo, hi).total
	}
	switch {
	case b.op.holds(sum.Cmp(b.number)):
		return 0
	case hi == g.recs.len() || n.most.Sign() == 0:
		return g.recs.len()
	}
	more := new(big.Int).Sub(b.number, sum)
	if more.Quo(more, n.most); !more.IsInt64() || more.Int64() > int64(g.recs.len()) {
		return g.recs.len()
	}
	return hi - 1 + max(int(more.Int64()), 1)
}

// summed is how many distinct events a set has, or zero where they do not add up
// to what is demanded. Of an event with several values the greatest counts.
func (g *Group) summed(recs []*record) int {
	sum, events := g.sumOf(recs)
	if b := g.condition.bounds[0]; !b.op.holds(sum.Cmp(b.number)) {
		return 0
	}
	return events
}

// sumOf is what the events of a set add up to, and how many they are.
func (g *Group) sumOf(recs []*record) (sum *big.Int, events int) {
	n := g.values.numbers
	most := make(map[string]*big.Int, len(recs))
	for _, r := range recs {
		if x := n.all[r.value]; most[r.id] == nil || x.Cmp(most[r.id]) > 0 {
			most[r.id] = x
		}
	}
	sum = new(big.Int)
	for _, x := range most {
		sum.Add(sum, x)
	}
	return sum, len(most)
}

func (g *Group) firing(e *record, recs []*record, count int) Firing {
	if !slices.IsSortedFunc(recs, compare) {
		slices.SortFunc(recs, compare)
	}
	f := Firing{
		EventID: e.id, Time: e.time, Ingest: e.ingest,
		Start: g.spec.start(e.time), End: g.spec.end(e.time) - 1,
		Count: count, AtLeast: g.overflow,
	}
	if g.exact > 0 && g.spec.Shape == Sliding {
		recs = g.last(recs)
		f.Count, f.AtLeast = min(count, g.exact), f.AtLeast || count >= g.exact
	}
	if g.decider == nil && g.spec.Kind == ValueSum {
		sum, _ := g.sumOf(recs)
		f.Measured = formatNumber(sum, fracDigits)
	}
	if g.spec.Kind == Risk {
		g.parts(&f, recs)
	}
	refs := make([]Ref, 0, min(len(recs), MaxRefs))
	var seen map[string]int
	if g.ids.repeated > 0 {
		seen = make(map[string]int, len(recs))
	}
	for _, r := range recs {
		keep, object := g.pages.keeps[r.seq], g.pages.objects.at(r.seq)
		if i, ok := seen[r.id]; ok {
			if refs[i].Rules |= r.rules; refs[i].Keep == nil {
				refs[i].Keep = keep
			}
			if refs[i].Object == nil {
				refs[i].Object = object
			}
			continue
		}
		if seen != nil {
			seen[r.id] = len(refs)
		}
		refs = append(refs, Ref{ID: r.id, Time: r.time, Rules: r.rules, Late: r.late, Keep: keep, Object: object})
		if g.spec.Kind == Risk {
			refs[len(refs)-1].Score = g.values.names[r.value]
		}
	}
	f.Total = len(refs)
	if len(refs) > MaxRefs && g.spec.Updates {
		refs = fewer(refs)
	} else if len(refs) > MaxRefs {
		refs = append(refs[:MaxRefs/2:MaxRefs/2], refs[len(refs)-MaxRefs/2:]...)
	}
	f.Events = refs
	return f
}

// last are of a window's records those of its latest exact events: what a group
// knows whether or not it was ever compacted.
func (g *Group) last(recs []*record) []*record {
	if len(recs) <= g.exact {
		return recs
	}
	seen := make(map[string]struct{}, g.exact)
	for i, r := range slices.Backward(recs) {
		if seen[r.id] = struct{}{}; len(seen) == g.exact {
			return recs[i:]
		}
	}
	return recs
}

func distinct(recs []*record) int {
	seen := make(map[string]struct{}, len(recs))
	for _, r := range recs {
		seen[r.id] = struct{}{}
	}
	return len(seen)
}
