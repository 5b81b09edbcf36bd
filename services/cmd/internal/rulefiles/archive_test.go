package rulefiles

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/ruleset"
)

func ruleText(id string) string {
	return "title: " + id + "\nid: " + id + "\nlogsource: {product: p}\ndetection:\n    sel: {a: x}\n    condition: sel\n"
}

func packed(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for _, e := range entries {
		text := ruleText(strings.NewReplacer("/", "-", "\\", "-").Replace(e.Name))
		if e.Typeflag == 0 {
			e.Typeflag = tar.TypeReg
		}
		if e.Typeflag == tar.TypeReg {
			e.Size = int64(len(text))
		}
		require.NoError(t, w.WriteHeader(&e))
		if e.Typeflag == tar.TypeReg {
			_, err := w.Write([]byte(text))
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	require.NoError(t, zip.Close())
	return out.Bytes()
}

func named(names ...string) (entries []tar.Header) {
	for _, n := range names {
		entries = append(entries, tar.Header{Name: n})
	}
	return entries
}

func namesOf(files []ruleset.File) (names []string) {
	for _, f := range files {
		names = append(names, f.Name)
	}
	return names
}

func TestArchive(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pack.tar.gz")
	entries := append(named("rules/b.yml", "./rules/a.YAML", "rules/b.test.yml", "README.md", ".github/x.yml", "rules/.hidden.yml"),
		tar.Header{Name: "rules/", Typeflag: tar.TypeDir}, tar.Header{Name: "link.yml", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		tar.Header{Name: "hard.yml", Typeflag: tar.TypeLink, Linkname: "rules/b.yml"})
	require.NoError(t, os.WriteFile(path, packed(t, entries...), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "z.yml"), []byte(ruleText("z")), 0o600))

	files, err := Read(path, filepath.Join(dir, "z.yml"), path)
	require.NoError(t, err)
	require.Equal(t, []string{path + "/rules/a.YAML", path + "/rules/b.yml", filepath.Join(dir, "z.yml")}, namesOf(files))
	require.Equal(t, ruleText("rules-b.yml"), string(files[1].Content))
	tested, tests, err := ReadTested(path)
	require.NoError(t, err)
	require.Len(t, tested, 2)
	require.Equal(t, []string{path + "/rules/b.test.yml"}, namesOf(tests))
	require.True(t, ruleset.TestsOf(tests[0].Name, tested[1].Name))

	files, err = Read(dir)
	require.NoError(t, err)
	require.Len(t, files, 1, "archives count where they are named")
	dirs, err := Directories(path)
	require.NoError(t, err)
	require.Equal(t, []string{dir}, dirs, "a new archive is noticed")
}

func TestArchiveRefused(t *testing.T) {
	good := packed(t, named("a.yml", "b.yml")...)
	var zeros bytes.Buffer
	zip := gzip.NewWriter(&zeros)
	w := tar.NewWriter(zip)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "notes.md", Typeflag: tar.TypeReg, Size: 1 << 20}))
	_, err := w.Write(make([]byte, 1<<20))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, zip.Close())
	for name, c := range map[string]struct {
		text []byte
		most bounds
		says string
	}{
		"no gzip":     {[]byte("title: x"), bounds{9, 1 << 20}, "not compressed by gzip"},
		"no tar":      {zipped(t, strings.Repeat("x", 2000)), bounds{9, 1 << 20}, "not a tar archive"},
		"cut off":     {good[:len(good)-30], bounds{9, 1 << 20}, "unexpected EOF"},
		"entries":     {good, bounds{1, 1 << 20}, "more than 1 entries"},
		"bytes":       {good, bounds{9, 1000}, "unpacks to too many bytes"},
		"skipped too": {zeros.Bytes(), bounds{9, 1 << 19}, "unpacks to too many bytes"},
		"parent":      {packed(t, named("../a.yml")...), bounds{9, 1 << 20}, `entry "../a.yml": lies outside`},
		"deep parent": {packed(t, named("a/../../b.yml")...), bounds{9, 1 << 20}, "lies outside"},
		"root":        {packed(t, named("/etc/a.yml")...), bounds{9, 1 << 20}, "lies outside"},
		"backslash":   {packed(t, named(`..\a.yml`)...), bounds{9, 1 << 20}, "lies outside"},
		"twice":       {packed(t, named("a.yml", "./a.yml")...), bounds{9, 1 << 20}, "is there twice"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := unpack(bytes.NewReader(c.text), "p.tgz", c.most)
			require.ErrorContains(t, err, c.says)
		})
	}
	_, _, err = readArchive(filepath.Join(t.TempDir(), "none.tgz"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	_, err := zip.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, zip.Close())
	return out.Bytes()
}

func FuzzUnpack(f *testing.F) {
	f.Add(packed(f, named("a.yml", "b/c.yaml")...))
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, text []byte) {
		found, tests, err := unpack(bytes.NewReader(text), "p.tgz", bounds{100, 1 << 20})
		if err != nil {
			return
		}
		for _, file := range append(found, tests...) {
			require.True(t, strings.HasPrefix(filepath.Clean(file.Name), "p.tgz/"), file.Name)
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// TestPacks holds that a version says what the rules say, not where they lie.
func TestPacks(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "one/rules/a.yml"), ruleText("a.yml"))
	write(t, filepath.Join(dir, "one/b.yml"), ruleText("b.yml"))
	write(t, filepath.Join(dir, "two/both.yml"), ruleText("b.yml")+"---\n"+ruleText("a.yml"))
	write(t, filepath.Join(dir, "three/a.yml"), ruleText("a.yml"))
	archive := filepath.Join(dir, "pack.tgz")
	require.NoError(t, os.WriteFile(archive, packed(t, named("a.yml", "b.yml")...), 0o600))
	packs, err := Packs(filepath.Join(dir, "one"), archive, filepath.Join(dir, "two"), filepath.Join(dir, "three"))
	require.NoError(t, err)
	for _, p := range packs[:3] {
		require.Equal(t, 2, p.Rules, p.Path)
		require.Equal(t, packs[0].Version, p.Version, p.Path)
		require.Empty(t, p.Commit)
	}
	require.NotEqual(t, packs[0].Version, packs[3].Version)
	require.Equal(t, fmt.Sprintf("%s: version %s", archive, packs[1].Version[:12]), packs[1].String())
}

func TestCommit(t *testing.T) {
	id, other := strings.Repeat("0123456789", 4), strings.Repeat("abcdef0123", 4)
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"none":        {nil, ""},
		"detached":    {map[string]string{".git/HEAD": id + "\n"}, id},
		"branch":      {map[string]string{".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": id + "\n"}, id},
		"packed":      {map[string]string{".git/HEAD": "ref: refs/heads/a/b\n", ".git/packed-refs": "# pack-refs\n" + other + " refs/heads/a\n" + id + " refs/heads/a/b\n"}, id},
		"loose first": {map[string]string{".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": id, ".git/packed-refs": other + " refs/heads/main\n"}, id},
		"worktree": {map[string]string{
			".git": "gitdir: ../repo/worktrees/w\n", "../repo/worktrees/w/HEAD": "ref: refs/heads/w\n", "../repo/worktrees/w/commondir": "../..\n", "../repo/refs/heads/w": id,
		}, id},
		"outside":  {map[string]string{".git/HEAD": "ref: refs/../../secret\n", "secret": id}, ""},
		"no id":    {map[string]string{".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": "hello"}, ""},
		"new one":  {map[string]string{".git/HEAD": "ref: refs/heads/main\n"}, ""},
		"odd file": {map[string]string{".git": "hello"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "checkout")
			require.NoError(t, os.Mkdir(dir, 0o700))
			for path, text := range c.files {
				write(t, filepath.Join(dir, path), text)
			}
			require.Equal(t, c.want, commit(dir))
		})
	}
}
