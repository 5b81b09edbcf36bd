package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// A story is what one group lives through: the events with which its
// correlation fires, or ones that fall just short of it.
type story struct {
	fires  bool
	events []crashEvent
}

type crashEvent struct {
	id   string
	time int64
	raw  []byte
}

// A load is the events of a crash scenario in the order in which they are sent.
type load struct {
	sent []crashEvent // copies included
	// Groups by one of their values, as alerts show it.
	positives, negatives map[string]bool
	ids                  map[string]bool
	roots                int // events of the rule that stands alone
}

// author writes stories. Everything follows from its seed and the time.
type author struct {
	r    *rand.Rand
	base int64 // the earliest time
	n    int
}

const (
	spread    = int64(40 * time.Minute / time.Millisecond) // of event times
	fiveMin   = int64(5 * time.Minute / time.Millisecond)
	tenMin    = 2 * fiveMin
	copies    = 0.05
	displaced = 0.10
	// farthest a displaced event is sent from its place, in events.
	farthest = 2000
)

// newLoad makes n events, of which the stories are as many groups per type that
// fire and as many that do not. A quarter as many are told by more.
func newLoad(seed uint64, n, groups int, now time.Time, more ...teller) *load {
	a := &author{r: rand.New(rand.NewPCG(seed, 7)), base: now.UnixMilli() - spread - fiveMin}
	l := &load{positives: map[string]bool{}, negatives: map[string]bool{}, ids: map[string]bool{}}
	var events []crashEvent
	for i := range groups {
		kinds := []teller{(*author).logins, (*author).buckets, (*author).defences, (*author).backdoor}
		own := len(kinds)
		if i%4 == 0 {
			kinds = append(kinds, more...)
		}
		for k, kind := range kinds {
			for _, fires := range []bool{true, false} {
				name := fmt.Sprintf("%d", a.next())
				if k >= own { // of those, what two loads tell of one group could add up to anything
					name = fmt.Sprintf("%d-of-%d", a.next(), seed)
				}
				s := kind(a, name, fires)
				events = append(events, s.events...)
				if fires {
					l.positives[name] = true
				} else {
					l.negatives[name] = true
				}
			}
		}
		if i%4 == 0 {
			events = append(events, a.event(a.when(0), "root", "ConsoleLogin", map[string]any{"userIdentity": map[string]any{"type": "Root"}}))
			l.roots++
		}
	}
	for len(events) < int(float64(n)*(1-copies)) {
		events = append(events, a.noise())
	}
	slices.SortFunc(events, func(x, y crashEvent) int { return int(x.time - y.time) })
	for range int(float64(len(events)) * displaced / 2) { // a swap moves two
		i := a.r.IntN(len(events))
		j := min(max(i+a.r.IntN(2*farthest)-farthest, 0), len(events)-1)
		events[i], events[j] = events[j], events[i]
	}
	l.sent = events
	for len(l.sent) < n {
		again := events[a.r.IntN(len(events))]
		at := a.r.IntN(len(l.sent))
		l.sent[at], again = again, l.sent[at] // the one that stood there is sent last
		l.sent = append(l.sent, again)
	}
	for _, e := range l.sent {
		l.ids[e.id] = true
	}
	return l
}

func (a *author) next() int { a.n++; return a.n }

// when is a time that leaves room for a story of some length.
func (a *author) when(length int64) int64 { return a.base + a.r.Int64N(spread-length) }

// event is one of CloudTrail. fields replace what it has.
func (a *author) event(at int64, user, name string, fields map[string]any) crashEvent {
	id := fmt.Sprintf("%08x-0000-4000-8000-%012x", a.next(), a.r.Uint64()&0xffff_ffff_ffff)
	doc := map[string]any{
		"eventVersion": "1.09", "eventID": id, "eventTime": time.UnixMilli(at).UTC().Format("2006-01-02T15:04:05.000Z"),
		"eventSource": "iam.amazonaws.com", "eventName": name, "awsRegion": "eu-west-1", "sourceIPAddress": "198.51.100.7",
		"userIdentity":       map[string]any{"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/" + user, "userName": user},
		"recipientAccountId": "111122223333", "eventType": "AwsApiCall",
	}
	maps.Copy(doc, fields)
	raw, err := json.Marshal(doc)
	if err != nil {
		panic(err) // strings and maps of them
	}
	return crashEvent{id: id, time: at, raw: raw}
}

// within gives n times, the first and the last exactly width apart.
func (a *author) within(n int, width int64) []int64 {
	start := a.when(width)
	times := []int64{start, start + width}
	for len(times) < n {
		times = append(times, start+a.r.Int64N(width))
	}
	slices.Sort(times)
	return times
}

// short says in which of two ways a negative story falls short: one event too
// few, or all of them and the window a millisecond too wide.
func (a *author) short() (few bool) { return a.r.IntN(2) == 0 }

func (a *author) logins(group string, fires bool) story {
	failure := map[string]any{"eventSource": "signin.amazonaws.com", "responseElements": map[string]any{"ConsoleLogin": "Failure"}}
	n, width := 5+a.r.IntN(4), a.r.Int64N(fiveMin)+1
	if !fires {
		n, width = 5, fiveMin+1
		if a.short() {
			n, width = 4, a.r.Int64N(fiveMin)+1
		}
	}
	s := story{fires: fires}
	for _, at := range a.within(n, width) {
		s.events = append(s.events, a.event(at, group, "ConsoleLogin", failure))
	}
	return s
}

func (a *author) buckets(group string, fires bool) story {
	n, width, addresses := 6, a.r.Int64N(tenMin)+1, 4
	if !fires {
		addresses = 3
		if !a.short() {
			n, width, addresses = 4, tenMin+1, 4
		}
	}
	s := story{fires: fires}
	for i, at := range a.within(n, width) {
		s.events = append(s.events, a.event(at, group, []string{"ListBuckets", "ListObjectsV2"}[i%2], map[string]any{
			"eventSource": "s3.amazonaws.com", "sourceIPAddress": fmt.Sprintf("203.0.113.%d", i%addresses),
		}))
	}
	return s
}

func (a *author) defences(group string, fires bool) story {
	calls, width := []string{"StopLogging", "DeleteTrail", "DeleteDetector"}, a.r.Int64N(tenMin)+1
	if !fires {
		width = tenMin + 1
		if a.short() {
			calls[2], width = calls[0], a.r.Int64N(tenMin)+1
		}
	}
	a.r.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	s := story{fires: fires}
	for i, at := range a.within(len(calls), width) {
		s.events = append(s.events, a.event(at, "admin", calls[i], map[string]any{"recipientAccountId": group}))
	}
	return s
}

func (a *author) backdoor(group string, fires bool) story {
	calls, width := []string{"CreateUser", "AttachUserPolicy", "CreateAccessKey"}, a.r.Int64N(tenMin-3)+3
	if !fires {
		width = tenMin + 1
		if a.short() {
			calls[1], calls[2], width = calls[2], calls[1], a.r.Int64N(tenMin-3)+3
		}
	}
	times := a.within(len(calls), width)
	times[1] = times[0] + 1 + a.r.Int64N(width-1) // between the two, at neither
	s := story{fires: fires}
	for i, at := range times {
		s.events = append(s.events, a.event(at, "admin", calls[i], map[string]any{"requestParameters": map[string]any{"userName": group}}))
	}
	return s
}

// noise matches nothing, or a rule of a correlation in a group of its own.
func (a *author) noise() crashEvent {
	user := fmt.Sprintf("bystander-%d", a.next())
	if a.r.IntN(10) == 0 {
		return a.event(a.when(0), user, "ListBuckets", map[string]any{"eventSource": "s3.amazonaws.com"})
	}
	return a.event(a.when(0), user, "DescribeInstances", map[string]any{"eventSource": "ec2.amazonaws.com"})
}
