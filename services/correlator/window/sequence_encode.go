package window

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
)

// sequenceVersion is the first byte of a sequence's field "m", carryingVersion
// that of one whose pages may say what events carry: a correlator that knows
// nothing of that must not read them.
//
// Beside "pN" and "kN" a sequence has the fields "sh" (which events are held),
// "sk" (what is kept of one that has gone) and those of its machine, which begin
// with an s too.
const (
	sequenceVersion = 1
	carryingVersion = 2
	// The flags in its second byte.
	wasFull = 1 // of which nothing more is known
	hasHole = 2
)

func (q *sequence) changes(dst []Change) []Change {
	p := &q.pages
	if !p.meta && !q.rebased && !p.dirty && len(p.full) == 0 {
		return dst
	}
	p.meta = false
	dst = p.changes(dst)
	dst = q.memory.changes(dst)
	if q.rebased {
		q.rebased = false
		dst = append(dst, Change{Field: "sk", Value: q.basis})
	}
	var held []byte
	last := uint64(0)
	for _, e := range q.held {
		held = binary.AppendVarint(held, int64(e.seq-last))
		last = e.seq
	}
	dst = append(dst, Change{Field: "sh", Value: held})
	return append(dst, Change{Field: "m", Value: q.appendMeta(nil)})
}

func (q *sequence) appendMeta(b []byte) []byte {
	flags := byte(0)
	if q.lacking() {
		flags = hasHole
	}
	version := byte(sequenceVersion)
	if q.carries {
		version = carryingVersion
	}
	b = append(b, version, flags)
	b = binary.AppendUvarint(b, q.pages.next)
	b = binary.AppendVarint(b, q.frontier)
	b = binary.AppendVarint(b, q.bucket)
	b = appendEntry(b, q.taken)
	if q.lacking() {
		b = binary.AppendVarint(binary.AppendVarint(b, q.hole.from), q.hole.to)
	}
	return b
}

func decodeSequence(s *Spec, fields []Change) (*sequence, error) {
	q := newSequence(s)
	i := slices.IndexFunc(fields, func(c Change) bool { return c.Field == "m" })
	if i < 0 {
		return nil, fmt.Errorf("%w: no field m", errCorrupt)
	}
	if err := q.decodeMeta(fields[i].Value); err != nil {
		return nil, err
	}
	entries := map[uint64]*entry{}
	var held []byte
	for _, c := range fields {
		var err error
		switch {
		case c.Field == "m" || c.Field == "":
		case c.Field == "sh":
			held = c.Value
		case c.Field == "sk":
			q.basis = c.Value
		case c.Field[0] == 's' && len(c.Field) > 1:
			err = q.memory.load(c.Field, c.Value)
		default:
			err = q.decodeField(c, entries)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := q.restore(entries, held); err != nil {
		return nil, err
	}
	q.schedule()
	return q, nil
}

func (q *sequence) decodeMeta(b []byte) error {
	if len(b) < 2 || b[0] != sequenceVersion && b[0] != carryingVersion || b[1] > wasFull|hasHole {
		return fmt.Errorf("%w: version is not %d or %d", errCorrupt, sequenceVersion, carryingVersion)
	}
	q.carries = b[0] == carryingVersion
	d := decoder{b: b[2:]}
	q.pages.next = d.uvarint()
	q.pages.stored = q.pages.next
	q.frontier = d.varint()
	q.bucket = d.varint()
	q.taken = d.entry()
	if b[1]&hasHole != 0 {
		q.hole = hole{d.varint(), d.varint()}
	}
	return d.end("field m")
}

func appendEntry(b []byte, e *entry) []byte {
	b = appendString(b, e.id)
	b = binary.AppendVarint(b, e.time)
	b = binary.AppendVarint(b, e.ingest-e.time)
	b = binary.AppendUvarint(b, e.rules)
	return appendString(appendString(b, e.value), e.trace)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendCarrier writes an event of a page. No event's id is empty: before one that
// carries something stands what it carries, as an empty text and another.
func appendCarrier(b []byte, e *entry) []byte {
	if len(e.carry) > 0 {
		b = append(appendString(b, ""), binary.AppendUvarint(nil, uint64(len(e.carry)))...)
		b = append(b, e.carry...)
	}
	return appendEntry(b, e)
}

// carrier reads what appendCarrier wrote.
func (d *decoder) carrier() *entry {
	var carry []byte
	if len(d.b) > 0 && d.b[0] == 0 {
		d.b = d.b[1:]
		carry = slices.Clone(d.bytes())
	}
	e := d.entry()
	e.carry = carry
	return e
}

// entry reads what appendEntry wrote.
func (d *decoder) entry() *entry {
	e := &entry{id: string(d.bytes())}
	e.time = d.varint()
	e.ingest = e.time + d.varint()
	e.rules = d.uvarint()
	e.value, e.trace = string(d.bytes()), string(d.bytes())
	return e
}

func (q *sequence) decodeField(c Change, entries map[uint64]*entry) error {
	n, err := strconv.ParseUint(c.Field[1:], 10, 64)
	if err != nil || n > q.pages.next {
		return fmt.Errorf("%w: field %q", errCorrupt, c.Field)
	}
	switch c.Field[0] {
	case 'k':
		q.pages.keeps[n] = c.Value
		return nil
	case 'p':
	default:
		return fmt.Errorf("%w: field %q", errCorrupt, c.Field)
	}
	if n > q.pages.next/pageRecords || !q.pages.live.near(n) {
		return fmt.Errorf("%w: page %d of %d records", errCorrupt, n, q.pages.next)
	}
	d := decoder{b: c.Value}
	read := d.entry
	if q.carries {
		read = d.carrier
	}
	seq := n * pageRecords
	for ; len(d.b) > 0 && !d.bad; seq++ {
		e := read()
		e.seq = seq
		entries[seq] = e
		q.pages.live.add(n, 1)
	}
	if seq > q.pages.next || seq-n*pageRecords > pageRecords {
		return fmt.Errorf("%w: page %d has too many records", errCorrupt, n)
	}
	if n == q.pages.next/pageRecords {
		q.pages.tail = slices.Clone(c.Value)
	}
	return d.end("page")
}

// restore tells events that are held from those that wait and those that have
// gone.
func (q *sequence) restore(entries map[uint64]*entry, held []byte) error {
	d := decoder{b: held}
	for last := uint64(0); len(d.b) > 0; {
		last += uint64(d.varint())
		e := entries[last]
		if e == nil {
			return fmt.Errorf("%w: an event that is held is not there", errCorrupt)
		}
		delete(entries, last)
		q.held = append(q.held, e)
	}
	for seq, e := range entries {
		if q.hasTaken(e) || e.time < q.frontier { // or it has gone before its turn
			q.pages.drop(seq)
			continue
		}
		q.waiting = append(q.waiting, e)
	}
	slices.SortFunc(q.waiting, compareEntries)
	slices.SortFunc(q.held, compareEntries)
	q.latest()
	for _, e := range slices.Concat(q.held, q.waiting) {
		if _, ok := q.pages.keeps[e.seq]; ok {
			q.whole = append(q.whole, e)
		}
	}
	if d.bad || !q.spec.triggered() && len(q.held) > 1 {
		return fmt.Errorf("%w: field sh", errCorrupt)
	}
	q.thinAll()
	switch m := q.machine.(type) {
	case *novelty:
		m.loaded()
		m.review()
	case *rate:
		return m.loaded()
	}
	return nil
}

// latest leaves of copies that wait the one that was stored last.
func (q *sequence) latest() {
	left := q.waiting[:0]
	for _, e := range q.waiting {
		n := len(left)
		switch {
		case n == 0 || compareEntries(left[n-1], e) != 0:
			left = append(left, e)
		case e.seq > left[n-1].seq:
			q.pages.drop(left[n-1].seq)
			left[n-1] = e
		default:
			q.pages.drop(e.seq)
		}
	}
	q.waiting = left
}

// hasTaken reports whether an event's turn has passed.
func (q *sequence) hasTaken(e *entry) bool {
	return q.taken.id != "" && compareEntries(e, q.taken) <= 0
}
