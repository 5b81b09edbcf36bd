package correlator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// unseen is the watermark of an upstream that has not spoken yet.
const unseen = math.MinInt64

// maxLevel is the deepest chain level that a watermark may name, and
// maxUpstream the highest partition: bounds against records that are not ours.
const (
	maxLevel    = 16
	maxUpstream = 1 << 14
)

// upstream is a partition that feeds this one, at a chain level.
type upstream struct {
	level     uint32
	partition int32
}

// mark is what an upstream has said last: that all below next has been read
// here, and that nothing with an ingest time below watermark follows.
type mark struct{ next, watermark int64 }

// marks are what all upstreams have said. They are part of the folded state.
type marks map[upstream]mark

// raise takes what an upstream says, and reports whether anything grew. Both
// figures only ever grow: whoever speaks late, or again, changes nothing.
func (m marks) raise(u upstream, next, watermark int64) bool {
	was, ok := m[u]
	if !ok {
		was = mark{watermark: unseen}
	}
	now := mark{next: max(was.next, next), watermark: max(was.watermark, watermark)}
	m[u] = now
	return !ok || now != was
}

// next is the offset below which records of an upstream have all been read.
func (m marks) next(u upstream) int64 { return m[u].next }

// watermark is the least of the n upstreams of a level; one that has not
// spoken holds it at −∞.
func (m marks) watermark(level uint32, n int) int64 {
	least := int64(math.MaxInt64)
	for p := range n {
		w, ok := m[upstream{level, int32(p)}]
		if !ok {
			return unseen
		}
		least = min(least, w.watermark)
	}
	if n == 0 {
		return unseen
	}
	return least
}

// metaVersion is that of meta's encoding: fields with protowire tags. Version 1,
// which is still read, had the look-back and the marks.
const metaVersion = 2

// Fields of meta.
const (
	metaLookBack protowire.Number = iota + 1
	metaMarks
	metaReigns

	metaLevels protowire.Number = 30
	metaReach  protowire.Number = 31 // one for each level from 1 on
)

// meta is what the store keeps beside the groups.
type meta struct {
	marks marks
	// lookBack is the largest look-back, in milliseconds, of any rule that was
	// folded into the state.
	lookBack int64
	// reigns are the changes of rules that windows may still be cut by.
	reigns reigns
	// levels is up to which chain level correlations signal to others.
	levels uint32
	// reach is, by chain level, the largest reach of the correlations of that
	// level which signal to others: how far a signal may lag behind its cause.
	reach [maxLevel + 1]int64
}

func (m *meta) encode() []byte {
	b := protowire.AppendTag([]byte{metaVersion}, metaLookBack, protowire.VarintType)
	b = protowire.AppendVarint(b, protowire.EncodeZigZag(m.lookBack))
	b = protowire.AppendBytes(protowire.AppendTag(b, metaMarks, protowire.BytesType), m.marks.append(nil))
	if len(m.reigns) > 0 {
		b = protowire.AppendBytes(protowire.AppendTag(b, metaReigns, protowire.BytesType), m.reigns.append(nil))
	}
	if m.levels > 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, metaLevels, protowire.VarintType), uint64(m.levels))
		for _, r := range m.reach[1 : m.levels+1] {
			b = protowire.AppendVarint(protowire.AppendTag(b, metaReach, protowire.VarintType), uint64(r))
		}
	}
	return b
}

// clone returns a copy that shares nothing.
func (m *meta) clone() meta {
	c := *m
	c.marks, c.reigns = maps.Clone(m.marks), slices.Clone(m.reigns)
	return c
}

func decodeMeta(b []byte) (meta, error) {
	if len(b) == 0 {
		return meta{marks: make(marks)}, nil
	}
	switch b[0] {
	case 1:
		back, size := binary.Varint(b[1:])
		if size <= 0 {
			return meta{}, errMarks
		}
		m, err := decodeMarks(b[1+size:])
		return meta{marks: m, lookBack: back}, err
	case metaVersion:
		return decodeFields(b[1:])
	default:
		return meta{}, fmt.Errorf("state of version %d, this correlator reads %d: flush the store, the log rebuilds it", b[0], metaVersion)
	}
}

func decodeFields(b []byte) (m meta, err error) {
	m.marks = make(marks)
	reached := 0
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return meta{}, errMarks
		}
		b = b[n:]
		var v []byte
		switch {
		case num == metaLookBack && typ == protowire.VarintType:
			var back uint64
			if back, n = protowire.ConsumeVarint(b); n >= 0 {
				m.lookBack = protowire.DecodeZigZag(back)
			}
		case num == metaMarks && typ == protowire.BytesType:
			if v, n = protowire.ConsumeBytes(b); n >= 0 {
				m.marks, err = decodeMarks(v)
			}
		case num == metaReigns && typ == protowire.BytesType:
			if v, n = protowire.ConsumeBytes(b); n >= 0 {
				m.reigns, err = decodeReigns(v)
			}
		case (num == metaLevels || num == metaReach) && typ == protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(b); n < 0 {
				break
			}
			switch {
			case num == metaLevels && v <= maxLevel:
				m.levels = uint32(v)
			case num == metaReach && reached < maxLevel && int64(v) >= 0:
				reached++
				m.reach[reached] = int64(v)
			default:
				err = errMarks
			}
		default:
			// What is not known decides about windows, and cannot be passed over.
			return meta{}, fmt.Errorf("state has a field %d that this correlator does not know: run the newer one, or flush the store", num)
		}
		if n < 0 {
			err = errMarks
		}
		if err != nil {
			return meta{}, err
		}
		b = b[n:]
	}
	return m, nil
}

func (m marks) append(b []byte) []byte {
	keys := slices.SortedFunc(maps.Keys(m), func(a, b upstream) int {
		if a.level != b.level {
			return int(a.level) - int(b.level)
		}
		return int(a.partition) - int(b.partition)
	})
	b = binary.AppendUvarint(b, uint64(len(keys)))
	for _, k := range keys {
		b = binary.AppendUvarint(b, uint64(k.level))
		b = binary.AppendVarint(b, int64(k.partition))
		b = binary.AppendVarint(b, m[k].next)
		b = binary.AppendVarint(b, m[k].watermark)
	}
	return b
}

func decodeMarks(b []byte) (marks, error) {
	m := make(marks)
	n, size := binary.Uvarint(b)
	if size <= 0 || n > maxLevel*maxUpstream {
		return nil, errMarks
	}
	b = b[size:]
	for range n {
		var f [4]int64
		level, size := binary.Uvarint(b)
		if size <= 0 || level > maxLevel {
			return nil, errMarks
		}
		b = b[size:]
		for i := range 3 {
			if f[i], size = binary.Varint(b); size <= 0 {
				return nil, errMarks
			}
			b = b[size:]
		}
		if f[0] < 0 || f[0] >= maxUpstream {
			return nil, errMarks
		}
		m[upstream{uint32(level), int32(f[0])}] = mark{f[1], f[2]}
	}
	return m, nil
}

var errMarks = errors.New("damaged watermarks in the store: flush it, the log rebuilds it")

// progress travels as metadata of a commit.
type progress struct {
	// ingest is, at stage detect, the greatest ingest time below the offset.
	ingest int64
	// watermark is, at stage correlate, W at the frontier; lookBack how far
	// before it a rebuild has to read. Both in milliseconds.
	watermark, lookBack int64
	// ruled is, at stage detect, what readRuled reads.
	ruled string
	// levels is, at stage detect, up to which chain level correlations signal to
	// others by the rules seen so far.
	levels uint32
	// signals are, at stage correlate, the watermarks of this partition's signals
	// by level, up to the one that is 0. They are not committed.
	signals signals
	// trial is there only where owners have begun and not got anywhere yet.
	trial trial
}

func (p progress) String() string {
	ruled := ""
	if p.ruled != "" {
		ruled = " ruled=" + p.ruled
	}
	if p.levels > 0 {
		ruled = fmt.Sprintf(" levels=%d%s", p.levels, ruled)
	}
	return fmt.Sprintf("v1 ingest=%d w=%d back=%d%s%s", p.ingest, p.watermark, p.lookBack, p.trial, ruled)
}

// parseProgress reads the metadata of a commit; ok is false where there is
// none, or another version's.
func parseProgress(s string) (p progress, ok bool) {
	p = progress{ingest: unseen, watermark: unseen}
	parts := strings.Fields(s)
	if len(parts) == 0 || parts[0] != "v1" {
		return p, false
	}
	for _, part := range parts[1:] {
		name, text, _ := strings.Cut(part, "=")
		if name == "ruled" {
			p.ruled = text
			continue
		}
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return progress{ingest: unseen, watermark: unseen}, false
		}
		switch name {
		case "ingest":
			p.ingest = v
		case "w":
			p.watermark = v
		case "back":
			p.lookBack = v
		case "levels":
			p.levels = uint32(min(max(v, 0), maxLevel))
		case "tries":
			p.trial.tries = v
		case "until":
			p.trial.until = v
		case "suspect":
			p.trial.suspect = v
		case "size":
			p.trial.size = v
		case "count":
			p.trial.count = v
		}
	}
	return p, true
}
