package gateway

import (
	"context"

	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/internal/status"
	"github.com/stormbell/stormbell/services/sigma"
)

// maxRuled bounds the pairs of manifests that are remembered.
const maxRuled = 32

// ruled is what displays have to know of the rules of a pair of manifests.
type ruled struct {
	rules        []status.InForce
	correlations []correlationBody // without figures
}

// ruledBy reads the rules of a pair of manifests. They are compiled as the
// correlator does it, once.
func (s *Service) ruledBy(ctx context.Context, all, own []byte) (ruled, error) {
	name := string(all) + "/" + string(own)
	s.listsMu.Lock()
	known, ok := s.ruled[name]
	s.listsMu.Unlock()
	if ok {
		return known, nil
	}
	var docs []sigma.Document
	for _, hash := range [][]byte{all, own} {
		d, _, err := ruleset.Documents(ctx, s.deps.Control, hash)
		if err != nil {
			return ruled{}, err
		}
		docs = append(docs, d...)
	}
	set, _ := sigma.Compile(docs, s.deps.Rules)
	for _, r := range set.Rules() {
		known.rules = append(known.rules, status.InForce{ID: r.ID, Title: r.Title, Source: r.LogSource})
	}
	for _, c := range set.Correlations() {
		known.correlations = append(known.correlations, describe(c))
		known.rules = append(known.rules, status.InForce{ID: c.ID, Title: c.Title, Correlation: true, GroupBy: c.GroupBy, Refers: c.Rules})
	}
	s.listsMu.Lock()
	defer s.listsMu.Unlock()
	if len(s.ruled) >= maxRuled {
		clear(s.ruled)
	}
	s.ruled[name] = known
	return known, nil
}
