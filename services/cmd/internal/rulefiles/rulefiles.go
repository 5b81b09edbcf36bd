// Package rulefiles finds rule files on disk, and those that come with
// Stormbell. It reads them and judges nothing.
package rulefiles

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/rules"
	"github.com/stormbell/stormbell/services/sigma"
)

// Read returns the files that paths name: each file itself, and of each
// directory and each archive (.tar.gz, .tgz) all .yml and .yaml files beneath
// it but hidden ones and tests of rules. Names are the paths as given. The order is that of the names, without
// repetitions. The path "stormbell:" stands for the rules that come with
// Stormbell, but for those whose id or name a file on disk has.
func Read(paths ...string) ([]ruleset.File, error) {
	names, err := List(paths...)
	if err != nil {
		return nil, err
	}
	files, err := readAll(names)
	if err != nil {
		return nil, err
	}
	unpacked, _, err := archives(paths)
	if err != nil {
		return nil, err
	}
	if len(unpacked) > 0 {
		files = append(files, unpacked...)
		slices.SortStableFunc(files, func(a, b ruleset.File) int { return strings.Compare(a.Name, b.Name) })
	}
	if !slices.Contains(paths, rules.Prefix) {
		return files, nil
	}
	defaults, err := rules.Files()
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what failed
	}
	return append(files, ruleset.Unless(defaults, files)...), nil
}

// ReadTested returns the files that Read reads, and those with their tests. A
// path may also name a file of tests, which stands for the rules beside it.
func ReadTested(paths ...string) (tested, tests []ruleset.File, err error) {
	var names []string
	for _, path := range paths {
		if ruleset.IsTest(path) {
			path = ruleset.RuleFile(path)
		}
		names = append(names, path)
	}
	if tested, err = Read(names...); err != nil {
		return nil, nil, err
	}
	var beside []string
	err = walk(names, func(path string, entry fs.FileInfo) {
		if entry.IsDir() {
			return
		}
		if ruleset.IsTest(path) {
			beside = append(beside, path)
		} else if test := ruleset.TestFile(path); isFile(test) {
			beside = append(beside, test)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(beside)
	if tests, err = readAll(slices.Compact(beside)); err != nil {
		return nil, nil, err
	}
	_, unpacked, err := archives(paths)
	if err != nil {
		return nil, nil, err
	}
	tests = append(tests, unpacked...)
	if !slices.Contains(paths, rules.Prefix) {
		return tested, tests, nil
	}
	defaults, err := rules.Tests()
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // it says what failed
	}
	for _, f := range defaults {
		if slices.ContainsFunc(tested, func(r ruleset.File) bool { return ruleset.TestsOf(f.Name, r.Name) }) {
			tests = append(tests, f)
		}
	}
	return tested, tests, nil
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.IsDir()
}

func readAll(names []string) ([]ruleset.File, error) {
	files := make([]ruleset.File, 0, len(names))
	for _, name := range names {
		content, err := read(name)
		if err != nil {
			return nil, err
		}
		files = append(files, ruleset.File{Name: name, Content: content})
	}
	return files, nil
}

// List returns the names of the files that Read reads, but for what is in
// archives.
func List(paths ...string) ([]string, error) {
	var names []string
	err := walk(paths, func(path string, entry fs.FileInfo) {
		if !entry.IsDir() && !ruleset.IsTest(path) && !isArchive(path) {
			names = append(names, path)
		}
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Directories returns all directories in which a file could change what Read
// returns.
func Directories(paths ...string) ([]string, error) {
	var dirs []string
	err := walk(paths, func(path string, entry fs.FileInfo) {
		if !entry.IsDir() {
			path = filepath.Dir(path)
		}
		dirs = append(dirs, path)
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(dirs)
	return slices.Compact(dirs), nil
}

// walk calls visit for paths and for what of interest lies beneath them.
func walk(paths []string, visit func(path string, entry fs.FileInfo)) error {
	for _, path := range paths {
		if path == rules.Prefix {
			continue // they are in the binary
		}
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("read rules: %w", err)
		}
		visit(path, info)
		if !info.IsDir() {
			continue
		}
		err = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || name == path {
				return gone(err)
			}
			if strings.HasPrefix(entry.Name(), ".") {
				if entry.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
			if !entry.IsDir() && !isRule(name) {
				return nil
			}
			info, err := os.Stat(name) // through links, as a mounted ConfigMap has them
			if err != nil {
				return gone(err)
			}
			if entry.IsDir() || !info.IsDir() {
				visit(name, info)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read rules: %w", err)
		}
	}
	return nil
}

// gone forgives what vanished while it was looked at.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func isRule(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return ext == ".yml" || ext == ".yaml"
}

// read reads one file, and one byte more than a parser takes, so that the
// parser says that it is too large.
func read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, sigma.MaxSource+1))
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	return content, nil
}
