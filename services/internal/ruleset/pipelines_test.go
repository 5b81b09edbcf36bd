package ruleset_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

const rule = "title: T\nid: r\nlogsource: {product: p}\ndetection:\n    sel: {a: x}\n    condition: sel\n"

func prefixed(t *testing.T, name, prefix string) *sigma.Pipeline {
	t.Helper()
	p, problems := sigma.ParsePipelines([]byte("name: "+name+"\ntransformations:\n- {type: field_name_prefix, prefix: "+prefix+"}\n"), name+".yml")
	require.Empty(t, problems)
	return p[0]
}

// stored is what control holds after plans were pushed.
type stored struct {
	rules     map[string]*controlv1.Rule
	manifests map[string]*controlv1.Manifest
}

func (s *stored) push(plan ruleset.Plan) []byte {
	m := &controlv1.Manifest{}
	for _, d := range plan.Documents {
		hash := control.RuleHash(d.Source)
		s.rules[string(hash)] = &controlv1.Rule{Hash: hash, Source: d.Source}
		m.Entries = append(m.Entries, &controlv1.ManifestEntry{Rule: hash, File: d.File, Line: uint32(d.Line)})
	}
	m.Hash = control.ManifestHash(m.GetEntries())
	s.manifests[string(m.GetHash())] = m
	return m.GetHash()
}

func (s *stored) AwaitManifest(context.Context, []byte) error { return nil }
func (s *stored) Manifest(hash []byte) (*controlv1.Manifest, bool) {
	m, ok := s.manifests[string(hash)]
	return m, ok
}

func (s *stored) Rule(hash []byte) (*controlv1.Rule, bool) {
	r, ok := s.rules[string(hash)]
	return r, ok
}

// TestPipelinesOfManifests holds that rules are changed by the pipelines that
// they were put in force with, whatever the other manifest of the pair holds
// and whatever whoever compiles it was told.
func TestPipelinesOfManifests(t *testing.T) {
	s := &stored{map[string]*controlv1.Rule{}, map[string]*controlv1.Manifest{}}
	file := func(id string) []ruleset.File {
		return []ruleset.File{{Name: id + ".yml", Content: []byte("title: T\nid: " + id + "\nlogsource: {product: p}\ndetection:\n    sel: {a: x}\n    condition: sel\n")}}
	}
	shared := ruleset.Replace(nil, nil, file("shared"), sigma.Options{Pipelines: []*sigma.Pipeline{prefixed(t, "one", "one."), prefixed(t, "two", "two.")}})
	require.Empty(t, shared.Problems)
	require.Equal(t, 1, shared.OK)
	require.Len(t, shared.Documents, 3)
	all := s.push(shared)
	docs, problems, err := ruleset.Documents(t.Context(), s, all)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Len(t, docs, 1, "pipelines are no rules")
	require.Len(t, docs[0].Pipelines, 2)

	own := ruleset.Replace(docs, nil, file("own"), sigma.Options{Pipelines: []*sigma.Pipeline{prefixed(t, "mine", "mine.")}})
	require.Empty(t, own.Problems)
	tenant := s.push(own)

	told := ruleset.Options{Options: sigma.Options{Pipelines: []*sigma.Pipeline{prefixed(t, "told", "told.")}}}
	cache := ruleset.NewCache(s, told, slog.New(slog.DiscardHandler), func(set *sigma.Set) *sigma.Set { return set })
	set, err := cache.Get(t.Context(), all, tenant)
	require.NoError(t, err)
	found := func(event string) (ids []string) {
		for _, r := range set.Matcher().Match(sigma.Event{Raw: []byte(event)}, nil) {
			ids = append(ids, r.ID)
		}
		return ids
	}
	require.Equal(t, []string{"shared"}, found(`{"two.one.a":"x"}`))
	require.Equal(t, []string{"own"}, found(`{"mine.a":"x"}`))
	require.Empty(t, found(`{"a":"x","mine.two.one.a":"x"}`))

	// The revision is what it would be where the rule is tried alone.
	parsed, _ := sigma.Parse(file("own")[0].Content, "own.yml")
	alone, _ := sigma.Compile(parsed, sigma.Options{Pipelines: []*sigma.Pipeline{prefixed(t, "mine", "mine.")}})
	require.Equal(t, alone.Rule("own").Revision, set.Rule("own").Revision)
	plain, _ := sigma.Compile(parsed, sigma.Options{})
	require.NotEqual(t, plain.Rule("own").Revision, set.Rule("own").Revision)

	bare := s.push(ruleset.Replace(docs, nil, file("own"), sigma.Options{}))
	require.NotEqual(t, tenant, bare, "another manifest without the pipeline")
	set, err = cache.Get(t.Context(), all, bare)
	require.NoError(t, err)
	require.Equal(t, plain.Rule("own").Revision, set.Rule("own").Revision, "none is none")
}

// TestKeptUnderPipelines holds that a kept rule lives under the pipelines that
// come into force with it.
func TestKeptUnderPipelines(t *testing.T) {
	before, _ := sigma.Parse([]byte(rule), "r.yml")
	before[0].Pipelines = []*sigma.Pipeline{prefixed(t, "old", "old.")}
	bad := []ruleset.File{{Name: "r.yml", Content: []byte("title: T\nid: r\nlogsource: {product: p}\ndetection:\n    sel: {a|nonsense: x}\n    condition: sel\n")}}
	plan := ruleset.Replace(nil, before, bad, sigma.Options{Pipelines: []*sigma.Pipeline{prefixed(t, "new", "new.")}})
	require.Equal(t, 1, plan.Kept)
	require.Len(t, plan.Documents, 2)
	require.Equal(t, "new.yml", plan.Documents[1].File)
	require.Equal(t, "old", before[0].Pipelines[0].Name, "what is in force is not touched")

	plan = ruleset.Replace(nil, nil, nil, sigma.Options{Pipelines: []*sigma.Pipeline{prefixed(t, "new", "new.")}})
	require.Empty(t, plan.Documents, "without rules there is nothing to change")
}
