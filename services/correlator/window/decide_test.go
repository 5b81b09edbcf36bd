package window

import (
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestDecidedBucketsArePure holds what the watermark decides to the definition:
// whatever the order of arrival, the copies, the steps of the watermark and the
// times at which the state is written and read back.
func TestDecidedBucketsArePure(t *testing.T) {
	fired, spoken := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		spec := drawDecided(rt)
		recs := drawTimely(rt, spec)
		for i := range recs {
			recs[i].Carry = rapid.SampledFrom([][]byte{nil, nil, []byte("x"), []byte("x"), []byte("y")}).Draw(rt, "carry")
		}
		want, wanted := naiveDecided(spec, recs)
		order := rapid.Permutation(withRepeats(rt, recs)).Draw(rt, "order")
		got, signals := foldDecided(rt, spec, order)
		require.Equal(rt, want, got, "spec %+v, order %+v", *spec, order)
		require.Equal(rt, wanted, signals, "spec %+v, order %+v", *spec, order)
		fired, spoken = fired+len(want), spoken+len(signals)
	})
	require.Positive(t, fired)
	require.Positive(t, spoken)
}

func drawDecided(rt *rapid.T) *Spec {
	s := &Spec{
		Kind:     Kind(rapid.IntRange(int(EventCount), int(ValueMedian)).Draw(rt, "kind")),
		Timespan: rapid.SampledFrom([]int64{10, 60_000, 600_000}).Draw(rt, "timespan"),
		Lateness: rapid.SampledFrom([]int64{0, 5, 30_000, 600_000}).Draw(rt, "lateness"),
		Shape:    Shape(rapid.IntRange(int(Sliding), int(Session)).Draw(rt, "shape")),
		Rules:    1,
	}
	s.OwnLateness = rapid.Bool().Draw(rt, "own lateness")
	if s.Shape == Session {
		s.Gap = rapid.SampledFrom([]int64{1, s.Timespan / 2, s.Timespan - 1, s.Timespan}).Draw(rt, "gap")
	}
	if s.temporal() {
		s.Rules = rapid.IntRange(1, 4).Draw(rt, "rules")
		s.StrictTies = s.Kind == TemporalOrdered && rapid.Bool().Draw(rt, "strict")
	}
	if rapid.Bool().Draw(rt, "suppressed") {
		s.Suppress = s.Timespan * rapid.SampledFrom([]int64{1, 3}).Draw(rt, "times")
		s.Suppress += rapid.SampledFrom([]int64{0, 7}).Draw(rt, "and")
	}
	bounds := []string{"0", "1", "2", "3", "4"}
	if s.Kind == ValuePercentile {
		s.Percentile = rapid.SampledFrom([]string{"", "0", "50", "95", "99.9", "100"}).Draw(rt, "percentile")
	}
	switch {
	case s.temporal() && rapid.Bool().Draw(rt, "expression"):
		s.Expr = drawExpr(rt, s.Rules, 3, true)
		if s.AtOnce() {
			s.Expr += string([]byte{ExprAbsent, ExprOr})
		}
		return s
	case s.share():
		bounds = []string{"10", "25", "33.3", "50", "100"}
	case s.measures():
		bounds = []string{"-2", "0", "0.2", "0.3", "0.55", "1", "1.5", "3.5"}
	case s.Shape == Session && rapid.Bool().Draw(rt, "least"):
		s.Min = rapid.IntRange(1, s.Rules).Draw(rt, "min")
		return s
	}
	s.Bounds[0] = Bound{Op(rapid.IntRange(int(GT), int(NEQ)).Draw(rt, "op")), rapid.SampledFrom(bounds).Draw(rt, "bound")}
	if rapid.Bool().Draw(rt, "range") {
		s.Bounds[0].Op = GTE
		s.Bounds[1] = Bound{LT, rapid.SampledFrom(bounds).Draw(rt, "upper")}
	}
	if s.AtOnce() { // sums
		s.Bounds[0].Op = LT
	}
	return s
}

// drawTimely gives records whose event times cluster where windows and buckets
// end and whose ingest times lie about where they are late or early; some are
// flagged, some have copies.
func drawTimely(rt *rapid.T, s *Spec) []Record {
	times := []int64{0, 1, s.Gap, s.Gap + 1, 2 * s.Gap, 3*s.Gap + 1, s.Timespan - 1, s.Timespan, s.Timespan + 1, 2 * s.Timespan, -1, s.Timespan / 2, 3*s.Timespan + 2, 7 * s.Timespan}
	after := []int64{0, 0, 1, s.Lateness / 2, s.Lateness, s.Lateness, s.Lateness + 1, -EarlyAllowance, -EarlyAllowance - 1}
	var out []Record
	for i := range rapid.IntRange(1, 14).Draw(rt, "n") {
		r := Record{
			EventID:  fmt.Sprintf("e%02d", i),
			Time:     rapid.SampledFrom(times).Draw(rt, "time"),
			Rules:    rapid.Uint64Range(1, 1<<s.Rules-1).Draw(rt, "bits"),
			Value:    rapid.SampledFrom([]string{"a", "b", "c", "", "d"}).Draw(rt, "value"),
			HasValue: rapid.IntRange(0, 9).Draw(rt, "has") > 0,
			Late:     rapid.IntRange(0, 9).Draw(rt, "late") == 0,
			Early:    rapid.IntRange(0, 19).Draw(rt, "early") == 0,
			Trace:    rapid.SampledFrom([]string{"", "trace"}).Draw(rt, "trace"),
			Keep:     []byte("k"),
		}
		if s.measures() {
			r.Value = rapid.SampledFrom(someNumbers()).Draw(rt, "number")
		}
		r.Ingest = r.Time + rapid.SampledFrom(after).Draw(rt, "after")
		out = append(out, r)
		for range rapid.IntRange(0, 2).Draw(rt, "copies") {
			c := r
			if s.Kind != TemporalOrdered && rapid.IntRange(0, 3).Draw(rt, "moved") == 0 { // see Group.ordered
				c.Time = rapid.SampledFrom(times).Draw(rt, "copy time")
			}
			if s.measures() && rapid.IntRange(0, 2).Draw(rt, "other") == 0 {
				c.Value = rapid.SampledFrom(someNumbers()).Draw(rt, "number")
			}
			c.Ingest = c.Time + rapid.SampledFrom(after).Draw(rt, "copy")
			out = append(out, c)
		}
	}
	return out
}

// foldDecided runs the group as a stage does, until the watermark has passed
// everything.
func foldDecided(rt *rapid.T, s *Spec, order []Record) (buckets []int64, signals []string) {
	require.NoError(rt, s.Validate())
	require.False(rt, s.AtOnce())
	stored := map[string][]byte{}
	g := New(s)
	most := rapid.SampledFrom([]int{2, 3, chunkRecords}).Draw(rt, "most")
	fired := map[int64]int{}
	signals = []string{}
	passed := int64(math.MinInt64 / 2)
	advance := func(w int64) {
		defer func() { passed = w }()
		for again := true; again; again = g.Next() <= w && g.Next() != math.MaxInt64 {
			list := g.Advance(w)
			require.LessOrEqual(rt, len(list), MaxFirings+1)
			for _, f := range list {
				require.Equal(rt, []byte("k"), f.Near)
				if f.Signal {
					require.GreaterOrEqual(rt, f.Ingest, passed-s.Lag())
					signals = append(signals, signalOf(f.EventID, f.Time, f.Ingest, f.Carry))
					continue
				}
				fired[f.Bucket]++
				require.NotEmpty(rt, f.Events)
			}
			if rapid.IntRange(0, 3).Draw(rt, "store amid") == 0 {
				g = reread(rt, g, s, stored)
			}
		}
	}
	for i, r := range order {
		g.recs.most = most
		if rapid.IntRange(0, 2).Draw(rt, "advance") == 0 {
			w := r.Ingest
			for _, later := range order[i:] {
				w = min(w, later.Ingest)
			}
			advance(w)
		}
		require.Empty(rt, g.Add(r))
		if rapid.IntRange(0, 3).Draw(rt, "store") == 0 {
			g = reread(rt, g, s, stored)
		}
	}
	advance(math.MaxInt64)
	require.True(rt, g.Empty())
	out := []int64{}
	for b, n := range fired {
		require.Equal(rt, 1, n, "bucket %d", b)
		out = append(out, b)
	}
	slices.Sort(out)
	slices.Sort(signals)
	return out, signals
}

// naiveDecided applies the definition: each event that is neither late nor early,
// by all such events of its window.
// Its signal is told once, as of the copy that was received first of those that
// carry something.
func naiveDecided(s *Spec, recs []Record) (buckets []int64, signals []string) {
	var timely []Record
	for _, r := range recs {
		late := r.Late && !s.OwnLateness || r.Ingest-r.Time > s.Lateness
		early := r.Early || r.Time-r.Ingest > EarlyAllowance
		if !late && !early && naiveCounts(s, r) {
			timely = append(timely, r)
		}
	}
	fired, told := map[int64]bool{}, map[string]bool{}
	signals = []string{}
	for _, e := range timely {
		set, bucket := naiveWindow(s, timely, e)
		if !naiveHolds(s, set, e) {
			continue
		}
		fired[bucket] = true
		first := len(e.Carry) > 0
		for _, c := range timely {
			same := fmt.Sprint(c.EventID, c.Time, c.Rules, naiveValue(s, c)) == fmt.Sprint(e.EventID, e.Time, e.Rules, naiveValue(s, e))
			if same && len(c.Carry) > 0 && (c.Ingest < e.Ingest || c.Ingest == e.Ingest && string(c.Carry) < string(e.Carry)) {
				first = false
			}
		}
		if said := signalOf(e.EventID, e.Time, e.Ingest, e.Carry); first {
			of := fmt.Sprint(said, e.Rules, naiveValue(s, e))
			if !told[of] {
				signals = append(signals, said)
			}
			told[of] = true
		}
	}
	slices.Sort(signals)
	out := []int64{}
	for b := range fired {
		out = append(out, b)
	}
	slices.Sort(out)
	return out, signals
}

// naiveValue is what tells records of an event apart by its value.
func naiveValue(s *Spec, r Record) string {
	if x, ok := naiveNumber(r.Value); ok && s.Numbers() {
		return x.RatString()
	}
	if s.tallied() {
		return r.Value
	}
	return ""
}

// naiveWindow is the window by which an event is decided, and its bucket.
func naiveWindow(s *Spec, timely []Record, e Record) (set []Record, bucket int64) {
	in := func(from, to int64) {
		for _, r := range timely {
			if from <= r.Time && r.Time <= to {
				set = append(set, r)
			}
		}
	}
	switch s.Shape {
	case Sliding:
		in(e.Time-s.Timespan, e.Time)
		return set, naiveBucket(s, e.Time)
	case Tumbling:
		from := naiveFloor(e.Time, s.Timespan) * s.Timespan
		in(from, from+s.Timespan-1)
		return set, naiveBucket(s, e.Time)
	}
	var times []int64
	for _, r := range timely {
		times = append(times, r.Time)
	}
	slices.Sort(times)
	var starts []int64 // of sessions
	run := int64(math.MinInt64)
	for i, t := range times {
		begins := i == 0 || t-times[i-1] > s.Gap
		if begins {
			run = t
		} else if t > run+s.Timespan {
			// A first cut there, and then one at each multiple of the timespan.
			begins = times[i-1] <= run+s.Timespan || naiveFloor(t, s.Timespan) > naiveFloor(times[i-1], s.Timespan)
		}
		if begins {
			starts = append(starts, t)
		}
	}
	from, to := int64(0), int64(math.MaxInt64)
	for i, t := range starts {
		if t <= e.Time {
			from, to = t, math.MaxInt64
			if i+1 < len(starts) {
				to = starts[i+1] - 1
			}
		}
	}
	in(from, to)
	return set, naiveFloor(from, max(s.Timespan, s.Suppress))
}

func naiveFloor(a, b int64) int64 { return int64(math.Floor(float64(a) / float64(b))) }

func naiveBucket(s *Spec, t int64) int64 {
	if s.Shape == Tumbling {
		t = naiveFloor(t, s.Timespan) * s.Timespan
	}
	return naiveFloor(t, max(s.Timespan, s.Suppress))
}

// naiveNumber is a number within the bounds of what one may be.
func naiveNumber(text string) (*big.Rat, bool) {
	if text == "1e-39" || text == "" {
		return nil, false
	}
	return new(big.Rat).SetString(text)
}

// naiveCounts reports whether a record counts, its times left aside.
func naiveCounts(s *Spec, r Record) bool {
	switch {
	case s.Kind == ValueCount:
		return r.HasValue
	case s.Kind < ValueSum:
		return true
	case s.Kind == ValuePercentile && s.Percentile == "":
		return r.HasValue
	}
	x, ok := naiveNumber(r.Value)
	return ok && r.HasValue && (!s.AtOnce() || x.Sign() >= 0)
}

// naiveHolds applies the condition to a set, for an event of it.
func naiveHolds(s *Spec, set []Record, e Record) bool {
	if s.Expr != "" {
		return naiveExpr(s, set)
	}
	if s.Kind < ValueSum && s.Bounds[0].Op == 0 {
		return holds(s, set)
	}
	x := naiveMeasure(s, set, e)
	for _, b := range s.Bounds {
		if b.Op == 0 {
			continue
		}
		n, _ := new(big.Rat).SetString(b.Number)
		c := x.Cmp(n)
		if !map[Op]bool{GT: c > 0, GTE: c >= 0, LT: c < 0, LTE: c <= 0, EQ: c == 0, NEQ: c != 0}[b.Op] {
			return false
		}
	}
	return true
}

// naiveMeasure is what the condition compares.
func naiveMeasure(s *Spec, set []Record, e Record) *big.Rat {
	if s.Kind < ValueSum {
		// The largest threshold that the set would meet.
		atLeast, n := *s, int64(0)
		for atLeast.Min = 1; holds(&atLeast, set); atLeast.Min++ {
			n = int64(atLeast.Min)
		}
		return big.NewRat(n, 1)
	}
	if s.Kind == ValuePercentile && s.Percentile == "" {
		ids, same := map[string]bool{}, map[string]bool{}
		for _, r := range set {
			ids[r.EventID] = true
			if r.Value == e.Value {
				same[r.EventID] = true
			}
		}
		return big.NewRat(int64(100*len(same)), int64(len(ids)))
	}
	greatest := map[string]*big.Rat{}
	for _, r := range set {
		if x, _ := naiveNumber(r.Value); greatest[r.EventID] == nil || x.Cmp(greatest[r.EventID]) > 0 {
			greatest[r.EventID] = x
		}
	}
	var sorted []*big.Rat
	sum, n := new(big.Rat), big.NewRat(int64(len(greatest)), 1)
	for _, x := range greatest {
		sorted = append(sorted, x)
		sum.Add(sum, x)
	}
	slices.SortFunc(sorted, (*big.Rat).Cmp)
	switch s.Kind {
	case ValueSum:
		return sum
	case ValueAvg:
		return sum.Quo(sum, n)
	}
	p := "50"
	if s.Kind == ValuePercentile {
		p = s.Percentile
	}
	rank, _ := new(big.Rat).SetString(p)
	rank.Mul(rank, big.NewRat(int64(len(sorted)-1), 100))
	at := new(big.Int).Quo(rank.Num(), rank.Denom()).Int64()
	part := rank.Sub(rank, big.NewRat(at, 1))
	if part.Sign() == 0 {
		return sorted[at]
	}
	step := new(big.Rat).Sub(sorted[at+1], sorted[at])
	return step.Add(step.Mul(step, part), sorted[at])
}

// naiveExpr tries every set of rules that is met, in order where that matters.
func naiveExpr(s *Spec, set []Record) bool {
	var all uint64
	for _, r := range set {
		all |= r.Rules
	}
	for some := range uint64(1 << s.Rules) {
		met := some&all == some && (s.Kind == TemporalOrdered || some == all)
		if s.Kind == TemporalOrdered && some > 0 {
			met = met && naiveInOrder(s, set, some)
		}
		if met && naiveRun(s.Expr, some, all) {
			return true
		}
	}
	return false
}

// naiveInOrder narrows the records to the rules of a set, all of which must be
// met.
func naiveInOrder(s *Spec, set []Record, some uint64) bool {
	narrow := *s
	narrow.Rules, narrow.Min = bits.OnesCount64(some), bits.OnesCount64(some)
	var out []Record
	for _, r := range set {
		n, place := uint64(0), 0
		for i := range s.Rules {
			if some>>i&1 == 0 {
				continue
			}
			n |= r.Rules >> i & 1 << place
			place++
		}
		r.Rules = n
		out = append(out, r)
	}
	return chain(&narrow, out, map[string]bool{}, -1, 0, 0)
}

func naiveRun(program string, seen, all uint64) bool {
	var stack []bool
	for _, op := range []byte(program) {
		n := len(stack)
		switch {
		case op == ExprAnd:
			stack = append(stack[:n-2], stack[n-2] && stack[n-1])
		case op == ExprOr:
			stack = append(stack[:n-2], stack[n-2] || stack[n-1])
		case op >= ExprAbsent:
			stack = append(stack, all>>(op-ExprAbsent)&1 == 0)
		default:
			stack = append(stack, seen>>op&1 == 1)
		}
	}
	return stack[0]
}

// TestOneAdvanceGivesSoManyFirings goes on where it has left off.
func TestOneAdvanceGivesSoManyFirings(t *testing.T) {
	s := &Spec{Kind: EventCount, Timespan: 1000, Rules: 1, Bounds: [2]Bound{{LT, "5"}}}
	g := New(s)
	const n = 100
	for i := range int64(n) {
		add(g, fmt.Sprint(i), i*1000, i*1000)
	}
	const w = n * 1000
	total, calls := 0, 0
	for ; g.Next() <= w; calls++ {
		fired := g.Advance(w)
		require.LessOrEqual(t, len(fired), MaxFirings)
		for _, f := range fired {
			require.EqualValues(t, total, f.Bucket)
			total++
		}
	}
	require.Equal(t, n, total)
	require.Greater(t, calls, n/MaxFirings)
}

// TestCutWindowsAreLeftUndecided asks for each event that would make a bucket
// fire, and lets the next one of the bucket.
func TestCutWindowsAreLeftUndecided(t *testing.T) {
	s := &Spec{Kind: EventCount, Timespan: 1000, Rules: 1, Bounds: [2]Bound{{LT, "9"}}}
	g := New(s)
	for i := range int64(20) {
		add(g, fmt.Sprintf("%02d", i), i*300, i*300)
	}
	var got []string
	for _, f := range g.AdvanceUnless(func(f *Firing) bool { return f.Start < 1200 }, 10_000) {
		got = append(got, f.EventID)
	}
	// 2.4 s is the first whose window begins late enough; the buckets before have none.
	require.Equal(t, []string{"08", "10", "14", "17"}, got)
}

// TestKeptEventsStayFew keeps no more whole than it may, and has one near.
func TestKeptEventsStayFew(t *testing.T) {
	s := &Spec{Kind: EventCount, Timespan: 10_000, Lateness: 10_000, Rules: 1, Bounds: [2]Bound{{EQ, "11"}}}
	g := New(s)
	for i := range int64(2000) {
		require.Empty(t, g.Add(Record{EventID: fmt.Sprint(i), Time: i * 1000, Ingest: i * 1000, Rules: 1, Keep: fmt.Append(nil, i), Trace: fmt.Sprint("t", i)}))
		require.LessOrEqual(t, len(g.pages.keeps), maxKept)
		for _, f := range g.Advance(i * 1000) {
			require.Equal(t, "t"+f.EventID, f.Trace)
			require.NotEmpty(t, f.Near)
		}
		require.LessOrEqual(t, len(g.decider.traces), 25, "those that are not decided")
	}
}

// TestOneIsKeptWhole where all that were kept are dropped, and others are not; and
// none of a group that is empty.
func TestOneIsKeptWhole(t *testing.T) {
	s := &Spec{Kind: EventCount, Timespan: 10_000, Lateness: 30 * minute, Rules: 1, Bounds: [2]Bound{{EQ, "11"}}}
	g, later := New(s), int64(minute)
	for i := range int64(maxKept + 1) { // of which every other is kept, by then
		g.Add(Record{EventID: fmt.Sprint(i), Time: i, Ingest: i % 2 * later, Rules: 1, Keep: fmt.Append(nil, i)})
	}
	g.settle()
	g.drop(later)
	require.Equal(t, maxKept/2, g.recs.len())
	require.Len(t, g.pages.keeps, 1)
	require.NotEmpty(t, g.decider.near(g, 1))
	g = reread(t, g, s, map[string][]byte{})
	require.NotEmpty(t, g.decider.near(g, 1), "it is stored, too")
	g.drop(later + 1)
	require.Zero(t, g.recs.len())
	require.Empty(t, g.pages.keeps)
}

// TestFullGroupGoesOnDeciding lets a group shed what its windows still have, and
// counts what is left.
func TestFullGroupGoesOnDeciding(t *testing.T) {
	s := &Spec{Kind: ValueSum, Timespan: 2 * MaxRecords, Rules: 1, Bounds: [2]Bound{{EQ, "99999"}}}
	require.NoError(t, s.Validate())
	g := New(s)
	var fired []Firing
	for i := range int64(MaxRecords + 2000) {
		g.Add(Record{EventID: fmt.Sprint(i), Time: i, Ingest: i, Rules: 1, Value: "1", HasValue: true})
		if i%500 == 499 || i > MaxRecords-3 {
			fired = append(fired, g.Advance(i)...)
		}
	}
	require.True(t, g.Overflowed())
	require.Equal(t, g.decider.sum.n, g.decider.hi-g.decider.lo)
	require.Len(t, fired, 1)
	require.Equal(t, MaxRecords-1, fired[0].Count)
}
