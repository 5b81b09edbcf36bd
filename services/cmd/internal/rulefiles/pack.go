package rulefiles

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// A Pack is the rules of one path.
type Pack struct {
	Path  string `json:"path"`
	Rules int    `json:"rules"`
	// Version is the hash of the rules' content, wherever they lie: that of the
	// manifest where these rules alone are in force.
	Version string `json:"version"`
	// Commit is what a git checkout stands on.
	Commit string `json:"commit,omitempty"`
	// Single says that the path is one file of rules.
	Single bool `json:"-"`
}

// Packs describes each path by itself.
func Packs(paths ...string) ([]Pack, error) {
	var out []Pack
	for _, path := range paths {
		files, err := Read(path)
		if err != nil {
			return nil, err
		}
		p := Pack{Path: path, Commit: commit(path), Single: isFile(path) && !isArchive(path)}
		var entries []*controlv1.ManifestEntry
		for _, f := range files {
			docs, _ := sigma.Parse(f.Content, f.Name)
			for i := range docs {
				entries = append(entries, &controlv1.ManifestEntry{Rule: control.RuleHash(docs[i].Raw)})
			}
		}
		p.Rules, p.Version = len(entries), hex.EncodeToString(control.ManifestHash(entries))
		out = append(out, p)
	}
	return out, nil
}

// String says it in one line.
func (p Pack) String() string {
	s := fmt.Sprintf("%s: version %s", p.Path, p.Version[:12])
	if p.Commit != "" {
		s += ", commit " + p.Commit[:12]
	}
	return s
}

// commit returns what the checkout in a directory stands on, or nothing. It
// reads a few small files, and asks no git.
func commit(dir string) string {
	git := filepath.Join(dir, ".git")
	if text, ok := small(git); ok { // a worktree: a file that says where
		at, found := strings.CutPrefix(strings.TrimSpace(text), "gitdir: ")
		if !found {
			return ""
		}
		if git = at; !filepath.IsAbs(git) {
			git = filepath.Join(dir, at)
		}
	}
	head, _ := small(filepath.Join(git, "HEAD"))
	head = strings.TrimSpace(head)
	ref, symbolic := strings.CutPrefix(head, "ref: ")
	if !symbolic {
		return hash(head)
	}
	if !regexp.MustCompile(`^refs/[\w./-]+$`).MatchString(ref) || strings.Contains(ref, "..") {
		return ""
	}
	dirs := []string{git}
	if common, ok := small(filepath.Join(git, "commondir")); ok {
		if common = strings.TrimSpace(common); !filepath.IsAbs(common) {
			common = filepath.Join(git, common)
		}
		dirs = append(dirs, common)
	}
	for _, d := range dirs {
		if text, ok := small(filepath.Join(d, filepath.FromSlash(ref))); ok {
			return hash(strings.TrimSpace(text))
		}
		packed, _ := small(filepath.Join(d, "packed-refs"))
		for line := range strings.Lines(packed) {
			if sum, name, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == ref {
				return hash(sum)
			}
		}
	}
	return ""
}

// hash returns text that is the id of a commit, or nothing.
func hash(text string) string {
	if !regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`).MatchString(text) {
		return ""
	}
	return text
}

// maxSmall bounds what is read of git's own files.
const maxSmall = 16 << 20

func small(name string) (string, bool) {
	f, err := os.Open(name)
	if err != nil {
		return "", false
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxSmall))
	return string(text), err == nil // a directory cannot be read
}

// archives are those of the paths that are archives, with what is in them.
func archives(paths []string) (found, tests []ruleset.File, err error) {
	seen := make(map[string]bool)
	for _, path := range paths {
		if !isArchive(path) || !isFile(path) || seen[path] {
			continue
		}
		seen[path] = true
		f, t, err := readArchive(path)
		if err != nil {
			return nil, nil, err
		}
		found, tests = append(found, f...), append(tests, t...)
	}
	return found, tests, nil
}
