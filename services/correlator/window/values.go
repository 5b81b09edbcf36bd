package window

// values counts the distinct values of a group: over all records, and over the
// window that ends at the latest one, so that the common case (a record in
// order) costs O(1) whatever the window holds.
type values struct {
	ids          map[string]int32
	names        []string
	total, front tally
	scratch      []int32 // of a sweep
}

// A tally counts records by value.
type tally struct {
	counts   []int32
	distinct int
}

func (t *tally) enter(value int32) {
	if t.counts[value]++; t.counts[value] == 1 {
		t.distinct++
	}
}

func (t *tally) leave(value int32) {
	if t.counts[value]--; t.counts[value] == 0 {
		t.distinct--
	}
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

func (v *values) intern(s string) int32 {
	if i, ok := v.ids[s]; ok {
		return i
	}
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
	for _, r := range recs.all() {
		v.total.enter(r.value)
	}
}

// spareValues are forgotten only together: each time costs as much as all.
const spareValues = 64

// compact gives the values that are left new numbers.
func (v *values) compact(recs *timeline) {
	names := v.names
	*v = values{}
	known := make([]int32, len(names)) // new numbers, plus one
	for _, r := range recs.all() {
		if known[r.value] == 0 {
			known[r.value] = v.intern(names[r.value]) + 1
		}
		r.value = known[r.value] - 1
	}
}
