package window

import (
	"cmp"
	"math/bits"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Risk adds up scores. A record's value says which one and what it is a score
// of; what has been scored once is not again, however many records say so. With
// the greatest of its scores a further record only ever adds to the total and to
// the tactics: the test is the monotone one of the other kinds that fire at once.

// Score is what one record of Risk adds.
type Score struct {
	Points int64
	// Tactics has a bit for each tactic.
	Tactics uint64
	// Rule and Part are what is scored, once.
	Rule, Part string
	// Note is handed back.
	Note string
}

const (
	// MaxPoints is the greatest score of a record.
	MaxPoints = 10_000
	// MaxRisk is the greatest total that may be demanded.
	MaxRisk = 1_000_000_000
	// MaxParts is how many scores a Firing names: the greatest.
	MaxParts = 100
)

// Text is the score as Record.Value of Risk has it.
func (s *Score) Text() string {
	b := protowire.AppendVarint(nil, uint64(max(s.Points, 0)))
	b = protowire.AppendVarint(b, s.Tactics)
	b = protowire.AppendString(b, s.Rule)
	b = protowire.AppendString(b, s.Part)
	return string(protowire.AppendString(b, s.Note))
}

// ParseScore reads what Text wrote.
func ParseScore(text string) (s Score, ok bool) {
	b := []byte(text)
	points, n := protowire.ConsumeVarint(b)
	if n < 0 || points < 1 || points > MaxPoints {
		return Score{}, false
	}
	s.Points, b = int64(points), b[n:]
	if s.Tactics, n = protowire.ConsumeVarint(b); n < 0 {
		return Score{}, false
	}
	b = b[n:]
	for _, to := range []*string{&s.Rule, &s.Part, &s.Note} {
		if *to, n = protowire.ConsumeString(b); n < 0 {
			return Score{}, false
		}
		b = b[n:]
	}
	return s, len(b) == 0
}

// Part is one of the scores that a Firing is made of.
type Part struct {
	Score
	// EventID and Time are those of the first of its events.
	EventID string
	Time    int64
	// Events is how many there are.
	Events int
}

// ScoredIn is the bucket of an event time within which a rule without buckets of
// its own scores once.
func (s *Spec) ScoredIn(t int64) string { return strconv.FormatInt(floor(t, s.Timespan), 10) }

func (s *Spec) validateRisk() (why string) {
	switch {
	case s.Min < 1 || s.Min > MaxRisk:
		return "a total of " + strconv.Itoa(s.Min) + ": must be from 1 to " + strconv.Itoa(MaxRisk)
	case s.Extension.Tactics < 0 || s.Extension.Tactics > 64:
		return strconv.FormatInt(s.Extension.Tactics, 10) + " tactics: must be at most 64"
	case s.Shape != Sliding || s.Gap != 0 || s.Bounds != [2]Bound{} || s.Expr != "":
		return "scores add up to a total in sliding windows only"
	}
	return ""
}

// scores are what values are as scores, by their places.
type scores struct {
	all    []scored
	places map[string]int32 // by what is scored
	most   int64            // the greatest score so far
	// total and front are what the tallies of that name add up to. What has several
	// scores counts with each: they may promise too much, never too little.
	total, front weight
}

type scored struct {
	points  int64
	tactics uint64
	of      int32
}

func newScores() *scores { return &scores{places: map[string]int32{}} }

// read takes a value that has no place yet; false for what is no score.
func (x *scores) read(text string) bool {
	s, ok := ParseScore(text)
	if !ok {
		return false
	}
	key := string(protowire.AppendString(nil, s.Rule)) + s.Part
	of, known := x.places[key]
	if !known {
		of = int32(len(x.places))
		x.places[key] = of
	}
	x.all = append(x.all, scored{points: s.Points, tactics: s.Tactics, of: of})
	x.most = max(x.most, s.Points)
	return true
}

// weight is a total and how many tactics there are in it.
type weight struct {
	points  int64
	tactics int
	by      [64]int32
}

func (w *weight) enter(s *scored) {
	w.points += s.points
	for left := s.tactics; left != 0; left &= left - 1 {
		i := bits.TrailingZeros64(left)
		if w.by[i]++; w.by[i] == 1 {
			w.tactics++
		}
	}
}

func (w *weight) leave(s *scored) {
	w.points -= s.points
	for left := s.tactics; left != 0; left &= left - 1 {
		i := bits.TrailingZeros64(left)
		if w.by[i]--; w.by[i] == 0 {
			w.tactics--
		}
	}
}

// suffices reports whether the condition could hold of it.
func (w *weight) suffices(s *Spec) bool {
	return w.points >= int64(s.Min) && w.tactics >= int(s.Extension.Tactics)
}

// riskImpossible is impossible for Risk: each further record adds at most the
// greatest score.
func (g *Group) riskImpossible(lo, hi int) int {
	x := g.values.scores
	if !x.total.suffices(g.spec) {
		return g.recs.len()
	}
	w := &x.front
	if hi < g.recs.len() {
		if w.points+int64(g.front-lo)*x.most < int64(g.spec.Min) {
			return g.recs.len()
		}
		w = &g.sweep(lo, hi).weight
	}
	switch {
	case w.suffices(g.spec):
		return 0
	case hi == g.recs.len():
		return hi
	}
	further := (int64(g.spec.Min) - w.points + x.most - 1) / x.most
	return hi - 1 + int(min(max(further, 1), int64(g.recs.len())))
}

// risk is what a set adds up to, or zero where its tactics are too few.
func (g *Group) risk(recs []*record) int {
	x := g.values.scores
	best := make(map[int32]int64, len(recs))
	sum, tactics := int64(0), uint64(0)
	for _, r := range recs {
		s := &x.all[r.value]
		tactics |= s.tactics
		if was := best[s.of]; s.points > was {
			best[s.of] = s.points
			sum += s.points - was
		}
	}
	if bits.OnesCount64(tactics) < int(g.spec.Extension.Tactics) {
		return 0
	}
	return int(sum)
}

// parts says what a set, in order, adds up to: the greatest scores, and of equal
// ones the first.
func (g *Group) parts(f *Firing, recs []*record) {
	x := g.values.scores
	at := make(map[int32]int, len(recs))
	for _, r := range recs {
		s := &x.all[r.value]
		f.Tactics |= s.tactics
		i, ok := at[s.of]
		if !ok {
			i = len(f.Parts)
			at[s.of] = i
			f.Parts = append(f.Parts, Part{EventID: r.id, Time: r.time})
		}
		p := &f.Parts[i]
		if p.Events++; s.points > p.Points {
			p.Score, _ = ParseScore(g.values.names[r.value])
		}
	}
	f.AllParts = len(f.Parts)
	slices.SortStableFunc(f.Parts, func(a, b Part) int { return cmp.Compare(b.Points, a.Points) })
	f.Parts = f.Parts[:min(len(f.Parts), MaxParts)]
}
