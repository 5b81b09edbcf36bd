package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stormbell/stormbell/services/sigma"
)

// Hint is one sentence where something is obviously wrong, and the command that
// remedies it or shows more.
type Hint struct {
	// Code is stable, for programs.
	Code    string `json:"code"`
	Text    string `json:"text"`
	Command string `json:"command,omitempty"`
}

// Setting is what figures are judged by.
type Setting struct {
	Rules    []InForce
	Webhooks []Webhooked // those that alerts may go to
	NowMS    int64
}

// InForce is a rule in force.
type InForce struct {
	ID, Title string
	// Source is what a detection rule is for.
	Source      sigma.LogSource
	Correlation bool
	GroupBy     []string
	Refers      []string // ids of the rules that a correlation refers to
}

// Webhooked is a webhook and since when it is as it is.
type Webhooked struct {
	ID      string
	SinceMS int64
}

// Bounds of what is told, and from where on it is.
const (
	maxHints     = 20
	maxPerKind   = 3
	packRules    = 20 // so many rules for a source that never comes are a pack, no mistake
	lagTold      = 10_000
	watermarkAge = 5 * time.Minute
	explain      = "stormbell rules explain %s < event.json"
)

// Hints says what is obviously wrong. It is empty where nothing has reported.
func (s *Summary) Hints(in *Setting) []Hint {
	if s.SinceMS == 0 {
		return nil
	}
	h := &hints{s: s, in: in}
	h.events()
	h.rules()
	h.alerts()
	h.journey()
	return h.list[:min(len(h.list), maxHints)]
}

type hints struct {
	s    *Summary
	in   *Setting
	list []Hint
}

func (h *hints) say(code, command, format string, args ...any) {
	h.list = append(h.list, Hint{code, fmt.Sprintf(format, args...), command})
}

// events says what is wrong with what comes in.
func (h *hints) events() {
	s := h.s
	switch received, rejected := s.Received.N, s.Rejected.N; {
	case received == 0 && rejected == 0:
		h.say("no_events", "stormbell send FILE", "no event has come yet")
	case rejected > received:
		h.say("rejected", "stormbell send FILE", "%s, and %d accepted: the answer to each request says why", were(rejected, "record", "rejected"), received)
	}
	if s.Late.N > 0 && s.Late.N == s.Received.N {
		h.say("all_late", "stormbell send --shift-to-now FILE",
			"all %s late, older than their source's lateness: rules that wait for a window's end leave them out", were(s.Late.N, "event", ""))
	}
}

// rules says what keeps rules from matching.
func (h *hints) rules() {
	var detections []InForce
	for _, r := range h.in.Rules {
		if !r.Correlation {
			detections = append(detections, r)
		}
	}
	if len(detections) == 0 {
		h.say("no_rules", "stormbell rules push DIR", "no rule is in force")
		return
	}
	if len(h.s.Sources) == 0 {
		return
	}
	h.sources(detections)
	h.strangers(detections)
	for _, r := range h.in.Rules {
		c := h.s.Rules[r.ID]
		switch {
		case c == nil || c.Hits.N > 0:
		case len(c.Lacking) > 0:
			h.upTo("field_missing", fmt.Sprintf(explain, r.ID),
				"rule '%s' was asked %s and has never matched: %s, which it needs, was in none of the events that it fits otherwise",
				r.Title, times(h.asked(r.Source)), fields(c.Lacking))
		case r.Correlation && c.Ungrouped.N > 0:
			h.upTo("group_by_missing", fmt.Sprintf(explain, r.ID),
				"correlation '%s' left out %s: the event lacks a field of its group-by (%s) or of the value that it counts",
				r.Title, amount(c.Ungrouped.N, "match", "matches"), strings.Join(r.GroupBy, ", "))
		}
	}
}

// upTo says something unless maxPerKind of its kind are said.
func (h *hints) upTo(code, command, format string, args ...any) {
	n := 0
	for _, hint := range h.list {
		if hint.Code == code {
			n++
		}
	}
	if n < maxPerKind {
		h.say(code, command, format, args...)
	}
}

// asked is how many events came that a rule for src is for.
func (h *hints) asked(src sigma.LogSource) (n int64) {
	for _, came := range h.s.Sources {
		if applies(src, came.Source) {
			n += came.N
		}
	}
	return n
}

func applies(rule sigma.LogSource, came Source) bool {
	return rule.Applies(sigma.LogSource{Product: came.Product, Service: came.Service, Category: came.Category}, came.Strict)
}

// sources names log sources whose events no rule is for.
func (h *hints) sources(rules []InForce) {
	for _, came := range h.s.Sources {
		if !slices.ContainsFunc(rules, func(r InForce) bool { return applies(r.Source, came.Source) }) {
			h.upTo("source_without_rules", "stormbell rules list",
				"events arrive (%s: %d), but no rule in force is for that source", came.name(), came.N)
		}
	}
}

// strangers names rules for log sources of which nothing comes, where that
// looks like a mistake: a name that nobody knows, or that is nearly one of those
// that came.
func (h *hints) strangers(rules []InForce) {
	groups := make(map[sigma.LogSource][]InForce)
	var order []sigma.LogSource
	for _, r := range rules {
		if h.asked(r.Source) > 0 {
			continue
		}
		if groups[r.Source] == nil {
			order = append(order, r.Source)
		}
		groups[r.Source] = append(groups[r.Source], r)
	}
	slices.SortStableFunc(order, func(a, b sigma.LogSource) int { return cmp.Compare(len(groups[a]), len(groups[b])) })
	for _, src := range order {
		dimension, value, nearly := h.mistaken(src)
		if dimension == "" || nearly == "" && (len(groups[src]) > packRules || dimension != "product" || slices.Contains(knownProducts(), value)) {
			continue
		}
		meant := ""
		if nearly != "" {
			meant = fmt.Sprintf(": did you mean '%s'?", nearly)
		}
		who := fmt.Sprintf("rule '%s' is", groups[src][0].Title)
		if n := len(groups[src]); n > 1 {
			who = fmt.Sprintf("%d rules ('%s', …) are", n, groups[src][0].Title)
		}
		h.upTo("source_never_came", fmt.Sprintf(explain, groups[src][0].ID),
			"%s for %s '%s', and no event of that %s has come (came: %s)%s", who, dimension, value, dimension, h.came(), meant)
	}
}

// knownProducts are what our own formats tell apart: rules for them wait.
func knownProducts() []string { return []string{"aws", "linux", "windows", "macos"} }

// mistaken returns the first dimension of a rule's log source that no event has,
// its value, and which value of the events is nearly the same.
func (h *hints) mistaken(src sigma.LogSource) (dimension, value, nearly string) {
	for _, d := range []struct {
		name, want string
		of         func(Source) string
	}{
		{"product", src.Product, func(s Source) string { return s.Product }},
		{"service", src.Service, func(s Source) string { return s.Service }},
		{"category", src.Category, func(s Source) string { return s.Category }},
	} {
		if d.want == "" || slices.ContainsFunc(h.s.Sources, func(c SourceCount) bool { return d.of(c.Source) == d.want }) {
			continue
		}
		for _, c := range h.s.Sources {
			if has := d.of(c.Source); has != "" && distance(has, d.want) <= 2 {
				return d.name, d.want, has
			}
		}
		return d.name, d.want, ""
	}
	return "", "", ""
}

// distance is how many letters differ between two names, counted up to their
// lengths.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			before, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, before+cost)
		}
	}
	if row[len(b)] >= min(len(a), len(b)) {
		return len(a) + len(b) // nothing in common
	}
	return row[len(b)]
}

// came names the log sources that came.
func (h *hints) came() string {
	const most = 5
	var names []string
	for i, c := range h.s.Sources {
		if i == most {
			return strings.Join(names, ", ") + ", …"
		}
		names = append(names, c.name())
	}
	return strings.Join(names, ", ")
}

func (c *SourceCount) name() string {
	parts := []string{c.Product, c.Service, c.Category}
	for len(parts) > 0 && parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1]
	}
	if len(parts) == 0 {
		return "no product named"
	}
	return strings.Join(parts, "/")
}

// alerts says what keeps alerts from arriving.
func (h *hints) alerts() {
	s := h.s
	newest := int64(0)
	for _, w := range h.in.Webhooks {
		newest = max(newest, w.SinceMS)
	}
	switch {
	case s.Unheard.N == 0 || newest > s.Unheard.LastMS: // or whoever is there now came later
	case len(h.in.Webhooks) == 0:
		h.say("no_subscriber", "stormbell webhooks add URL", "%s had no subscriber", amount(s.Unheard.N, "alert", "alerts"))
	default:
		h.say("no_matching_subscriber", "stormbell webhooks list", "%s matched the filter of no webhook", amount(s.Unheard.N, "alert", "alerts"))
	}
	for _, w := range s.Webhooks {
		current := slices.ContainsFunc(h.in.Webhooks, func(in Webhooked) bool { return in.ID == w.ID })
		why := ""
		if w.Error != "" {
			why = " (" + w.Error + ")"
		}
		switch {
		case w.Parked.N > 0 && w.Parked.LastMS >= w.Delivered.LastMS:
			h.upTo("parked", "stormbell webhooks test "+w.ID, "webhook %s has %s parked, given up%s", w.ID, amount(w.Parked.N, "delivery", "deliveries"), why)
		case current && w.Error != "":
			h.upTo("webhook_failing", "stormbell webhooks test "+w.ID, "webhook %s fails%s: its deliveries are tried again", w.ID, why)
		}
	}
	if s.Dead.N > 0 {
		h.say("dead_letters", "stormbell dlq list", "%s could not be processed and went to dlq", amount(s.Dead.N, "record", "records"))
	}
}

// journey says what of the journey stands.
func (h *hints) journey() {
	for _, part := range []struct{ stage, service, waits string }{
		{"detect", "correlator", "events wait"}, {"correlate", "correlator", "correlations wait"}, {"notify", "notifier", "alerts wait"},
	} {
		st := h.s.Stages[part.stage]
		if st == nil {
			h.say("stage_missing", part.service+" --config FILE", "no %s reports stage %s: %s for one", part.service, part.stage, part.waits)
			continue
		}
		if st.Lag >= lagTold {
			h.say("lag", part.service+" --config FILE", "stage %s is %d records behind: it catches up, or needs another %s", part.stage, st.Lag, part.service)
		}
		if st.WatermarkMS != 0 && st.AgeMS > watermarkAge.Milliseconds() {
			h.say("watermark_stands", "curl ADMIN/readyz", "the watermark lies %s behind: until it moves no window is closed; see whether every correlator and gateway runs",
				(time.Duration(st.AgeMS) * time.Millisecond).Round(time.Second))
		}
	}
}

func amount(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// were is a number of things that were something.
func were(n int64, noun, what string) string {
	verb := " were "
	if n == 1 {
		verb = " was "
	}
	return strings.TrimSpace(amount(n, noun, noun+"s") + verb + what)
}

func times(n int64) string { return amount(n, "time", "times") }

func fields(names []string) string {
	if len(names) == 1 {
		return "field " + names[0]
	}
	return "each of the fields " + strings.Join(names, ", ")
}
