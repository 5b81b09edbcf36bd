// Package oracle recomputes, from the accepted records and the rule files,
// which alerts must exist and what their ids are. It is slow, simple and meant
// to be read: it shares no code with the matcher, the windows or the services.
//
// It knows a subset of Sigma (equality, lists, contains, startswith, endswith;
// and, or, not, brackets) and the correlations event_count, value_count,
// temporal and temporal_ordered with a lower bound, of detections and of each
// other. Of the kinds that Sigma does not have it knows absence, new_value, rate and
// impossible_travel (between some regions), which the watermark decides: it takes
// them as decided, all of them; and risk, which fires at once. What else a rule
// holds it refuses, so that it is never wrong in silence.
package oracle

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// marginMS is the part of R that is for clocks: R = T + L + 5 min.
const marginMS = 5 * 60 * 1000

// A Record is one record of the topic `events`. A tick has nothing but its
// place and its ingest time.
type Record struct {
	Partition int
	Offset    int64
	Tick      bool

	ID, Tenant                 string
	Product, Service, Category string
	StrictLogsource            bool
	TimeMS, IngestMS           int64
	Raw                        []byte
}

// Settings are what the pipeline was configured with.
type Settings struct {
	// LatenessMS is L of rules that have none of their own, SlackMS is S.
	LatenessMS, SlackMS int64
	// Revisions names, by rule id, the revision that goes into ids. They are
	// names to the oracle, which could not derive them without the engine.
	Revisions map[string]string
}

// An Alert is one that must exist.
type Alert struct {
	ID, Tenant, RuleID string
	// Group and Bucket are empty for a detection rule, and Bucket where each
	// event has an alert of its own.
	Group  []string
	Bucket int64
	// EventID is one event that qualifies.
	EventID string
}

// Alerts returns what rules find in records, by alert id. Records may come in
// any order.
func Alerts(rules []Rule, records []Record, s Settings) (map[string]Alert, error) {
	plan, err := link(rules, s.Revisions)
	if err != nil {
		return nil, err
	}
	found := map[string]Alert{}
	said := map[string][]signal{} // by the rule that says it
	for _, r := range raised(records, s.SlackMS) {
		doc, err := parse(r.Raw)
		if err != nil {
			return nil, fmt.Errorf("event %s: %w", r.ID, err)
		}
		for _, rule := range plan.detections {
			if !rule.appliesTo(&r) {
				continue
			}
			ok, err := rule.matches(doc)
			if err != nil {
				return nil, fmt.Errorf("rule %s, event %s: %w", rule.ID, r.ID, err)
			}
			if !ok {
				continue
			}
			said[rule.ID] = append(said[rule.ID], signal{record: &r, doc: doc})
			if plan.alerts[rule.ID] {
				id := hash(ofBuckets, r.Tenant, rule.ID, s.Revisions[rule.ID], r.ID)
				found[id] = Alert{ID: id, Tenant: r.Tenant, RuleID: rule.ID, EventID: r.ID}
			}
		}
	}
	for _, c := range plan.correlations { // what one refers to comes before it
		groups, err := plan.collect(c, said)
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", c.ID, err)
		}
		for _, g := range groups {
			out := found
			if !plan.alerts[c.ID] {
				out = map[string]Alert{}
			}
			evaluate := g.evaluate
			if c.deciders()[c.kind] != nil {
				evaluate = g.decide
			}
			qualify, err := evaluate(s, out, plan.parents[c.ID])
			if err != nil {
				return nil, fmt.Errorf("rule %s: %w", c.ID, err)
			}
			said[c.ID] = append(said[c.ID], qualify...)
		}
	}
	return found, nil
}

// raised returns the events with the ingest times that count: none lies below
// the watermark of its partition, which is the greatest ingest time before it
// less S.
func raised(records []Record, slackMS int64) []Record {
	ordered := slices.Clone(records)
	slices.SortFunc(ordered, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	greatest := map[int]int64{}
	var events []Record
	for _, r := range ordered {
		most, seen := greatest[r.Partition]
		if seen && !r.Tick {
			r.IngestMS = max(r.IngestMS, most-slackMS)
		}
		if !seen || r.IngestMS > most {
			greatest[r.Partition] = r.IngestMS
		}
		if !r.Tick {
			events = append(events, r)
		}
	}
	return events
}

// evaluate tries every event of the group, in order of time, against the
// window that ends at it. It returns those that qualify, where somebody asks.
func (g *group) evaluate(s Settings, found map[string]Alert, asked bool) (qualify []signal, err error) {
	slices.SortFunc(g.hits, func(a, b hit) int {
		return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.id, b.id), cmp.Compare(a.ingest, b.ingest))
	})
	lateness := s.LatenessMS
	if g.rule.lateness >= 0 {
		lateness = g.rule.lateness
	}
	spread := g.rule.timespan + lateness + marginMS
	from, to := 0, 0
	for _, e := range g.hits {
		for g.hits[from].time < e.time-g.rule.timespan {
			from++
		}
		for to < len(g.hits) && g.hits[to].time <= e.time {
			to++
		}
		bucket := floorDiv(e.time, cmp.Or(g.rule.suppress, g.rule.timespan))
		id := g.id(s, ofBuckets, strconv.FormatInt(bucket, 10))
		_, known := found[id]
		if known && !asked {
			continue
		}
		ok, err := g.rule.qualifies(e, g.hits[from:to], spread)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if !known {
			found[id] = Alert{ID: id, Tenant: g.tenant, RuleID: g.rule.ID, Group: g.values, Bucket: bucket, EventID: e.of.record.ID}
		}
		e.of.alert = id
		qualify = append(qualify, e.of)
	}
	return qualify, nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// Labels of ids: of alerts of buckets and of single events.
const (
	ofBuckets = "stormbell-alert-1"
	ofEvents  = "stormbell-occurrence-1"
)

// id is that of an alert of the group for a bucket or an event.
func (g *group) id(s Settings, label, of string) string {
	parts := append([]string{g.tenant, g.rule.ID, s.Revisions[g.rule.ID]}, g.values...)
	return hash(label, append(parts, of)...)
}

// hash is the documented layout of an alert's id: the first 20 bytes of the
// SHA-256 over the label and the parts, each preceded by its length in four
// bytes big-endian, as lower-case base32hex.
func hash(label string, parts ...string) string {
	var b []byte
	for _, p := range append([]string{label}, parts...) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	sum := sha256.Sum256(b)
	return strings.ToLower(base32.HexEncoding.EncodeToString(sum[:20]))
}
