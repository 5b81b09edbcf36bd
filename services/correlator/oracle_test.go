package correlator

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
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
	suppress           int64
	min, rules         int
	strict             bool
	// Defects, for the test of the test.
	ignoreIngest bool
}

// oracleRecord is one record of a group.
type oracleRecord struct {
	event        string
	time, ingest int64
	rules        map[int]bool
	value        string
}

// alerts names the buckets that fire: those of events that qualify.
func (r *oracleRule) alerts(tenant string, group []string, recs []oracleRecord) map[string]bool {
	width := r.timespan
	if r.suppress > 0 {
		width = r.suppress
	}
	out := make(map[string]bool)
	for _, e := range recs {
		bucket := e.time / width
		if e.time < 0 && e.time%width != 0 {
			bucket--
		}
		id := oracleHash("stormbell-alert-1", append(append([]string{tenant, r.id, r.revision}, group...), strconv.FormatInt(bucket, 10))...)
		if !out[id] && r.qualifies(e, recs) {
			out[id] = true
		}
	}
	return out
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
			if e.time-r.timespan <= x.time && x.time <= e.time && (near || r.ignoreIngest) {
				set = append(set, x)
			}
		}
		if r.holds(set) {
			return true
		}
	}
	return false
}

func (r *oracleRule) holds(set []oracleRecord) bool {
	ids, values, rules := map[string]bool{}, map[string]bool{}, map[int]bool{}
	for _, x := range set {
		ids[x.event], values[x.value] = true, true
		for i := range x.rules {
			rules[i] = true
		}
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
