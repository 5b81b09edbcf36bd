package window

import "math/big"

// values counts the distinct values of a group: over all records, and over the
// window that ends at the latest one, so that the common case (a record in
// order) costs O(1) whatever the window holds.
type values struct {
	ids          map[string]int32
	names        []string
	total, front tally
	numbers      *numbers // where values are numbers
	scores       *scores  // where they are scores
}

// numbers are what values are as numbers, by their places.
type numbers struct {
	bounds []*big.Int
	all    []*big.Int
	// class says where a number lies to each bound: −1 below it, 0 on it, 1 above.
	class [][2]int8
	most  *big.Int
	// What total and front add up to, copies of an event included.
	total, front big.Int
}

func newNumbers(c *condition) *numbers {
	n := &numbers{most: new(big.Int)}
	for _, b := range c.bounds {
		n.bounds = append(n.bounds, b.number)
	}
	return n
}

func (n *numbers) add(x *big.Int) {
	n.all = append(n.all, x)
	var class [2]int8
	for i, b := range n.bounds {
		class[i] = int8(x.Cmp(b))
	}
	n.class = append(n.class, class)
	if x.Cmp(n.most) > 0 {
		n.most = x
	}
}

func (v *values) enterTotal(value int32) {
	if v.total.enter(value) && v.scores != nil {
		v.scores.total.enter(&v.scores.all[value])
	}
	if n := v.numbers; n != nil {
		n.total.Add(&n.total, n.all[value])
	}
}

func (v *values) leaveTotal(value int32) {
	if v.total.leave(value) && v.scores != nil {
		v.scores.total.leave(&v.scores.all[value])
	}
	if n := v.numbers; n != nil {
		n.total.Sub(&n.total, n.all[value])
	}
}

func (v *values) enterFront(value int32) {
	if v.front.enter(value) && v.scores != nil {
		v.scores.front.enter(&v.scores.all[value])
	}
	if n := v.numbers; n != nil {
		n.front.Add(&n.front, n.all[value])
	}
}

func (v *values) leaveFront(value int32) {
	if v.front.leave(value) && v.scores != nil {
		v.scores.front.leave(&v.scores.all[value])
	}
	if n := v.numbers; n != nil {
		n.front.Sub(&n.front, n.all[value])
	}
}

// A tally counts records by value.
type tally struct {
	counts   []int32
	distinct int
}

// enter reports whether it is the first of its value.
func (t *tally) enter(value int32) bool {
	if t.counts[value]++; t.counts[value] == 1 {
		t.distinct++
		return true
	}
	return false
}

// leave reports whether it was the last of its value.
func (t *tally) leave(value int32) bool {
	if t.counts[value]--; t.counts[value] == 0 {
		t.distinct--
		return true
	}
	return false
}

// grow makes room for so many values.
func (t *tally) grow(n int) {
	if n > len(t.counts) {
		t.counts = append(t.counts, make([]int32, n-len(t.counts))...)
	}
}

func (t *tally) clear() {
	clear(t.counts)
	t.distinct = 0
}

// intern gives a value's place and the text that equal ones share; ok is false
// for what should be a number and is none.
func (v *values) intern(s string) (place int32, text string, ok bool) {
	if i, ok := v.ids[s]; ok {
		return i, s, true
	}
	if v.scores != nil && !v.scores.read(s) {
		return 0, "", false
	}
	if v.numbers == nil {
		return v.add(s), s, true
	}
	x, text, ok := parseNumber(s)
	if !ok {
		return 0, "", false
	}
	if i, ok := v.ids[text]; ok {
		return i, text, true
	}
	v.numbers.add(x)
	return v.add(text), text, true
}

func (v *values) add(s string) int32 {
	if v.ids == nil {
		v.ids = map[string]int32{}
	}
	i := int32(len(v.names))
	v.ids[s] = i
	v.names = append(v.names, s)
	v.total.counts = append(v.total.counts, 0)
	v.front.counts = append(v.front.counts, 0)
	return i
}

// rebuild counts all records anew, and forgets the values that none has any
// more where they have become many. What the latest window holds is left to the
// caller.
func (v *values) rebuild(recs *timeline) {
	if len(v.names) > 2*v.total.distinct+spareValues {
		v.compact(recs)
	}
	v.total.clear()
	v.front.clear()
	if v.scores != nil {
		v.scores.total, v.scores.front = weight{}, weight{}
	}
	if v.numbers != nil {
		v.numbers.total.SetInt64(0)
		v.numbers.front.SetInt64(0)
	}
	for _, r := range recs.all() {
		v.enterTotal(r.value)
	}
}

// spareValues are forgotten only together: each time costs as much as all.
const spareValues = 64

// compact gives the values that are left new numbers.
func (v *values) compact(recs *timeline) {
	names, n, scores := v.names, v.numbers, v.scores
	*v = values{}
	if scores != nil {
		v.scores = newScores()
	}
	if n != nil {
		v.numbers = &numbers{bounds: n.bounds, most: new(big.Int)}
	}
	known := make([]int32, len(names)) // new numbers, plus one
	for _, r := range recs.all() {
		if known[r.value] == 0 {
			if n != nil {
				v.numbers.add(n.all[r.value])
			}
			if scores != nil {
				v.scores.read(names[r.value])
			}
			known[r.value] = v.add(names[r.value]) + 1
		}
		r.value = known[r.value] - 1
	}
}
