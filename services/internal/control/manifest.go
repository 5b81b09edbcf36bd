package control

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
)

// Document is one YAML document of a rule file.
type Document struct {
	// File and Line say where it begins, for messages.
	File string
	Line int
	// Source is the document itself. Its hash is the rule's identity here.
	Source []byte
}

// MaxRuleBytes is the largest document that PushRules takes.
const MaxRuleBytes = 512 << 10

// RuleHash returns the SHA-256 of a rule document.
func RuleHash(source []byte) []byte {
	sum := sha256.Sum256(source)
	return sum[:]
}

// ManifestHash returns the SHA-256 of the canonical list of entries: a label,
// the number of distinct rules, and their hashes in ascending order. Where a
// rule was read does not matter, nor does the order.
func ManifestHash(entries []*controlv1.ManifestEntry) []byte {
	hashes := make([][]byte, 0, len(entries))
	for _, e := range entries {
		hashes = append(hashes, e.GetRule())
	}
	slices.SortFunc(hashes, bytes.Compare)
	hashes = slices.CompactFunc(hashes, bytes.Equal)
	h := sha256.New()
	h.Write([]byte("stormbell manifest v1\x00"))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(hashes))))
	for _, hash := range hashes {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(hash))))
		h.Write(hash)
	}
	return h.Sum(nil)
}

// PushRules puts a rule set in force for a scope: "" for all tenants, else a
// tenant's id. It writes the rules first and then the manifest, so whoever
// sees the manifest has its rules. A set that is in force already is not
// written again; one that was in force earlier gets its old hash back. It
// returns the manifest's hash. An empty set switches all rules of the scope off.
func (v *View) PushRules(ctx context.Context, scope string, docs []Document) ([]byte, error) {
	if !plain(scope) {
		return nil, fmt.Errorf("rule scope %q: use letters, digits, '-', '_' and '.'", scope)
	}
	rules := make(map[string]*controlv1.Rule, len(docs))
	entries := make([]*controlv1.ManifestEntry, 0, len(docs))
	for _, d := range docs {
		if len(d.Source) == 0 || len(d.Source) > MaxRuleBytes {
			return nil, fmt.Errorf("%s:%d: rule of %d bytes, between 1 and %d are allowed", d.File, d.Line, len(d.Source), MaxRuleBytes)
		}
		hash := RuleHash(d.Source)
		if _, ok := rules[string(hash)]; ok {
			continue
		}
		rules[string(hash)] = &controlv1.Rule{Hash: hash, Source: d.Source}
		entries = append(entries, &controlv1.ManifestEntry{Rule: hash, File: d.File, Line: uint32(max(d.Line, 0))})
	}
	slices.SortFunc(entries, func(a, b *controlv1.ManifestEntry) int { return bytes.Compare(a.GetRule(), b.GetRule()) })
	manifest := &controlv1.Manifest{Scope: scope, Hash: ManifestHash(entries), Entries: entries, CreatedMs: v.clock().UnixMilli()}
	// What is in force now decides what is written.
	if err := v.Sync(ctx); err != nil {
		return nil, err
	}
	if sameEntries(v.Current(scope), manifest) && v.complete(manifest.Hash) {
		return manifest.Hash, nil
	}
	objects := make([]*controlv1.Control, 0, len(rules)+1)
	for _, hash := range slices.Sorted(maps.Keys(rules)) {
		if _, ok := v.Rule([]byte(hash)); !ok {
			objects = append(objects, &controlv1.Control{Object: &controlv1.Control_Rule{Rule: rules[hash]}})
		}
	}
	objects = append(objects, &controlv1.Control{Object: &controlv1.Control_Manifest{Manifest: manifest}})
	if err := v.Put(ctx, objects...); err != nil {
		return nil, fmt.Errorf("push rules: %w", err)
	}
	if !v.complete(manifest.Hash) {
		return nil, errors.New("push rules: another change removed some of them meanwhile: push again")
	}
	return manifest.Hash, nil
}

// sameEntries reports whether a manifest lists the same rules from the same
// places.
func sameEntries(a, b *controlv1.Manifest) bool {
	return a != nil && slices.EqualFunc(a.GetEntries(), b.GetEntries(), func(x, y *controlv1.ManifestEntry) bool {
		return bytes.Equal(x.GetRule(), y.GetRule()) && x.GetFile() == y.GetFile() && x.GetLine() == y.GetLine()
	})
}

func sortedValues[V any](m map[string]V) []V {
	out := make([]V, 0, len(m))
	for _, id := range slices.SortedFunc(maps.Keys(m), cmp.Compare[string]) {
		out = append(out, m[id])
	}
	return out
}
