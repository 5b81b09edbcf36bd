package alert

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
)

const (
	// MaxBody is the largest webhook body, in bytes.
	MaxBody = 20_000
	// usualBody is about what most take.
	usualBody = 4 << 10
	// leastIDs of an alert's events are always named.
	leastIDs = 10
)

// timeLayout is RFC 3339 in UTC with milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Body is the webhook's body: {"type", "timestamp", "data"}. The same alert
// always gives the same bytes. An error means that the record does not hold
// what New made: an event in it is no JSON.
func Body(a *alertv1.Alert) ([]byte, error) {
	e := writer{out: make([]byte, 0, usualBody)}
	e.begin()
	e.str("type", TypeOf(a))
	e.time("timestamp", a.GetTimeMs())
	e.name("data")
	e.data(a)
	e.end()
	return e.bytes()
}

// Data is the `data` of the body alone, as `stormbell eval` prints it.
func Data(a *alertv1.Alert) ([]byte, error) {
	e := writer{out: make([]byte, 0, usualBody)}
	e.data(a)
	return e.bytes()
}

// fit leaves out whole events from the middle, then ids, until the body is
// within bounds.
func fit(a *alertv1.Alert) {
	raws := make([][]byte, len(a.GetEvents()))
	for i, e := range a.GetEvents() {
		raws[i], e.Event = e.GetEvent(), nil
	}
	room := MaxBody - size(a)
	for n := len(a.GetEvents()); room < 0 && n > leastIDs; n = len(a.GetEvents()) {
		keep := max(leastIDs, n/2)
		head := keep / 2
		a.Events = append(a.Events[:head:head], a.Events[n-(keep-head):]...)
		raws = append(raws[:head:head], raws[n-(keep-head):]...)
		a.Truncated = true
		room = MaxBody - size(a)
	}
	for _, i := range fromTheEnds(len(raws)) {
		if raws[i] == nil {
			continue
		}
		compact := jsontext.Value(bytes.Clone(raws[i]))
		if compact.Compact(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) != nil {
			a.Truncated = true
			continue
		}
		if need := len(compact) + len(`,"event":`); need <= room {
			a.Events[i].Event = compact
			room -= need
			continue
		}
		a.Truncated = true
	}
}

// fromTheEnds orders n places: last, first, last but one, second, and so on.
func fromTheEnds(n int) []int {
	out := make([]int, 0, n)
	for lo, hi := 0, n-1; lo <= hi; lo, hi = lo+1, hi-1 {
		out = append(out, hi)
		if lo != hi {
			out = append(out, lo)
		}
	}
	return out
}

func size(a *alertv1.Alert) int {
	was := a.GetTruncated()
	a.Truncated = false // the longer word
	b, err := Body(a)
	a.Truncated = was
	if err != nil {
		return MaxBody
	}
	return len(b)
}

// writer writes JSON members in a fixed order and holds the first error.
type writer struct {
	out  []byte
	more bool // what follows is not the first of its object or list
	err  error
}

func (w *writer) bytes() ([]byte, error) {
	if w.err != nil {
		return nil, fmt.Errorf("write alert: %w", w.err)
	}
	return w.out, nil
}

func (w *writer) data(a *alertv1.Alert) {
	w.begin()
	w.str("id", a.GetId())
	w.time("time", a.GetTimeMs())
	w.str("tenant", a.GetTenant())
	w.str("summary", a.GetSummary())
	w.rule(a.GetRule())
	w.name("group")
	w.begin()
	for _, g := range a.GetGroup() {
		w.str(g.GetField(), g.GetValue())
	}
	w.end()
	w.name("window")
	w.begin()
	w.time("start", a.GetWindow().GetStartMs())
	w.time("end", a.GetWindow().GetEndMs())
	w.end()
	w.uint("count", a.GetCount())
	if a.GetAtLeast() {
		w.bool("at_least", true)
	}
	if a.GetCondition() != "" {
		w.str("condition", a.GetCondition())
	}
	w.time("first_time", a.GetFirstTimeMs())
	w.time("last_time", a.GetLastTimeMs())
	w.list("principals", a.GetPrincipals())
	w.list("source_ips", a.GetSourceIps())
	w.list("accounts", a.GetAccounts())
	w.list("regions", a.GetRegions())
	w.list("actions", a.GetActions())
	w.list("resources", a.GetResources())
	w.list("outcomes", a.GetOutcomes())
	w.list("sources", a.GetSources())
	w.events(a.GetEvents())
	w.uint("events_total", a.GetEventsTotal())
	w.bool("truncated", a.GetTruncated())
	w.str("trace_id", a.GetTraceId())
	if a.GetLink() != "" {
		w.str("link", a.GetLink())
	}
	w.end()
}

func (w *writer) rule(r *alertv1.Rule) {
	w.name("rule")
	w.begin()
	w.str("id", r.GetId())
	w.str("title", r.GetTitle())
	w.str("level", r.GetLevel())
	w.list("tags", r.GetTags())
	w.str("revision", r.GetRevision())
	w.str("type", r.GetType())
	w.end()
}

func (w *writer) events(events []*alertv1.Event) {
	w.name("events")
	w.open('[')
	for _, e := range events {
		w.separate()
		w.begin()
		w.str("id", e.GetId())
		w.time("time", e.GetTimeMs())
		w.str("rule_id", e.GetRuleId())
		if e.GetLate() {
			w.bool("late", true)
		}
		if len(e.GetEvent()) > 0 {
			w.name("event")
			w.value(e.GetEvent())
		}
		w.end()
	}
	w.close(']')
}

func (w *writer) begin()                { w.open('{') }
func (w *writer) end()                  { w.close('}') }
func (w *writer) str(n, v string)       { w.name(n); w.quote(v) }
func (w *writer) bool(n string, v bool) { w.name(n); w.out = strconv.AppendBool(w.out, v) }

func (w *writer) uint(n string, v uint64) {
	w.name(n)
	w.out = strconv.AppendUint(w.out, v, 10)
}

func (w *writer) time(n string, ms int64) {
	w.name(n)
	w.out = append(w.out, '"')
	w.out = append(time.UnixMilli(ms).UTC().AppendFormat(w.out, timeLayout), '"')
}

func (w *writer) list(n string, values []string) {
	w.name(n)
	w.open('[')
	for _, v := range values {
		w.separate()
		w.quote(v)
	}
	w.close(']')
}

func (w *writer) name(n string) {
	w.separate()
	w.quote(n)
	w.out = append(w.out, ':')
}

func (w *writer) open(c byte)  { w.out, w.more = append(w.out, c), false }
func (w *writer) close(c byte) { w.out, w.more = append(w.out, c), true }

// separate comes before each member and element.
func (w *writer) separate() {
	if w.more {
		w.out = append(w.out, ',')
	}
	w.more = true
}

func (w *writer) quote(v string) {
	for i := range len(v) {
		if c := v[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			w.out, _ = jsontext.AppendQuote(w.out, v) // what is no text is replaced
			return
		}
	}
	w.out = append(w.out, '"')
	w.out = append(w.out, v...)
	w.out = append(w.out, '"')
}

func (w *writer) value(v []byte) {
	if w.err == nil {
		w.out, w.err = jsontext.AppendFormat(w.out, v, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	}
}
