// Package ruleset compiles the Sigma rules of a pair of manifests, the one for
// all tenants and a tenant's own, and keeps what it compiled.
//
// A pair always compiles to the same set: which manifest is the newest plays
// no part. It reads rules from `control` and from nowhere else.
package ruleset

import (
	"container/list"
	"context"
	"fmt"
	"log/slog"
	"sync"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/sigma"
)

// Control is where manifests and rules come from.
//
// AwaitManifest returns nil once the manifest and all its rules can be had; an
// empty hash is no manifest. Manifest and Rule return one by its hash.
type Control interface {
	AwaitManifest(ctx context.Context, hash []byte) error
	Manifest(hash []byte) (*controlv1.Manifest, bool)
	Rule(hash []byte) (*controlv1.Rule, bool)
}

// Options are what a deployment decides about its sets.
type Options struct {
	sigma.Options
	// Limit is how many sets stay compiled at once; the one that was used
	// longest ago goes first. Zero is 64.
	Limit int
}

const defaultLimit = 64

// Cache compiles each pair once, builds a T of it and hands that out. It is
// safe for concurrent use.
type Cache[T any] struct {
	control Control
	opts    Options
	log     *slog.Logger
	build   func(*sigma.Set) T

	mu      sync.Mutex
	entries map[pair]*list.Element // of *entry[T]
	used    *list.List             // the latest first
}

type pair struct{ all, tenant string }

type entry[T any] struct {
	pair  pair
	done  chan struct{} // closed once value or err is set
	value T
	err   error
}

// NewCache returns an empty cache. build is called once per compiled set; what
// it returns is shared by all callers.
func NewCache[T any](control Control, opts Options, log *slog.Logger, build func(*sigma.Set) T) *Cache[T] {
	if opts.Limit <= 0 {
		opts.Limit = defaultLimit
	}
	return &Cache[T]{control: control, opts: opts, log: log, build: build, entries: make(map[pair]*list.Element), used: list.New()}
}

// Get returns what was built of exactly this pair. It waits for `control` to
// hold it, as long as ctx lets it. Rules that do not compile are reported and
// left out: they never keep the others from running.
func (c *Cache[T]) Get(ctx context.Context, all, tenant []byte) (T, error) {
	e, mine := c.entry(pair{string(all), string(tenant)})
	if mine {
		e.value, e.err = c.compile(ctx, e.pair)
		if e.err != nil {
			c.forget(e)
		}
		close(e.done)
		return e.value, e.err
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("wait for rules: %w", ctx.Err())
	}
	if e.err != nil && ctx.Err() == nil {
		// Whoever compiled gave up: our context still lives.
		return c.Get(ctx, all, tenant)
	}
	return e.value, e.err
}

// entry returns the entry of a pair, and whether the caller has to fill it.
func (c *Cache[T]) entry(p pair) (e *entry[T], mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.entries[p]; ok {
		c.used.MoveToFront(el)
		return el.Value.(*entry[T]), false
	}
	e = &entry[T]{pair: p, done: make(chan struct{})}
	c.entries[p] = c.used.PushFront(e)
	for c.used.Len() > c.opts.Limit {
		last := c.used.Back()
		delete(c.entries, c.used.Remove(last).(*entry[T]).pair)
	}
	return e, true
}

func (c *Cache[T]) forget(e *entry[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.entries[e.pair]; ok && el.Value == any(e) {
		c.used.Remove(el)
		delete(c.entries, e.pair)
	}
}

func (c *Cache[T]) compile(ctx context.Context, p pair) (T, error) {
	var (
		none     T
		docs     []sigma.Document
		problems []sigma.Problem
	)
	for _, hash := range []string{p.all, p.tenant} {
		d, bad, err := Documents(ctx, c.control, []byte(hash))
		if err != nil {
			return none, err
		}
		docs, problems = append(docs, d...), append(problems, bad...)
	}
	set, bad := sigma.Compile(docs, c.opts.Options)
	problems = append(problems, bad...)
	for _, problem := range problems {
		if problem.Severity == sigma.Error {
			c.log.Warn("rule rejected, the others run", "rule_file", problem.File, "line", problem.Line, "problem", problem.String())
		}
	}
	c.log.Info("rules compiled", "manifest", short(p.all), "tenant_manifest", short(p.tenant), "rules", len(set.Rules()),
		"correlations", len(set.Correlations()), "rejected", sigma.Rejected(problems))
	return c.build(set), nil
}

// Documents returns the parsed rules of one manifest, each with the pipelines
// of that manifest, and what is wrong with those that do not parse. It waits
// for the manifest as long as ctx lets it.
func Documents(ctx context.Context, control Control, hash []byte) ([]sigma.Document, []sigma.Problem, error) {
	if len(hash) == 0 {
		return nil, nil, nil
	}
	if err := control.AwaitManifest(ctx, hash); err != nil {
		return nil, nil, err
	}
	manifest, ok := control.Manifest(hash)
	if !ok {
		return nil, nil, fmt.Errorf("manifest %s was removed from control while it was read", short(string(hash)))
	}
	var (
		docs      []sigma.Document
		pipelines []*sigma.Pipeline
		problems  []sigma.Problem
	)
	for _, e := range manifest.GetEntries() {
		rule, ok := control.Rule(e.GetRule())
		if !ok {
			return nil, nil, fmt.Errorf("rule %s of manifest %s was removed from control while it was read",
				short(string(e.GetRule())), short(string(hash)))
		}
		line := max(int(e.GetLine()), 1)
		if sigma.IsPipeline(rule.GetSource()) {
			p, bad := sigma.ParsePipelinesAt(rule.GetSource(), e.GetFile(), line)
			pipelines, problems = append(pipelines, p...), append(problems, bad...)
			continue
		}
		d, bad := sigma.ParseAt(rule.GetSource(), e.GetFile(), line)
		docs, problems = append(docs, d...), append(problems, bad...)
	}
	return piped(docs, pipelines), problems, nil
}

func short(hash string) string { return fmt.Sprintf("%x", hash[:min(len(hash), 6)]) }
