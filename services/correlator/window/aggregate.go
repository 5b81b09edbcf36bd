package window

import (
	"math/big"
	"math/bits"
	"slices"
)

// An aggregate is what the records of a window add up to, kept up to date as
// they enter and leave. What an event counts for is told apart from its copies
// only where event ids repeat in the group.
type aggregate struct {
	n      int             // events, or records where ids do not repeat
	ids    map[string]item // events by id, where ids may repeat
	values tally           // events by value; records for distinct values
	rules  []int32         // records by rule
	seen   uint64          // rules that any record has
	sum    big.Int
	bounds [2]boundary
	// sorts: a percentile is asked for.
	sorts bool
	// x and y are scratch space.
	x, y big.Int
}

// boundary is where the values of a window lie to a bound.
type boundary struct {
	below, equal int
	low, high    pile
}

// item is an event's records in a window: by values, nearly always one.
type item struct {
	value int32
	n     int32
	more  []int32 // values of further records that differ
}

func newAggregate(s *Spec) aggregate {
	var a aggregate
	if s.Kind == Temporal {
		a.rules = make([]int32, s.Rules)
	}
	a.sorts = s.Kind == ValueMedian || s.Kind == ValuePercentile && !s.share()
	a.bounds[0].high.up, a.bounds[1].high.up = true, true
	return a
}

// reset empties the aggregate.
func (a *aggregate) reset(g *Group) {
	a.n, a.seen = 0, 0
	clear(a.rules)
	a.values.clear()
	a.sum.SetInt64(0)
	for i := range a.bounds {
		b := &a.bounds[i]
		b.below, b.equal = 0, 0
		b.low.clear()
		b.high.clear()
	}
	a.emptied(g)
}

// emptied decides whether events have to be told from their copies from here on.
func (a *aggregate) emptied(g *Group) {
	a.ids = nil
	if g.ids.repeated > 0 && a.byEvent(g) {
		a.ids = map[string]item{}
	}
}

// byEvent reports whether copies of an event must not count again.
func (a *aggregate) byEvent(g *Group) bool { return g.spec.Kind == EventCount || g.spec.measures() }

func (a *aggregate) enter(g *Group, r *record) {
	switch {
	case g.spec.Kind == ValueCount:
		a.values.grow(len(g.values.names))
		a.values.enter(r.value)
	case g.spec.Kind == Temporal:
		for left := r.rules; left != 0; left &= left - 1 {
			if i := bits.TrailingZeros64(left); i < len(a.rules) {
				a.rules[i]++
				a.seen |= 1 << i
			}
		}
	case g.spec.Kind == TemporalOrdered:
	case a.ids != nil:
		a.enterCopy(g, r)
	default:
		a.n++
		a.counts(g, r.value, 1)
	}
}

func (a *aggregate) leave(g *Group, r *record) {
	switch {
	case g.spec.Kind == ValueCount:
		a.values.leave(r.value)
	case g.spec.Kind == Temporal:
		for left := r.rules; left != 0; left &= left - 1 {
			if i := bits.TrailingZeros64(left); i < len(a.rules) {
				if a.rules[i]--; a.rules[i] == 0 {
					a.seen &^= 1 << i
				}
			}
		}
	case g.spec.Kind == TemporalOrdered:
	case a.ids != nil:
		a.leaveCopy(g, r)
	default:
		a.n--
		a.counts(g, r.value, -1)
	}
}

// enterCopy enters a record whose event may be there already.
func (a *aggregate) enterCopy(g *Group, r *record) {
	it, ok := a.ids[r.id]
	switch {
	case !ok:
		a.ids[r.id] = item{value: r.value, n: 1}
		a.n++
		a.counts(g, r.value, 1)
		return
	case it.value == r.value:
		it.n++
		a.ids[r.id] = it
		return
	}
	was := it
	it.more = append(slices.Clone(it.more), r.value)
	a.ids[r.id] = it
	a.differs(g, &was, &it, r.value)
}

func (a *aggregate) leaveCopy(g *Group, r *record) {
	it := a.ids[r.id]
	was := it
	switch i := slices.Index(it.more, r.value); {
	case i >= 0:
		it.more = slices.Delete(slices.Clone(it.more), i, i+1)
	case it.n > 1:
		it.n--
		a.ids[r.id] = it
		return
	case len(it.more) == 0:
		delete(a.ids, r.id)
		a.n--
		a.counts(g, it.value, -1)
		return
	default:
		first := it.more[0]
		rest := slices.DeleteFunc(slices.Clone(it.more), func(v int32) bool { return v == first })
		it = item{value: first, n: int32(len(it.more) - len(rest)), more: rest}
	}
	a.ids[r.id] = it
	a.differs(g, &was, &it, r.value)
}

// differs counts an event by what its values are now, of which one has come or
// gone: by each that it has where shares are asked, else by the greatest.
func (a *aggregate) differs(g *Group, was, now *item, value int32) {
	if g.spec.share() {
		switch before, after := was.has(value), now.has(value); {
		case after && !before:
			a.counts(g, value, 1)
		case before && !after:
			a.counts(g, value, -1)
		}
		return
	}
	if g.values.numbers == nil {
		return
	}
	if b, n := was.greatest(g.values.numbers), now.greatest(g.values.numbers); b != n {
		a.counts(g, b, -1)
		a.counts(g, n, 1)
	}
}

func (it *item) has(v int32) bool { return it.value == v || slices.Contains(it.more, v) }

func (it *item) greatest(n *numbers) int32 {
	most := it.value
	for _, v := range it.more {
		if n.all[v].Cmp(n.all[most]) > 0 {
			most = v
		}
	}
	return most
}

// counts counts an event with a value in or out.
func (a *aggregate) counts(g *Group, value int32, by int) {
	if value < 0 {
		return // events are counted, not values
	}
	a.values.grow(len(g.values.names))
	if by > 0 {
		a.values.enter(value)
	} else {
		a.values.leave(value)
	}
	n := g.values.numbers
	switch {
	case n == nil:
	case a.sorts:
		for i := range n.bounds {
			b := &a.bounds[i]
			switch n.class[value][i] {
			case -1:
				b.below += by
				b.low.note(n, value)
			case 0:
				b.equal += by
			default:
				b.high.note(n, value)
			}
		}
	case by > 0:
		a.sum.Add(&a.sum, n.all[value])
	default:
		a.sum.Sub(&a.sum, n.all[value])
	}
}

// prepare tells events from their copies where that has become necessary.
func (a *aggregate) prepare(g *Group, lo, hi int) {
	if a.ids != nil || g.ids.repeated == 0 || !a.byEvent(g) {
		return
	}
	a.reset(g)
	for _, r := range g.recs.each(lo, hi) {
		a.enter(g, r)
	}
}

// verdict is what the condition finds in a window.
type verdict struct {
	ok    bool
	count int
}

// judge judges the window, which the records from lo to hi are, for its record e.
func (a *aggregate) judge(g *Group, c *condition, e *record, lo, hi int) verdict {
	a.prepare(g, lo, hi)
	count := a.n
	switch g.spec.Kind {
	case EventCount:
	case ValueCount:
		count = a.values.distinct
	case Temporal:
		count = bits.OnesCount64(a.seen)
		if g.spec.Expr != "" {
			return verdict{exprHolds(g.spec.Expr, a.seen, a.seen), count}
		}
	case TemporalOrdered:
		recs := g.listed(lo, hi)
		if g.spec.Expr != "" {
			count = g.orderedBy(recs, 0)
			return verdict{count > 0, count}
		}
		count = g.longest(recs)
	default:
		return verdict{a.measures(g, c, e), count}
	}
	return verdict{c.holds(count), count}
}

// measures reports whether what numbers come to meets every bound.
func (a *aggregate) measures(g *Group, c *condition, e *record) bool {
	if a.n == 0 {
		return false
	}
	n := a.x.SetInt64(int64(a.n))
	for i := range c.bounds {
		b := &c.bounds[i]
		sign := 0
		switch {
		case g.spec.share(): // 100 × own / n, against a number of 10^−38
			own := big.NewInt(int64(a.values.counts[e.value]) * 100)
			sign = own.Mul(own, one()).Cmp(a.y.Mul(n, b.number))
		case a.sorts:
			sign = a.percentile(g, c, i)
		case g.spec.Kind == ValueAvg:
			sign = a.sum.Cmp(a.y.Mul(n, b.number))
		default:
			sign = a.sum.Cmp(b.number)
		}
		if !b.op.holds(sign) {
			return false
		}
	}
	return true
}

// one is 1 as numbers are held.
func one() *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(fracDigits), nil)
}

// percentile is the sign of the percentile less a bound. The value at rank
// p/100 · (n−1) is interpolated between the two numbers about it; which side of
// the bound they are on nearly always says it, and where the bound is between
// them they are the nearest to it.
func (a *aggregate) percentile(g *Group, c *condition, i int) int {
	b, n := &a.bounds[i], g.values.numbers
	rank := new(big.Int).Mul(c.rank, big.NewInt(int64(a.n-1)))
	rem := new(big.Int)
	rank.QuoRem(rank, c.of, rem)
	at := int(rank.Int64())
	lo, hi := b.side(at), b.side(at+1)
	switch {
	case rem.Sign() == 0 || lo == hi:
		return lo
	case lo == 0:
		return hi
	case hi == 0:
		return lo
	}
	below, above := n.all[b.low.top(n, &a.values)], n.all[b.high.top(n, &a.values)]
	x := new(big.Int).Mul(below, new(big.Int).Sub(c.of, rem))
	x.Add(x, new(big.Int).Mul(above, rem))
	return x.Cmp(new(big.Int).Mul(n.bounds[i], c.of))
}

// side says where the value at a rank lies to the bound.
func (b *boundary) side(rank int) int {
	switch {
	case rank < b.below:
		return -1
	case rank < b.below+b.equal:
		return 0
	}
	return 1
}

// measured is what the numbers of the window come to, for people: at most six
// digits behind the point where it need not be exact.
func (a *aggregate) measured(g *Group, c *condition, e *record) string {
	const digits = 6
	n := big.NewInt(int64(a.n))
	switch {
	case !g.spec.measures():
		return ""
	case g.spec.share():
		x := new(big.Int).Mul(big.NewInt(int64(a.values.counts[e.value])*100), one())
		return formatNumber(x.Quo(x, n), digits)
	case a.sorts:
		return formatNumber(a.value(g, c), digits)
	case g.spec.Kind == ValueAvg:
		return formatNumber(new(big.Int).Quo(&a.sum, n), digits)
	}
	return formatNumber(&a.sum, fracDigits)
}

// value is the percentile itself, found by sorting.
func (a *aggregate) value(g *Group, c *condition) *big.Int {
	all := g.values.numbers.all
	var sorted []*big.Int
	for v, count := range a.values.counts {
		for range count {
			sorted = append(sorted, all[v])
		}
	}
	slices.SortFunc(sorted, (*big.Int).Cmp)
	rank, rem := new(big.Int).Mul(c.rank, big.NewInt(int64(a.n-1))), new(big.Int)
	rank.QuoRem(rank, c.of, rem)
	at := int(rank.Int64())
	x := sorted[at]
	if at+1 == len(sorted) {
		return x
	}
	step := new(big.Int).Sub(sorted[at+1], x)
	return step.Add(step.Quo(step.Mul(step, rem), c.of), x)
}

// A pile holds values of which the greatest, or the least, is wanted: a heap
// that lets go of those which are not there any more only when they come to
// the top.
type pile struct {
	up    bool // the least is on top
	heap  []int32
	holds []bool // by value
}

func (p *pile) clear() {
	p.heap = p.heap[:0]
	clear(p.holds)
}

func (p *pile) before(n *numbers, a, b int32) bool {
	if p.up {
		a, b = b, a
	}
	return n.all[a].Cmp(n.all[b]) > 0
}

func (p *pile) note(n *numbers, value int32) {
	if int(value) >= len(p.holds) {
		p.holds = append(p.holds, make([]bool, len(n.all)-len(p.holds))...)
	}
	if p.holds[value] {
		return
	}
	p.holds[value] = true
	p.heap = append(p.heap, value)
	for i := len(p.heap) - 1; i > 0; {
		above := (i - 1) / 2
		if !p.before(n, p.heap[i], p.heap[above]) {
			return
		}
		p.heap[i], p.heap[above] = p.heap[above], p.heap[i]
		i = above
	}
}

// top is the value on top, of those that the tally has.
func (p *pile) top(n *numbers, t *tally) int32 {
	for t.counts[p.heap[0]] == 0 {
		p.holds[p.heap[0]] = false
		last := len(p.heap) - 1
		p.heap[0] = p.heap[last]
		p.heap = p.heap[:last]
		p.sink(n)
	}
	return p.heap[0]
}

func (p *pile) sink(n *numbers) {
	for i := 0; ; {
		first := i
		for _, k := range [2]int{2*i + 1, 2*i + 2} {
			if k < len(p.heap) && p.before(n, p.heap[k], p.heap[first]) {
				first = k
			}
		}
		if first == i {
			return
		}
		p.heap[i], p.heap[first] = p.heap[first], p.heap[i]
		i = first
	}
}
