package correlator

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/event"
)

// Stage detect tells which manifest ruled when, so that a window decided at
// the watermark is left undecided where events inside it were stamped with
// rules that did not have its rule: the events that such a window lacks were
// never counted for it.

// allTenants is the scope of manifests that rule for all.
const allTenants = ""

// ruled is what a claim of `events` knows of the manifest that it has seen last
// in a scope.
type ruled struct {
	manifest string
	// from is since when it was told to rule, until the greatest ingest time of
	// the events that were stamped with it.
	from, until int64
}

// rulingGrain is how exactly is told when a manifest ruled, in milliseconds:
// where two gateways disagree for a while and their events alternate, each of
// the two is told once per grain.
const rulingGrain = 1000

func grainOf(ms int64) int64 {
	g := ms - ms%rulingGrain
	if g > ms {
		g -= rulingGrain
	}
	return g
}

// ruling notes that a manifest rules from an ingest time on, where that is
// news. It is repeatable: what a failed batch has noted stays noted, and the
// same events note nothing more.
func (m *matching) ruling(e *event.Event, offset int64, w *work) {
	m.seen(allTenants, e.ManifestAll, e.IngestMS, offset, w)
	m.seen(e.Tenant, e.ManifestTenant, e.IngestMS, offset, w)
}

func (m *matching) seen(scope string, manifest []byte, ingest, offset int64, w *work) {
	was := m.ruled[scope]
	switch {
	case was == nil:
		m.ruled[scope] = &ruled{string(manifest), grainOf(ingest), ingest}
		if len(manifest) > 0 {
			w.rulings = append(w.rulings, m.newRuling(scope, manifest, ingest, offset))
		}
	case was.manifest == string(manifest):
		was.until = max(was.until, ingest)
		if ingest < was.from {
			if was.from = grainOf(ingest); len(manifest) > 0 {
				w.rulings = append(w.rulings, m.newRuling(scope, manifest, ingest, offset))
			}
		}
	default:
		if until, ok := m.told[ruling{scope, string(manifest)}]; ok && ingest <= until {
			return
		}
		r := m.newRuling(scope, manifest, ingest, offset)
		r.Previous, r.PreviousUntilMs = []byte(was.manifest), grainOf(was.until)+rulingGrain-1
		m.told[ruling{scope, was.manifest}] = r.GetPreviousUntilMs()
		w.rulings = append(w.rulings, r)
		*was = ruled{string(manifest), grainOf(ingest), ingest}
	}
}

func (m *matching) newRuling(scope string, manifest []byte, ingest, offset int64) *detectionv1.Ruling {
	return &detectionv1.Ruling{
		Tenant: scope, Manifest: slices.Clone(manifest), FromIngestMs: grainOf(ingest),
		UpstreamPartition: int32(m.partition), NextOffset: offset + 1,
	}
}

// maxRuledText bounds what a commit says of manifests: brokers take four
// kilobytes of metadata.
const maxRuledText = 2000

// ruledText is what the next owner has to know of the manifests that ruled
// last. What does not fit, the scopes without events for longest, is not
// known to it, and so told to nobody.
func (m *matching) ruledText() string {
	scopes := make([]string, 0, min(len(m.ruled), 64))
	for scope, r := range m.ruled {
		if r.manifest != "" {
			scopes = append(scopes, scope)
		}
	}
	slices.SortFunc(scopes, func(a, b string) int {
		return cmp.Or(cmp.Compare(min(len(a), 1), min(len(b), 1)), cmp.Compare(m.ruled[b].until, m.ruled[a].until), cmp.Compare(a, b))
	})
	var b strings.Builder
	for _, scope := range scopes {
		r := m.ruled[scope]
		entry := scope + ":" + base64.RawURLEncoding.EncodeToString([]byte(r.manifest)) + ":" + strconv.FormatInt(r.until, 36)
		if b.Len()+len(entry) >= maxRuledText || strings.ContainsAny(scope, " ,:=") {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(entry)
	}
	return b.String()
}

// readRuled reads what ruledText has written, and passes over what it has not.
func readRuled(text string) map[string]*ruled {
	out := make(map[string]*ruled)
	for entry := range strings.SplitSeq(text, ",") {
		parts := strings.Split(entry, ":")
		if len(parts) != 3 || len(text) > maxRuledText {
			continue
		}
		manifest, err1 := base64.RawURLEncoding.DecodeString(parts[1])
		until, err2 := strconv.ParseInt(parts[2], 36, 64)
		if err1 == nil && err2 == nil && len(manifest) > 0 {
			out[parts[0]] = &ruled{string(manifest), grainOf(until), until}
		}
	}
	return out
}

// reign is a time in which a manifest ruled, by ingest times, both ends in. It
// is open where the upstream's events are still stamped with it.
type reign struct {
	scope, manifest string
	// upstream is the partition of an open one; those below say what others are.
	upstream    int32
	from, until int64
}

const (
	open        = math.MaxInt64
	maxReigns   = 1024
	maxManifest = 64

	// noUpstream has one that is over, in whatever partition.
	noUpstream = -1
	// several has one that is open in partitions that are no longer told apart:
	// from is when it began in the first, until when in the last of them.
	several = -2
	// fewer is several where some may be over since: it ends no other.
	fewer = -3
	// forgotten is no reign, but until when those of a scope are not known.
	forgotten = -4
)

// reigns are the changes of rules that a window may still be cut by. They are
// part of the folded state. Where none is known in a scope, one manifest has
// ruled all along.
type reigns []reign

// tell takes what detect has told. The caller has made sure that it is news.
func (rs reigns) tell(r *detectionv1.Ruling) reigns { return rs.told(r).bounded(maxReigns) }

func (rs reigns) told(r *detectionv1.Ruling) reigns {
	p, scope := r.GetUpstreamPartition(), r.GetTenant()
	if until := r.GetPreviousUntilMs(); until != 0 {
		over := reign{scope, string(r.GetPrevious()), noUpstream, unseen, until}
		if i := rs.open(scope, over.manifest, p); i >= 0 {
			over.from = rs[i].from
			rs = slices.Delete(rs, i, i+1)
		} else if i := rs.bundle(scope, over.manifest); i >= 0 {
			rs[i].upstream = fewer
		}
		rs = rs.merge(over)
	}
	from := r.GetFromIngestMs()
	if i := rs.open(scope, string(r.GetManifest()), p); i >= 0 {
		rs[i].from = min(rs[i].from, from)
		return rs
	}
	if i := rs.bundle(scope, string(r.GetManifest())); i >= 0 {
		rs[i].from, rs[i].until = min(rs[i].from, from), max(rs[i].until, from)
		return rs
	}
	return append(rs, reign{scope, string(r.GetManifest()), p, from, open})
}

func (rs reigns) open(scope, manifest string, p int32) int {
	return slices.IndexFunc(rs, func(x reign) bool {
		return x.until == open && x.upstream == p && x.scope == scope && x.manifest == manifest
	})
}

func (rs reigns) bundle(scope, manifest string) int {
	return slices.IndexFunc(rs, func(x reign) bool { return x.bundled() && x.scope == scope && x.manifest == manifest })
}

func (x *reign) bundled() bool { return x.upstream == several || x.upstream == fewer }

// bounded keeps at most so many. What it gives up has more windows cut, never
// fewer: first, which of the partitions with a manifest it rules in; where that
// is not enough, all that is known of the scope that is told most of; and with
// more scopes than that, of all.
func (rs reigns) bounded(most int) reigns {
	for len(rs) > most {
		opened, all := make(map[ruling]int), make(map[string]int)
		var widest ruling
		var loudest string
		for _, x := range rs {
			if all[x.scope]++; all[x.scope] > all[loudest] {
				loudest = x.scope
			}
			if k := (ruling{x.scope, x.manifest}); x.until == open {
				if opened[k]++; opened[k] > opened[widest] {
					widest = k
				}
			}
		}
		switch {
		case opened[widest] > 1:
			rs = rs.join(widest)
		case all[loudest] > 1:
			rs = rs.lose(loudest, func(x reign) bool { return x.scope == loudest })
		default:
			rs = rs.lose(allTenants, func(reign) bool { return true })
		}
	}
	return rs
}

// join makes one of all reigns of a manifest that are open. What is told of the
// manifest later goes into it, too.
func (rs reigns) join(k ruling) reigns {
	one := reign{k.scope, k.manifest, several, open, unseen}
	rs = slices.DeleteFunc(rs, func(x reign) bool {
		if x.until != open || x.scope != k.scope || x.manifest != k.manifest {
			return false
		}
		one.from, one.until = min(one.from, x.from), max(one.until, x.from)
		return true
	})
	return append(rs, one)
}

// lose gives up some, and notes until when nothing is known of their scope.
func (rs reigns) lose(scope string, which func(reign) bool) reigns {
	note := reign{scope, "", forgotten, unseen, unseen}
	rs = slices.DeleteFunc(rs, func(x reign) bool {
		if !which(x) {
			return false
		}
		note.until = max(note.until, x.last())
		return true
	})
	return append(rs, note)
}

// last is when something is known to have happened last.
func (x *reign) last() int64 {
	if x.until == open {
		return x.from
	}
	return x.until
}

// unknown reports whether reigns that a tenant's windows may be cut by are not known.
func (rs reigns) unknown(tenant string) bool {
	return slices.ContainsFunc(rs, func(x reign) bool { return x.upstream == forgotten && (x.scope == tenant || x.scope == allTenants) })
}

// merge adds one that is over to those of its manifest that it touches.
func (rs reigns) merge(over reign) reigns {
	for i := 0; i < len(rs); i++ {
		x := &rs[i]
		if x.upstream == noUpstream && x.scope == over.scope && x.manifest == over.manifest && x.from <= over.until && over.from <= x.until {
			over.from, over.until = min(x.from, over.from), max(x.until, over.until)
			rs = slices.Delete(rs, i, i+1)
			i = -1
		}
	}
	return append(rs, over)
}

// forget drops what no window can be cut by any more: reigns that have ended,
// and changes that lie, before a horizon.
func (rs reigns) forget(horizon int64) reigns {
	for i := range rs {
		if x := &rs[i]; x.upstream == several && x.from < horizon {
			x.upstream = fewer // the first is
		}
	}
	return slices.DeleteFunc(rs, func(x reign) bool { return x.until < horizon || x.until == open && x.from < horizon })
}

// within are the reigns of a scope that meet a time. Without any, the manifest
// that is asked about has ruled all along.
func (rs reigns) within(scope string, manifest []byte, start, end int64) []reign {
	var out []reign
	known := false
	for _, x := range rs {
		if x.scope == scope {
			known = known || x.manifest == string(manifest)
			x.until = rs.end(x)
			if x.from <= end && start <= x.until {
				out = append(out, x)
			}
		}
	}
	if !known || len(out) == 0 {
		out = append(out, reign{scope: scope, manifest: string(manifest), from: unseen, until: open})
	}
	return out
}

// end is until when a reign is taken to last. One that is open in a partition
// without events since is over where another manifest began after it: else that
// partition would cut windows until its next event.
func (rs reigns) end(x reign) int64 {
	if x.until != open && !x.bundled() {
		return x.until
	}
	end := int64(open)
	for _, y := range rs {
		if (y.until == open || y.upstream == several) && y.scope == x.scope && y.manifest != x.manifest && y.from > x.last() {
			end = min(end, y.from)
		}
	}
	return end
}

// cut reports whether, in a time of ingest, both ends in, rules ruled for a
// detection's tenant that did not have its correlation at its revision. What is
// decided at the watermark is then left undecided: not all that happened was
// counted for it. It may have to wait for rules, as long as ctx lets it.
func (f *folder) cut(ctx context.Context, d *detectionv1.Detection, startMS, endMS int64) (bool, error) {
	if len(f.meta.reigns) == 0 {
		return false, nil
	}
	if f.meta.reigns.unknown(d.GetTenant()) {
		return true, nil
	}
	p, err := f.plans.Get(ctx, d.GetManifestAll(), d.GetManifestTenant())
	if err != nil {
		return false, fmt.Errorf("rules of a window of %s: %w", d.GetCorrelationId(), err)
	}
	now := p.correlations[d.GetCorrelationId()]
	if now == nil {
		return true, nil
	}
	own := f.meta.reigns.within(d.GetTenant(), d.GetManifestTenant(), startMS, endMS)
	for _, a := range f.meta.reigns.within(allTenants, d.GetManifestAll(), startMS, endMS) {
		for _, o := range own {
			if max(a.from, o.from, startMS) > min(a.until, o.until, endMS) {
				continue // never at one time
			}
			p, err := f.plans.Get(ctx, []byte(a.manifest), []byte(o.manifest))
			if err != nil {
				return false, fmt.Errorf("rules that ruled within a window of %s: %w", d.GetCorrelationId(), err)
			}
			if c := p.correlations[d.GetCorrelationId()]; c == nil || c.Revision != d.GetCorrelationRevision() || c.Shadow != now.Shadow {
				return true, nil
			}
		}
	}
	return false, nil
}

// ruling folds what detect has told of manifests.
func (s *step) ruling(r *detectionv1.Ruling) {
	next := s.f.meta.marks.next(upstream{0, r.GetUpstreamPartition()})
	if r.GetNextOffset() > 0 && r.GetNextOffset() <= next {
		s.f.counts.copied(1)
		return
	}
	s.f.meta.reigns = s.f.meta.reigns.tell(r)
}

// forgetRulings drops what no window can be cut by that was not decided at a
// watermark.
func (s *step) forgetRulings(w int64) {
	back := max(s.f.meta.lookBack, hourMS)
	if m := &s.f.meta; len(m.reigns) > 0 && w > unseen+back {
		m.reigns = m.reigns.forget(w - back)
	}
}

var errRulings = errors.New("damaged rulings in the store: flush it, the log rebuilds it")

// append writes manifests once, and refers to them.
func (rs reigns) append(b []byte) []byte {
	var table []string
	for _, x := range rs {
		if !slices.Contains(table, x.manifest) {
			table = append(table, x.manifest)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(table)))
	for _, manifest := range table {
		b = append(binary.AppendUvarint(b, uint64(len(manifest))), manifest...)
	}
	b = binary.AppendUvarint(b, uint64(len(rs)))
	for _, x := range rs {
		b = append(binary.AppendUvarint(b, uint64(len(x.scope))), x.scope...)
		b = binary.AppendUvarint(b, uint64(slices.Index(table, x.manifest)))
		b = binary.AppendVarint(b, int64(x.upstream))
		b = binary.AppendVarint(binary.AppendVarint(b, x.from), x.until)
	}
	return b
}

func decodeReigns(b []byte) (rs reigns, err error) {
	bad := false
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	signed := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	text := func() string {
		n := number()
		if n > uint64(len(b)) {
			bad, b = true, nil
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	var table []string
	for n := number(); n > 0 && !bad; n-- {
		table = append(table, text())
	}
	for n := number(); n > 0 && !bad; n-- {
		x := reign{scope: text()}
		if i := number(); i < uint64(len(table)) {
			x.manifest = table[i]
		} else {
			bad = true
		}
		x.upstream, x.from = int32(signed()), signed()
		x.until = signed()
		rs = append(rs, x)
	}
	if bad || len(b) > 0 || len(rs) > maxReigns+1 {
		return nil, errRulings
	}
	return rs, nil
}
