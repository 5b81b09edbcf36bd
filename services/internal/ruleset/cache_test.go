package ruleset_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// held is a control that holds manifests of one rule each.
type held map[string]*controlv1.Rule

func (h held) AwaitManifest(context.Context, []byte) error { return nil }

func (h held) Manifest(hash []byte) (*controlv1.Manifest, bool) {
	r, ok := h[string(hash)]
	return &controlv1.Manifest{Hash: hash, Entries: []*controlv1.ManifestEntry{{Rule: r.GetHash(), File: "r.yml", Line: 1}}}, ok
}

func (h held) Rule(hash []byte) (*controlv1.Rule, bool) {
	for _, r := range h {
		if string(r.GetHash()) == string(hash) {
			return r, true
		}
	}
	return nil, false
}

// TestCacheLetsGo keeps as many sets as it may, those used last, and compiles
// what it has let go of anew, to the same set.
func TestCacheLetsGo(t *testing.T) {
	rules := make(held)
	for i := range 5 {
		source := fmt.Appendf(nil, "title: R%d\nid: r%d\nlogsource: {product: p}\ndetection: {s: {f: v%d}, condition: s}\n", i, i, i)
		rules[fmt.Sprint("m", i)] = &controlv1.Rule{Hash: control.RuleHash(source), Source: source}
	}
	var compiled []string
	cache := ruleset.NewCache(rules, ruleset.Options{Limit: 2}, slog.New(slog.DiscardHandler), func(s *sigma.Set) *sigma.Rule {
		compiled = append(compiled, s.Rules()[0].ID)
		return s.Rules()[0]
	})
	get := func(manifest string) *sigma.Rule {
		r, err := cache.Get(t.Context(), []byte(manifest), nil)
		require.NoError(t, err)
		return r
	}
	first := get("m0")
	require.Same(t, first, get("m0"))
	get("m1")
	get("m0")
	get("m2")
	get("m0")
	require.Equal(t, []string{"r0", "r1", "r2"}, compiled, "what is used stays")
	get("m1")
	get("m3")
	again := get("m0")
	require.Equal(t, []string{"r0", "r1", "r2", "r1", "r3", "r0"}, compiled)
	require.NotSame(t, first, again)
	require.Equal(t, first.Revision, again.Revision)
}
