package sigma

// Reader reads the text of some fields from events, by the same rules as
// matching: the last of duplicate keys, the longest literal key first. It reuses
// its buffers, so it belongs to one goroutine.
type Reader struct {
	paths *paths
	slots []int
	view  view
}

// NewReader returns a Reader of the fields with these names.
func NewReader(fields ...string) *Reader {
	r := &Reader{}
	slots := map[string]int{}
	for _, f := range fields {
		if _, ok := slots[f]; !ok {
			slots[f] = len(slots) + 1
		}
		r.slots = append(r.slots, slots[f])
	}
	r.paths = newPaths(slots)
	return r
}

// Read appends the fields' texts to dst in the order of their names: of several
// values the first, nil where there is none or it is null or an array. They are
// valid until the next call. It is an error if raw is not a JSON object.
func (r *Reader) Read(raw []byte, dst [][]byte) ([][]byte, error) {
	v := &r.view
	if err := v.scan(r.paths, len(r.slots)+1, raw, false); err != nil {
		return dst, err
	}
	for _, s := range r.slots {
		dst = append(dst, v.one(s))
	}
	return dst, nil
}

// one is the text of a slot's first value, nil where that is null, an array or
// not there.
func (v *view) one(s int) []byte {
	i := v.first(s)
	if i < 0 || v.values[i].kind == kindNull || v.values[i].kind == kindArray {
		return nil
	}
	return v.textOf(i)
}
