package rulefiles

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// Bounds of an archive, which may come from anywhere.
const (
	MaxArchiveEntries = 100_000
	MaxArchiveBytes   = 256 << 20 // unpacked
)

// isArchive goes by the name.
func isArchive(name string) bool {
	name = strings.ToLower(name)
	return strings.HasSuffix(name, ".tar.gz") || strings.HasSuffix(name, ".tgz")
}

// bounds are what is read of an archive.
type bounds struct {
	entries int
	bytes   int64
}

// readArchive returns the rule files in a compressed archive and their tests,
// called by their names beneath that of the archive. What a directory would
// leave out is left out, and so are links; nothing is written anywhere.
func readArchive(name string) (found, tests []ruleset.File, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, fmt.Errorf("read rules: %w", err)
	}
	defer func() { _ = f.Close() }()
	if found, tests, err = unpack(f, name, bounds{MaxArchiveEntries, MaxArchiveBytes}); err != nil {
		return nil, nil, fmt.Errorf("read rules: %s: %w", name, err)
	}
	return found, tests, nil
}

func unpack(r io.Reader, archive string, most bounds) (found, tests []ruleset.File, err error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return nil, nil, fmt.Errorf("not compressed by gzip: %w", err)
	}
	entries := tar.NewReader(&bounded{zip, most.bytes})
	seen := make(map[string]bool)
	for n := 0; ; n++ {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return found, tests, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("not a tar archive: %w", err)
		}
		if n == most.entries {
			return nil, nil, fmt.Errorf("more than %d entries", most.entries)
		}
		inner := path.Clean(entry.Name)
		if path.IsAbs(inner) || inner == ".." || strings.HasPrefix(inner, "../") || strings.ContainsAny(entry.Name, "\\\x00") {
			return nil, nil, fmt.Errorf("entry %q: lies outside of the archive", entry.Name)
		}
		if entry.Typeflag != tar.TypeReg || hidden(inner) || !isRule(inner) {
			continue
		}
		if seen[inner] {
			return nil, nil, fmt.Errorf("entry %q: is there twice", entry.Name)
		}
		seen[inner] = true
		content, err := io.ReadAll(io.LimitReader(entries, sigma.MaxSource+1)) // the parser says that it is too large
		if err != nil {
			return nil, nil, fmt.Errorf("entry %q: %w", entry.Name, err)
		}
		file := ruleset.File{Name: archive + "/" + inner, Content: content}
		if ruleset.IsTest(inner) {
			tests = append(tests, file)
		} else {
			found = append(found, file)
		}
	}
}

// hidden is true for what lies in a hidden directory or is hidden itself.
func hidden(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") && part != "." {
			return true
		}
	}
	return false
}

// bounded fails where more than left bytes are read, so that a small archive
// cannot unpack without end.
type bounded struct {
	from io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("unpacks to too many bytes")
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.from.Read(p)
	b.left -= int64(n)
	return n, err //nolint:wrapcheck // the caller names the archive
}
