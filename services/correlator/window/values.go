package window

// values counts the distinct values of a group: over all records, and over the
// window that ends at the latest one, so that the common case (a record in
// order) costs O(1) whatever the window holds.
type values struct {
	ids   map[string]int32
	names []string
	// total and front count records by value.
	total, front []int32
	scratch      []int32 // of a sweep
	// distinct is how many values the group holds, frontDistinct how many the
	// latest window holds, which begins at recs[lo].
	distinct, frontDistinct int
	lo                      int
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
	v.total = append(v.total, 0)
	v.front = append(v.front, 0)
	return i
}

// insert counts recs[at], which has just been put there.
func (v *values) insert(recs []record, at int, timespan int64) {
	r := &recs[at]
	if v.total[r.value]++; v.total[r.value] == 1 {
		v.distinct++
	}
	start := recs[len(recs)-1].time - timespan
	if at < v.lo || r.time < start {
		v.lo++
		return
	}
	if v.front[r.value]++; v.front[r.value] == 1 {
		v.frontDistinct++
	}
	for recs[v.lo].time < start {
		out := recs[v.lo].value
		if v.front[out]--; v.front[out] == 0 {
			v.frontDistinct--
		}
		v.lo++
	}
}

// shed forgets the first record.
func (v *values) shed(value int32) {
	if v.total[value]--; v.total[value] == 0 {
		v.distinct--
	}
	if v.lo > 0 {
		v.lo--
		return
	}
	if v.front[value]--; v.front[value] == 0 {
		v.frontDistinct--
	}
}

// rebuild counts anew, and forgets the values that no record has any more where
// they have become many.
func (v *values) rebuild(recs []record, timespan int64) {
	if len(v.names) > 2*v.distinct+spareValues {
		v.compact(recs)
	}
	clear(v.total)
	clear(v.front)
	v.distinct, v.frontDistinct, v.lo = 0, 0, 0
	for i := range recs {
		v.insert(recs[:i+1], i, timespan)
	}
}

// spareValues are forgotten only together: each time costs as much as all.
const spareValues = 64

// compact gives the values that are left new numbers.
func (v *values) compact(recs []record) {
	names := v.names
	*v = values{}
	known := make([]int32, len(names)) // new numbers, plus one
	for i := range recs {
		r := &recs[i]
		if known[r.value] == 0 {
			known[r.value] = v.intern(names[r.value]) + 1
		}
		r.value = known[r.value] - 1
	}
}
