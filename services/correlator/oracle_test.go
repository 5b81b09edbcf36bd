package correlator

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// The oracle recomputes, from the definition and by trying everything, which
// alerts a set of accepted records adds up to. It shares no code with window.

// oracleRule is a correlation as the oracle sees it.
type oracleRule struct {
	id, revision, kind string
	timespan, lateness int64
	own                bool // the lateness, whatever sources say
	suppress           int64
	min, rules         int
	strict             bool
	// The rest is of rules that testRules do not have. Where bounds or holds are
	// there and once is not, the watermark decides.
	bounds     []oracleBound
	percentile string
	expr       func(seen map[int]bool) bool
	once       bool
	window     string // tumbling or session
	updates    bool
	gap        int64
	// Defects, for the test of the test.
	ignoreIngest bool
}

type oracleBound struct {
	op     string
	number string
}

// oracleRecord is one record of a group.
type oracleRecord struct {
	event        string
	time, ingest int64
	late, early  bool
	rules        map[int]bool
	value        string
}

// decided reports whether the watermark decides.
func (r *oracleRule) decided() bool {
	return !r.once && (len(r.bounds) > 0 || r.expr != nil || r.window == "session")
}

// alerts names the buckets that fire, now that the watermark has come to w:
// those of events that qualify.
func (r *oracleRule) alerts(tenant string, group []string, recs []oracleRecord, w int64) map[string]bool {
	recs = r.counted(recs)
	out := make(map[string]bool)
	for _, e := range recs {
		bucket := r.bucket(e.time)
		qualifies := func() bool { return r.qualifies(e, recs) }
		if r.decided() {
			set, at, closes := r.set(e, recs)
			if closes+r.lateness >= w {
				continue
			}
			bucket = oracleFloor(at, r.width())
			qualifies = func() bool { return r.holds(set, e) }
		}
		id := oracleHash("stormbell-alert-1", append(append([]string{tenant, r.id, r.revision}, group...), strconv.FormatInt(bucket, 10))...)
		if !out[id] && qualifies() {
			out[id] = true
		}
	}
	if r.updates {
		r.closes(recs, w, func(bucket int64, update string) {
			id := oracleHash("stormbell-alert-1", append(append([]string{tenant, r.id, r.revision}, group...), strconv.FormatInt(bucket, 10))...)
			out[id+update] = true
		})
	}
	return out
}

// closes says what buckets came to that the watermark has closed: of the records
// that are neither late nor early, in order of time and event, the first in a
// bucket that completes the condition, and all from its window's start to the
// bucket's end, where there are more events than up to it, or later ones.
func (r *oracleRule) closes(recs []oracleRecord, w int64, update func(bucket int64, text string)) {
	var timely []oracleRecord
	for _, x := range recs {
		if -5*60_000 <= x.ingest-x.time && x.ingest-x.time <= r.lateness {
			timely = append(timely, x)
		}
	}
	slices.SortStableFunc(timely, func(a, b oracleRecord) int {
		return cmp.Or(cmp.Compare(a.time, b.time), strings.Compare(a.event, b.event), cmp.Compare(oracleRules64(a), oracleRules64(b)))
	})
	seen := make(map[int64]bool)
	for i, q := range timely {
		bucket, from := r.bucket(q.time), q.time-r.timespan
		if r.window == "tumbling" {
			from = oracleFloor(q.time, r.timespan) * r.timespan
		}
		var before, all []oracleRecord
		closed := true
		for k, x := range timely {
			if x.time < from || r.bucket(x.time) > bucket {
				continue
			}
			if all = append(all, x); k <= i {
				before = append(before, x)
			}
		}
		for t := q.time; closed && r.bucket(t) == bucket; t += 1000 { // all times of rules are whole seconds
			closed = (oracleFloor(t, 1000)+1)*1000+r.lateness <= w
		}
		if !closed || seen[bucket] || !r.holds(before, q) {
			continue
		}
		seen[bucket] = true
		distinct := func(set []oracleRecord) int {
			ids := make(map[string]bool)
			for _, x := range set {
				ids[x.event] = true
			}
			return len(ids)
		}
		if last := all[len(all)-1].time; distinct(all) > distinct(before) || last > q.time {
			update(bucket, fmt.Sprintf(" updated, %d events from %d to %d", distinct(all), all[0].time, last))
		}
	}
}

func oracleRules64(x oracleRecord) (bits int) {
	for i := range x.rules {
		bits |= 1 << i
	}
	return bits
}

func (r *oracleRule) width() int64 { return max(r.timespan, r.suppress) }

func (r *oracleRule) bucket(t int64) int64 {
	if r.window == "tumbling" {
		t = oracleFloor(t, r.timespan) * r.timespan
	}
	return oracleFloor(t, r.width())
}

func oracleFloor(a, b int64) int64 {
	q := a / b
	if a < 0 && a%b != 0 {
		q--
	}
	return q
}

// counted leaves out what the rule leaves out.
func (r *oracleRule) counted(recs []oracleRecord) (out []oracleRecord) {
	for _, x := range recs {
		if r.decided() && (x.late && !r.own || x.early || x.ingest-x.time > r.lateness) {
			continue
		}
		if strings.HasPrefix(r.kind, "value_") && r.kind != "value_count" && !r.share() {
			n, ok := new(big.Rat).SetString(x.value)
			if !ok || r.once && n.Sign() < 0 {
				continue
			}
		}
		out = append(out, x)
	}
	return out
}

func (r *oracleRule) share() bool { return r.kind == "value_percentile" && r.percentile == "" }

// set is the window by which the watermark decides an event, the time that its
// bucket goes by, and the event time after which nothing can come into it.
func (r *oracleRule) set(e oracleRecord, recs []oracleRecord) (set []oracleRecord, at, closes int64) {
	from, to := e.time-r.timespan, e.time
	at, closes = e.time, e.time
	switch r.window {
	case "tumbling":
		from = oracleFloor(e.time, r.timespan) * r.timespan
		to = from + r.timespan - 1
		at, closes = from, to
	case "session":
		from, to, closes = r.session(e, recs)
		at = from
	}
	for _, x := range recs {
		if from <= x.time && x.time <= to {
			set = append(set, x)
		}
	}
	return set, at, closes
}

// session is from where to where the session of an event goes, and when it can't
// grow any more.
func (r *oracleRule) session(e oracleRecord, recs []oracleRecord) (from, to, closes int64) {
	times := make([]int64, 0, len(recs))
	for _, x := range recs {
		times = append(times, x.time)
	}
	slices.Sort(times)
	run := times[0]
	from, to = run, run
	cut := run + r.timespan // the last event time of the session
	for i, t := range times {
		if i > 0 && t-times[i-1] > r.gap || t > cut {
			if from <= e.time && e.time <= to {
				break
			}
			if i > 0 && t-times[i-1] > r.gap {
				run = t
				cut = run + r.timespan
			} else {
				cut = (oracleFloor(t, r.timespan)+1)*r.timespan - 1
			}
			from = t
		}
		to = t
	}
	return from, to, min(to+r.gap, cut)
}

// qualifies tries every stretch of ingest times of length R that holds e.
func (r *oracleRule) qualifies(e oracleRecord, recs []oracleRecord) bool {
	reach := r.timespan + r.lateness + 5*60_000
	for _, begin := range recs {
		if begin.ingest > e.ingest || e.ingest > begin.ingest+reach {
			continue
		}
		var set []oracleRecord
		for _, x := range recs {
			near := begin.ingest <= x.ingest && x.ingest <= begin.ingest+reach
			within := e.time-r.timespan <= x.time && x.time <= e.time
			if r.window == "tumbling" {
				within = oracleFloor(x.time, r.timespan) == oracleFloor(e.time, r.timespan)
			}
			if within && (near || r.ignoreIngest) {
				set = append(set, x)
			}
		}
		if r.holds(set, e) {
			return true
		}
	}
	return false
}

// meets compares a measure with every bound.
func (r *oracleRule) meets(x *big.Rat) bool {
	for _, b := range r.bounds {
		n, _ := new(big.Rat).SetString(b.number)
		c := x.Cmp(n)
		if !map[string]bool{"gt": c > 0, "gte": c >= 0, "lt": c < 0, "lte": c <= 0, "eq": c == 0, "neq": c != 0}[b.op] {
			return false
		}
	}
	return true
}

// numbers gives the numbers of a set, one of each event and the greatest of it,
// in order.
func (r *oracleRule) numbers(set []oracleRecord) (out []*big.Rat) {
	greatest := map[string]*big.Rat{}
	for _, x := range set {
		if n, _ := new(big.Rat).SetString(x.value); greatest[x.event] == nil || n.Cmp(greatest[x.event]) > 0 {
			greatest[x.event] = n
		}
	}
	for _, n := range greatest {
		out = append(out, n)
	}
	slices.SortFunc(out, (*big.Rat).Cmp)
	return out
}

func (r *oracleRule) measure(set []oracleRecord, e oracleRecord) *big.Rat {
	if r.share() {
		all, same := map[string]bool{}, map[string]bool{}
		for _, x := range set {
			all[x.event] = true
			same[x.event] = same[x.event] || x.value == e.value
		}
		n := int64(0)
		for _, is := range same {
			if is {
				n++
			}
		}
		return big.NewRat(100*n, int64(len(all)))
	}
	sorted, sum := r.numbers(set), new(big.Rat)
	for _, n := range sorted {
		sum.Add(sum, n)
	}
	switch r.kind {
	case "value_sum":
		return sum
	case "value_avg":
		return sum.Quo(sum, big.NewRat(int64(len(sorted)), 1))
	}
	p := r.percentile
	if r.kind == "value_median" {
		p = "50"
	}
	rank, _ := new(big.Rat).SetString(p)
	rank.Mul(rank, big.NewRat(int64(len(sorted)-1), 100))
	at := new(big.Int).Quo(rank.Num(), rank.Denom()).Int64()
	x := new(big.Rat).Set(sorted[at])
	if part := rank.Sub(rank, big.NewRat(at, 1)); part.Sign() > 0 {
		x.Add(x, part.Mul(part, new(big.Rat).Sub(sorted[at+1], x)))
	}
	return x
}

func (r *oracleRule) holds(set []oracleRecord, e oracleRecord) bool {
	ids, values, rules := map[string]bool{}, map[string]bool{}, map[int]bool{}
	for _, x := range set {
		ids[x.event], values[x.value] = true, true
		for i := range x.rules {
			rules[i] = true
		}
	}
	switch {
	case r.expr != nil:
		return r.expr(rules)
	case len(r.bounds) > 0:
		switch r.kind {
		case "event_count":
			return r.meets(big.NewRat(int64(len(ids)), 1))
		case "value_count":
			return r.meets(big.NewRat(int64(len(values)), 1))
		case "temporal":
			return r.meets(big.NewRat(int64(len(rules)), 1))
		case "temporal_ordered":
			n := *r
			n.bounds, n.min = nil, 1
			for n.min <= r.rules && n.holds(set, e) {
				n.min++
			}
			return r.meets(big.NewRat(int64(n.min-1), 1))
		}
		return r.meets(r.measure(set, e))
	}
	switch r.kind {
	case "event_count":
		return len(ids) >= r.min
	case "value_count":
		return len(values) >= r.min
	case "temporal":
		return len(rules) >= r.min
	case "temporal_ordered":
		if len(rules) < r.min {
			return false
		}
		byTime := slices.Clone(set)
		slices.SortFunc(byTime, func(a, b oracleRecord) int { return int(a.time - b.time) })
		return r.chain(byTime, map[string]bool{}, nil, 0, 0)
	}
	panic("unknown kind " + r.kind)
}

// chain tries every way to meet min rules in listed order by distinct events.
func (r *oracleRule) chain(set []oracleRecord, used map[string]bool, last *oracleRecord, rule, met int) bool {
	if met == r.min {
		return true
	}
	for i := rule; i < r.rules; i++ {
		for k := range set {
			x := &set[k]
			if !x.rules[i] || used[x.event] || last != nil && (x.time < last.time || r.strict && x.time == last.time) {
				continue
			}
			used[x.event] = true
			if r.chain(set, used, x, i+1, met+1) {
				return true
			}
			delete(used, x.event)
		}
	}
	return false
}

func oracleHash(label string, parts ...string) string {
	var b []byte
	for _, p := range append([]string{label}, parts...) {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
	}
	sum := sha256.Sum256(b)
	return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:20]))
}
