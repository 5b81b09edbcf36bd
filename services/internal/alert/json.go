package alert

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/formats/jsonscan"
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
	return AppendData(make([]byte, 0, usualBody), a, false)
}

// AppendData appends what Data gives. ours says that New has made the alert in this
// process: the events in it need not be checked again.
func AppendData(dst []byte, a *alertv1.Alert, ours bool) ([]byte, error) {
	e := writer{out: dst, ours: ours}
	e.data(a)
	return e.bytes()
}

// AppendBrief appends one line's worth of an alert: its id, rule, group, window and
// counts.
func AppendBrief(dst []byte, a *alertv1.Alert) []byte {
	e := writer{out: dst}
	e.brief(a)
	return e.out
}

// fit leaves out whole events from the middle, then ids, until the body is
// within bounds.
func fit(a *alertv1.Alert, events []Contribution) {
	raws, known := make([][]byte, len(a.GetEvents())), make([]bool, len(a.GetEvents()))
	whole := 0
	for i, e := range a.GetEvents() {
		raws[i], e.Event = e.GetEvent(), nil
		known[i] = events[i].Compact
		whole += len(raws[i]) + len(eventMember)
	}
	room := MaxBody - most(a)
	if room < whole {
		room = MaxBody - size(a)
	}
	for n := len(a.GetEvents()); room < 0 && n > leastIDs; n = len(a.GetEvents()) {
		keep := max(leastIDs, n/2)
		head := keep / 2
		a.Events = append(a.Events[:head:head], a.Events[n-(keep-head):]...)
		raws = append(raws[:head:head], raws[n-(keep-head):]...)
		known = append(known[:head:head], known[n-(keep-head):]...)
		a.Truncated = true
		room = MaxBody - size(a)
	}
	scan := jsonscan.Scanner{MaxMembers: 1}
	for _, i := range fromTheEnds(len(raws)) {
		if raws[i] == nil {
			continue
		}
		compact := jsontext.Value(raws[i])
		if !known[i] && !isCompact(&scan, raws[i]) {
			compact = bytes.Clone(raws[i])
			if compact.Compact(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) != nil {
				a.Truncated = true
				continue
			}
		}
		if need := len(compact) + len(eventMember); need <= room {
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

// eventMember comes before a whole event.
const eventMember = `,"event":`

// isCompact reports whether a text is JSON that compacting and formatting leave as
// it is. It need not find out: a no says nothing.
func isCompact(scan *jsonscan.Scanner, text []byte) bool {
	if !isPlain(text) {
		return false
	}
	_, end, err := scan.Value(text, 0)
	return err == nil && end == len(text) && isTight(text)
}

// isTight reports whether plain JSON has no space outside of strings.
func isTight(text []byte) bool {
	if !hasSpace(text) {
		return true
	}
	quoted := false // without escapes, each quote begins or ends a string
	for _, c := range text {
		if c == '"' {
			quoted = !quoted
		} else if c <= ' ' && !quoted {
			return false
		}
	}
	return true
}

// isPlain reports whether a text is of ASCII without a backslash.
func isPlain(text []byte) bool {
	for ; len(text) >= 8; text = text[8:] {
		x := binary.LittleEndian.Uint64(text)
		if (x|hasZero(x^'\\'*each))&(utf8.RuneSelf*each) != 0 {
			return false
		}
	}
	for _, c := range text {
		if c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// hasSpace reports whether an ASCII text has a space or a control character, in
// strings or out of them.
func hasSpace(text []byte) bool {
	for ; len(text) >= 8; text = text[8:] {
		// None borrows from another: the top bits are not set.
		if x := binary.LittleEndian.Uint64(text) | utf8.RuneSelf*each; (x-(' '+1)*each)&(utf8.RuneSelf*each) != utf8.RuneSelf*each {
			return true
		}
	}
	for _, c := range text {
		if c <= ' ' {
			return true
		}
	}
	return false
}

// each, times a byte, is eight of it.
const each = 0x0101010101010101

// hasZero has the top bit of the first byte that is zero, and perhaps of others
// behind it; it has none where no byte is.
func hasZero(x uint64) uint64 { return (x - each) &^ x }

// Parts of a body that are not its texts: at most so much, of a body and of each
// event, without the event itself.
const (
	mostFrame       = 1024
	mostEventFrame  = len(`{"id":"","time":"","rule_id":"","late":true},`) + len(timeLayout) + 8 // years may be long
	mostSignalFrame = 192
	mostEscape      = 6 // bytes that one byte of a text takes
)

// most is at least size, and little to compute.
func most(a *alertv1.Alert) int {
	const punctuation = len(`"":"",`)
	r, n := a.GetRule(), mostFrame
	for _, text := range [...]string{
		a.GetType(), a.GetId(), a.GetTenant(), a.GetSummary(), a.GetCondition(), a.GetTraceId(), a.GetLink(),
		r.GetId(), r.GetTitle(), r.GetLevel(), r.GetRevision(), r.GetType(),
	} {
		n += mostQuoted(text)
	}
	for _, list := range [...][]string{
		a.GetPrincipals(), a.GetSourceIps(), a.GetAccounts(), a.GetRegions(), a.GetActions(), a.GetResources(), a.GetOutcomes(), a.GetSources(), r.GetTags(),
	} {
		for _, text := range list {
			n += mostQuoted(text) + punctuation
		}
	}
	for _, g := range a.GetGroup() {
		n += mostQuoted(g.GetField()) + mostQuoted(g.GetValue()) + punctuation
	}
	for _, tactic := range a.GetRisk().GetTactics() {
		n += mostQuoted(tactic) + punctuation
	}
	for _, s := range a.GetRisk().GetSignals() {
		n += mostQuoted(s.GetRuleId()) + mostQuoted(s.GetTitle()) + mostQuoted(s.GetLevel()) + mostQuoted(s.GetAlertId()) + mostSignalFrame
		for _, tactic := range s.GetTactics() {
			n += mostQuoted(tactic) + punctuation
		}
	}
	for _, e := range a.GetEvents() {
		n += mostQuoted(e.GetId()) + mostQuoted(e.GetRuleId()) + mostEventFrame
	}
	return n
}

// mostQuoted is how many bytes a text may take within its quotes.
func mostQuoted(text string) int {
	if isVerbatim(text) {
		return len(text)
	}
	return mostEscape * len(text)
}

// isVerbatim reports whether a text stands in JSON as it is.
func isVerbatim(text string) bool {
	i := 0
	for ; i+8 <= len(text); i += 8 {
		t := text[i : i+8]
		x := uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 | uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56
		if (x|hasZero(x^'\\'*each)|hasZero(x^'"'*each)|(x-' '*each)&^x)&(utf8.RuneSelf*each) != 0 {
			return false
		}
	}
	for ; i < len(text); i++ {
		if c := text[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
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
	ours bool // events are JSON, and compact
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
	w.extent(a)
	if a.GetCondition() != "" {
		w.str("condition", a.GetCondition())
	}
	if a.GetRisk() != nil {
		w.risk(a.GetRisk())
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

// brief is data without events and what is read from them.
func (w *writer) brief(a *alertv1.Alert) {
	r := a.GetRule()
	w.begin()
	w.str("id", a.GetId())
	w.time("time", a.GetTimeMs())
	w.name("rule")
	w.begin()
	w.str("id", r.GetId())
	w.str("title", cut(r.GetTitle(), maxText))
	w.str("level", r.GetLevel())
	w.end()
	w.extent(a)
	w.uint("events_total", a.GetEventsTotal())
	w.end()
}

// extent says where and when something was, and how often.
func (w *writer) extent(a *alertv1.Alert) {
	w.name("group")
	w.begin()
	for _, g := range a.GetGroup() {
		w.separate()
		w.quote(g.GetField())
		w.out = append(w.out, ':')
		w.quote(cut(g.GetValue(), maxText))
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
	if TypeOf(a) == TypeUpdated {
		w.bool("updated", true)
	}
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

func (w *writer) risk(r *alertv1.Risk) {
	w.name("risk")
	w.begin()
	w.list("tactics", r.GetTactics())
	w.name("signals")
	w.open('[')
	for _, s := range r.GetSignals() {
		w.separate()
		w.begin()
		w.str("rule_id", s.GetRuleId())
		w.str("title", s.GetTitle())
		w.str("level", s.GetLevel())
		w.uint("score", uint64(s.GetScore()))
		w.list("tactics", s.GetTactics())
		if s.GetAlertId() != "" {
			w.str("alert_id", s.GetAlertId())
		}
		w.time("time", s.GetTimeMs())
		w.end()
	}
	w.close(']')
	w.uint("signals_total", r.GetSignalsTotal())
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

func (w *writer) begin()          { w.open('{') }
func (w *writer) end()            { w.close('}') }
func (w *writer) str(n, v string) { w.name(n); w.quote(v) }

func (w *writer) bool(n string, v bool) { w.name(n); w.out = strconv.AppendBool(w.out, v) }

func (w *writer) uint(n string, v uint64) {
	w.name(n)
	w.out = strconv.AppendUint(w.out, v, 10)
}

func (w *writer) time(n string, ms int64) {
	w.name(n)
	w.out = append(w.out, '"')
	w.out = append(appendTime(w.out, ms), '"')
}

// appendTime writes a time as timeLayout says.
func appendTime(b []byte, ms int64) []byte {
	const dayMS = 86_400_000
	t := time.UnixMilli(ms).UTC()
	year, month, day := t.Date()
	if year < 1000 || year > 9999 {
		return t.AppendFormat(b, timeLayout)
	}
	two := func(n int) { b = append(b, byte('0'+n/10), byte('0'+n%10)) }
	two(year / 100)
	two(year % 100)
	b = append(b, '-')
	two(int(month))
	b = append(b, '-')
	two(day)
	b = append(b, 'T')
	of := int((ms%dayMS + dayMS) % dayMS)
	two(of / 3_600_000)
	b = append(b, ':')
	two(of / 60_000 % 60)
	b = append(b, ':')
	two(of / 1000 % 60)
	b = append(b, '.', byte('0'+of/100%10))
	two(of % 100)
	return append(b, 'Z')
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

// name begins a member that is called so as it stands.
func (w *writer) name(n string) {
	w.separate()
	w.out = append(w.out, '"')
	w.out = append(w.out, n...)
	w.out = append(w.out, '"', ':')
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
	if !isVerbatim(v) {
		w.out, _ = jsontext.AppendQuote(w.out, v) // what is no text is replaced
		return
	}
	w.out = append(w.out, '"')
	w.out = append(w.out, v...)
	w.out = append(w.out, '"')
}

func (w *writer) value(v []byte) {
	if w.ours && isPlain(v) {
		w.out = append(w.out, v...)
	} else if w.err == nil {
		w.out, w.err = jsontext.AppendFormat(w.out, v, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	}
}
