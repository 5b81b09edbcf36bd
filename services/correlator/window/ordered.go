package window

import (
	"math/bits"
	"slices"
)

// ordered reports how many rules, in listed order, are met by distinct events
// of which none is earlier than the one before; zero if fewer than demanded.
//
// With a threshold below the number of rules any Min of them, in listed order,
// will do. Going through the events by time and keeping the furthest position
// is enough where all rules are demanded: from a lower position no event leads
// further than from a higher one. Events of one millisecond have no known
// order; they advance as far as a matching of distinct events allows, or by
// one where ties are strict. One event id with two event times is taken for two
// events here: which of its times should count would depend on all others.
func (g *Group) ordered(recs []*record) int {
	byTime := slices.Clone(recs)
	slices.SortFunc(byTime, compare)
	if g.spec.Expr != "" {
		return g.orderedBy(byTime, 0)
	}
	if g.spec.Min == g.spec.Rules {
		if g.walk(byTime, allRules(g.spec.Rules)) {
			return g.spec.Rules
		}
		return 0
	}
	return g.longestOf(byTime, g.spec.Min)
}

// longest is how many rules at most are met in listed order.
func (g *Group) longest(byTime []*record) int { return g.longestOf(byTime, 1) }

// longestOf is that, or zero where it is below least.
func (g *Group) longestOf(byTime []*record, least int) int {
	for n := g.spec.Rules; n >= least; n-- {
		for order := range subsets(g.spec.Rules, n) {
			if g.walk(byTime, order) {
				return n
			}
		}
	}
	return 0
}

// orderedBy is how many rules are met in listed order so that the condition over
// rules holds; zero where it does not. What must not be there must not be there
// in any order; there has the rules of which there may be more than these.
func (g *Group) orderedBy(byTime []*record, there uint64) int {
	var all uint64
	for _, r := range byTime {
		all |= r.rules
	}
	for set := uint64(0); set < 1<<g.spec.Rules; set++ {
		if set&^all != 0 || !exprHolds(g.spec.Expr, set, all|there) {
			continue
		}
		order := make([]int, 0, g.spec.Rules)
		for left := set; left != 0; left &= left - 1 {
			order = append(order, bits.TrailingZeros64(left))
		}
		if g.walk(byTime, order) {
			return max(len(order), 1)
		}
	}
	return 0
}

// walk reports whether the rules are met in the given order.
func (g *Group) walk(byTime []*record, order []int) bool {
	at := 0
	for i := 0; i < len(byTime) && at < len(order); {
		k := i + 1
		for k < len(byTime) && byTime[k].time == byTime[i].time {
			k++
		}
		at += g.advance(byTime[i:k], order[at:])
		i = k
	}
	return at == len(order)
}

// advance is how many of the next rules the events of one millisecond meet,
// each event at most one: the longest prefix that can be matched, found by
// augmenting paths.
func (g *Group) advance(tied []*record, order []int) int {
	most := len(order)
	if g.spec.StrictTies {
		most = min(most, 1)
	}
	events := merge(tied)
	taken := make([]int, len(events)) // position+1 that the event meets
	var augment func(pos int, seen []bool) bool
	augment = func(pos int, seen []bool) bool {
		for i, rules := range events {
			if seen[i] || rules&(1<<order[pos]) == 0 {
				continue
			}
			seen[i] = true
			if taken[i] == 0 || augment(taken[i]-1, seen) {
				taken[i] = pos + 1
				return true
			}
		}
		return false
	}
	n := 0
	for n < most && n < len(events) && augment(n, make([]bool, len(events))) {
		n++
	}
	return n
}

// merge gives the rules of each distinct event: copies of an event are one.
func merge(tied []*record) []uint64 {
	out := make([]uint64, 0, len(tied))
	for i, r := range tied {
		if i > 0 && tied[i-1].id == r.id {
			out[len(out)-1] |= r.rules
			continue
		}
		out = append(out, r.rules)
	}
	return out
}

func allRules(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// subsets yields every choice of k of n rules, in listed order.
func subsets(n, k int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		pick := allRules(k)
		for {
			if !yield(pick) {
				return
			}
			i := k - 1
			for i >= 0 && pick[i] == n-k+i {
				i--
			}
			if i < 0 {
				return
			}
			pick[i]++
			for j := i + 1; j < k; j++ {
				pick[j] = pick[j-1] + 1
			}
		}
	}
}
