package window

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Change is one field of a group's stored state: its new value, or nil where
// the field is to be deleted.
//
// A group is stored as a map of fields: "m" holds the fired marks, counters and
// what is left to tell, "pN" a page of 64 records in order of arrival, "kN" the
// event of record N that is kept whole. Pages are written once when full, so that a batch writes what
// it added and not the whole group. A page goes when its last record is
// dropped; records that were dropped before reappear in Decode and the next
// Advance drops them again.
type Change struct {
	Field string
	Value []byte
}

const (
	stateVersion = 1
	// floorVersion is that of a group that knows of records that have gone: a
	// correlator that knows nothing of that must not read it.
	floorVersion = 2
	pageRecords  = 64
)

// errCorrupt is wrapped by every error of Decode.
var errCorrupt = errors.New("corrupt group state")

// pages tracks what of a group has to be stored.
type pages struct {
	next   uint64 // sequence number of the next record
	stored uint64 // that of the first record that Changes has not told yet
	tail   []byte // the page that is being filled
	live   pageCounts
	full   []Change // pages filled since the last call of Changes
	gone   []uint64 // pages emptied since
	keeps  map[uint64][]byte
	rekept map[uint64]struct{} // keeps changed since
	dirty  bool                // the tail has grown
	meta   bool                // marks or counters have changed
	// unstored: nobody asks for changes. objects are like keeps then.
	unstored bool
	objects  objects
	carriers
}

// objects are what is kept whole of a few records, by sequence numbers.
type objects []object

type object struct {
	seq uint64
	of  any
}

func (o objects) at(seq uint64) any {
	for i := range o {
		if o[i].seq == seq {
			return o[i].of
		}
	}
	return nil
}

func (o *objects) put(seq uint64, of any) {
	if of != nil {
		*o = append(*o, object{seq, of})
	}
}

func (o *objects) remove(seq uint64) {
	for i := range *o {
		if (*o)[i].seq == seq {
			last := len(*o) - 1
			(*o)[i], (*o)[last] = (*o)[last], object{}
			*o = (*o)[:last]
			return
		}
	}
}

func (p *pages) init() {
	p.keeps = map[uint64][]byte{}
	p.rekept = map[uint64]struct{}{}
}

func (p *pages) append(r *record, of *Record) uint64 {
	if !p.unstored {
		p.tail = appendRecord(p.tail, r, of)
	}
	p.carry(p.next, of.Carry)
	return p.appended()
}

// appended counts the record that the tail has got.
func (p *pages) appended() uint64 {
	seq := p.next
	p.next++
	if p.unstored {
		p.tail = p.tail[:0]
		return seq
	}
	p.live.add(seq/pageRecords, 1)
	p.dirty, p.meta = true, true
	if p.next%pageRecords == 0 {
		p.full = append(p.full, Change{Field: pageField(seq / pageRecords), Value: p.tail})
		// The next page will take about as much.
		p.tail, p.dirty = make([]byte, 0, len(p.tail)+len(p.tail)/8), false
	}
	return seq
}

func (p *pages) drop(seq uint64) {
	p.unkeep(seq)
	p.carriers.drop(seq)
	if p.unstored {
		return
	}
	n := seq / pageRecords
	if p.live.add(n, -1) > 0 || n == p.next/pageRecords {
		return
	}
	p.gone = append(p.gone, n)
	p.dropPage(n)
}

// pageCounts is how many records of each page are left. Pages come and, by and
// large, go in order.
type pageCounts struct {
	first  uint64 // page that counts[0] is of
	counts []int32
}

// add changes the count of a page and returns what it is then.
func (c *pageCounts) add(n uint64, change int32) int32 {
	switch {
	case len(c.counts) == 0:
		c.first, c.counts = n, append(c.counts, 0)
	case n < c.first:
		c.counts = slices.Insert(c.counts, 0, make([]int32, c.first-n)...)
		c.first = n
	}
	for n >= c.first+uint64(len(c.counts)) {
		c.counts = append(c.counts, 0)
	}
	at := &c.counts[n-c.first]
	*at += change
	left := *at
	for len(c.counts) > 1 && c.counts[0] == 0 {
		c.first, c.counts = c.first+1, c.counts[1:]
	}
	return left
}

// maxApart is how far apart pages may lie: a thousand million records that
// came and went while one stayed.
const maxApart = 1 << 24

// near reports whether a page that a store names can belong to the others.
func (c *pageCounts) near(n uint64) bool {
	last := c.first + uint64(len(c.counts))
	return len(c.counts) == 0 || (n <= c.first+maxApart && n+maxApart >= last)
}

func (p *pages) keep(seq uint64, blob []byte) {
	if len(blob) == 0 {
		return
	}
	if p.keeps[seq] = blob; !p.unstored {
		p.rekept[seq] = struct{}{}
	}
}

func (p *pages) unkeep(seq uint64) {
	p.objects.remove(seq)
	if _, ok := p.keeps[seq]; !ok {
		return
	}
	delete(p.keeps, seq)
	if seq >= p.stored { // nobody has heard of it
		delete(p.rekept, seq)
		return
	}
	p.rekept[seq] = struct{}{}
}

// Changes appends what has changed since the last call, in a fixed order. The
// values are never changed afterwards.
func (g *Group) Changes(dst []Change) []Change {
	if g.sequence != nil {
		return g.sequence.changes(dst)
	}
	g.settle()
	meta := g.pages.meta
	g.pages.meta = false
	dst = g.pages.changes(dst)
	if meta {
		dst = append(dst, Change{Field: "m", Value: g.appendMeta(nil)})
	}
	return dst
}

// changes appends what has changed of pages and what is kept.
func (p *pages) changes(dst []Change) []Change {
	for _, c := range p.full {
		if !slices.ContainsFunc(p.gone, func(n uint64) bool { return pageField(n) == c.Field }) {
			dst = append(dst, c)
		}
	}
	if p.dirty { // what is appended to the tail later lies behind this
		dst = append(dst, Change{Field: pageField(p.next / pageRecords), Value: slices.Clip(p.tail)})
	}
	for _, n := range p.gone {
		dst = append(dst, Change{Field: pageField(n)})
	}
	var few [2 * shown]uint64
	seqs := few[:0]
	for seq := range p.rekept {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	for _, seq := range seqs {
		dst = append(dst, Change{Field: keepField(seq), Value: p.keeps[seq]})
	}
	dst = p.carriers.changes(dst)
	p.full, p.gone, p.dirty, p.stored = nil, nil, false, p.next
	clear(p.rekept)
	clear(p.changed)
	return dst
}

func (g *Group) appendMeta(b []byte) []byte {
	version := byte(stateVersion)
	if g.decider != nil && g.decider.missing.some() {
		version = floorVersion
	}
	b = append(b, version)
	b = binary.AppendUvarint(b, g.pages.next)
	if g.overflow {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	buckets := make([]int64, 0, len(g.fired))
	for k := range g.fired {
		buckets = append(buckets, k)
	}
	slices.Sort(buckets)
	b = binary.AppendUvarint(b, uint64(len(buckets)))
	for _, k := range buckets {
		b = binary.AppendVarint(b, k)
		b = binary.AppendVarint(b, g.fired[k])
	}
	if g.decider != nil {
		b = g.decider.append(b)
		if version == floorVersion {
			b = g.decider.missing.append(b)
		}
	}
	if g.spec.Updates {
		b = g.updates.append(b)
	}
	if rest := g.pages.rest; rest.left {
		b = binary.AppendVarint(binary.AppendVarint(b, rest.from), rest.to)
	}
	return b
}

// What follows a record's numbers.
const (
	hasValue = 1 << iota
	hasCarry
	hasTrace
	isLate
)

func appendRecord(b []byte, r *record, of *Record) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.id)))
	b = append(b, r.id...)
	b = binary.AppendVarint(b, r.time)
	b = binary.AppendVarint(b, r.ingest-r.time)
	b = binary.AppendUvarint(b, r.rules)
	at := len(b)
	b = append(b, 0)
	if r.value >= 0 {
		b[at] |= hasValue
		b = binary.AppendUvarint(b, uint64(len(of.Value)))
		b = append(b, of.Value...)
	}
	if len(of.Carry) > 0 {
		b[at] |= hasCarry
		b = binary.AppendUvarint(b, uint64(len(of.Carry)))
		b = append(b, of.Carry...)
	}
	if of.Trace != "" {
		b[at] |= hasTrace
		b = binary.AppendUvarint(b, uint64(len(of.Trace)))
		b = append(b, of.Trace...)
	}
	if r.late {
		b[at] |= isLate
	}
	return b
}

// Decode gives the group whose Changes, applied one after the other, led to
// fields, in any order; an empty group for none.
func Decode(spec *Spec, fields []Change) (*Group, error) {
	g := New(spec)
	if len(fields) == 0 {
		return g, nil
	}
	if g.sequence != nil {
		var err error
		g.sequence, err = decodeSequence(spec, fields)
		return g, err
	}
	i := slices.IndexFunc(fields, func(c Change) bool { return c.Field == "m" })
	if i < 0 {
		return nil, fmt.Errorf("%w: no field m", errCorrupt)
	}
	if err := g.decodeMeta(fields[i].Value); err != nil {
		return nil, err
	}
	var recs []record
	for _, c := range fields {
		if c.Field == "m" || c.Field == "" {
			continue
		}
		n, err := strconv.ParseUint(c.Field[1:], 10, 64)
		if err != nil || n > g.pages.next {
			return nil, fmt.Errorf("%w: field %q", errCorrupt, c.Field)
		}
		switch c.Field[0] {
		case 'p':
			recs, err = g.decodePage(recs, n, c.Value)
		case 'k':
			g.pages.keeps[n] = c.Value
		case 's':
			err = g.pages.decodeTold(n, c.Value)
		default:
			err = fmt.Errorf("%w: field %q", errCorrupt, c.Field)
		}
		if err != nil {
			return nil, err
		}
	}
	g.pages.recount()
	for i := range recs {
		r := &recs[i]
		r.untold = len(g.pages.carried[r.seq]) > 0 && !g.pages.isTold(r.seq)
	}
	slices.SortFunc(recs, func(a, b record) int { return compare(&a, &b) })
	g.recs.fill(recs)
	if g.decider != nil {
		g.decider.opened(g)
	}
	if g.spec.Updates {
		g.updates.opened(g)
	}
	g.reindex()
	g.schedule()
	return g, nil
}

func (g *Group) decodeMeta(b []byte) error {
	if len(b) == 0 || b[0] != stateVersion && b[0] != floorVersion {
		return fmt.Errorf("%w: version is not %d or %d", errCorrupt, stateVersion, floorVersion)
	}
	d := decoder{b: b[1:]}
	g.pages.next = d.uvarint()
	g.pages.stored = g.pages.next
	g.overflow = d.byte() == 1
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		return fmt.Errorf("%w: %d marks", errCorrupt, n)
	}
	for range n {
		bucket := d.varint()
		g.fired[bucket] = d.varint()
	}
	if g.decider != nil {
		g.decider.decode(&d)
		if b[0] == floorVersion {
			g.decider.missing.decode(&d)
		}
	}
	if g.spec.Updates {
		g.updates.decode(&d)
	}
	if len(d.b) > 0 {
		g.pages.rest = toTell{true, d.varint(), d.varint()}
	}
	return d.end("field m")
}

func (g *Group) decodePage(recs []record, n uint64, b []byte) ([]record, error) {
	if n > g.pages.next/pageRecords || !g.pages.live.near(n) {
		return nil, fmt.Errorf("%w: page %d of %d records", errCorrupt, n, g.pages.next)
	}
	d := decoder{b: b}
	seq := n * pageRecords
	for ; len(d.b) > 0 && !d.bad; seq++ {
		r := newRecord(string(d.bytes()))
		r.seq = seq
		r.time = d.varint()
		r.ingest = r.time + d.varint()
		r.rules = d.uvarint()
		flags := d.byte()
		if flags&hasValue != 0 {
			var ok bool
			if r.value, _, ok = g.values.intern(string(d.bytes())); !ok {
				return nil, fmt.Errorf("%w: page %d: a value that is no number", errCorrupt, n)
			}
		}
		if flags&hasCarry != 0 {
			g.pages.carry(seq, d.bytes())
		}
		if flags&hasTrace != 0 {
			if trace := d.bytes(); g.decider != nil && (r.time >= g.decider.closed || g.decider.open) {
				g.decider.traces[seq] = string(trace)
			}
		}
		if g.spec.tallied() && r.value < 0 {
			return nil, fmt.Errorf("%w: page %d: a record without a value", errCorrupt, n)
		}
		r.late = flags&isLate != 0
		recs = append(recs, r)
		g.ids.add(r.hash)
		g.pages.live.add(n, 1)
	}
	if seq > g.pages.next || seq-n*pageRecords > pageRecords {
		return nil, fmt.Errorf("%w: page %d has too many records", errCorrupt, n)
	}
	if n == g.pages.next/pageRecords {
		g.pages.tail = slices.Clone(b)
	}
	return recs, d.end("page")
}

// decoder reads varints and strings; after the first fault it yields zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) end(what string) error {
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: %s", errCorrupt, what)
	}
	return nil
}

func (d *decoder) fail() {
	d.bad, d.b = true, nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func pageField(n uint64) string   { return "p" + strconv.FormatUint(n, 10) }
func keepField(seq uint64) string { return "k" + strconv.FormatUint(seq, 10) }
