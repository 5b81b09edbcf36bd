package rulefiles_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/rules"
	"github.com/stormbell/stormbell/services/sigma"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yml", "a.yaml", "UPPER.YML", "deep/er/c.yml", "notes.md", "b.test.yml", ".hidden.yml", ".git/d.yml", "..data/e.yml"} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(name), 0o600))
	}
	// As a mounted ConfigMap has them.
	require.NoError(t, os.Symlink(filepath.Join("..data", "e.yml"), filepath.Join(dir, "linked.yml")))
	require.NoError(t, os.Symlink("/no/such/file", filepath.Join(dir, "dangling.yml")))

	files, err := rulefiles.Read(dir, filepath.Join(dir, "notes.md"), filepath.Join(dir, "b.yml"))
	require.NoError(t, err)
	got := make(map[string]string)
	var names []string
	for _, f := range files {
		name, err := filepath.Rel(dir, f.Name)
		require.NoError(t, err)
		names = append(names, name)
		got[name] = string(f.Content)
	}
	require.Equal(t, []string{"UPPER.YML", "a.yaml", "b.yml", "deep/er/c.yml", "linked.yml", "notes.md"}, names)
	require.Equal(t, "deep/er/c.yml", got["deep/er/c.yml"])
	require.Equal(t, "..data/e.yml", got["linked.yml"])

	dirs, err := rulefiles.Directories(dir)
	require.NoError(t, err)
	require.Equal(t, []string{dir, filepath.Join(dir, "deep"), filepath.Join(dir, "deep", "er")}, dirs)
}

func TestReadBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.yml")
	require.NoError(t, os.WriteFile(path, make([]byte, sigma.MaxSource+100), 0o600))
	files, err := rulefiles.Read(path)
	require.NoError(t, err)
	_, problems := sigma.Parse(files[0].Content, path)
	require.NotEmpty(t, problems, "the parser says that it is too large")
}

func TestMissing(t *testing.T) {
	_, err := rulefiles.Read("/no/such/dir")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = rulefiles.Directories("/no/such/dir")
	require.ErrorIs(t, err, os.ErrNotExist)
	files, err := rulefiles.Read()
	require.NoError(t, err)
	require.Empty(t, files)
}

func TestReadTested(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.yml", "a.test.yml", "b.yml", "deep/c.yaml", "deep/c.test.yaml", "alone.test.yml"} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte("id: "+name), 0o600))
	}
	at := func(names ...string) (out []string) {
		for _, name := range names {
			out = append(out, filepath.Join(dir, name))
		}
		return out
	}
	for _, tc := range []struct{ paths, rules, tests []string }{
		{at(""), at("a.yml", "b.yml", "deep/c.yaml"), at("a.test.yml", "alone.test.yml", "deep/c.test.yaml")},
		{at("a.yml"), at("a.yml"), at("a.test.yml")},
		{at("a.test.yml", "a.yml"), at("a.yml"), at("a.test.yml")},
		{at("b.yml"), at("b.yml"), nil},
	} {
		rules, tests, err := rulefiles.ReadTested(tc.paths...)
		require.NoError(t, err)
		require.Equal(t, tc.rules, namesOf(rules), tc.paths)
		require.Equal(t, tc.tests, namesOf(tests), tc.paths)
	}
	_, _, err := rulefiles.ReadTested(at("alone.test.yml")...)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func namesOf(files []ruleset.File) (out []string) {
	for _, f := range files {
		out = append(out, f.Name)
	}
	return out
}

// TestDefaults holds that rules on disk take the place of those that come with
// Stormbell.
func TestDefaults(t *testing.T) {
	defaults, tests, err := rulefiles.ReadTested(rules.Prefix)
	require.NoError(t, err)
	require.NotEmpty(t, defaults)
	require.Len(t, tests, len(defaults))
	require.Equal(t, "stormbell:aws/access_key_created.yml", defaults[0].Name)

	path := filepath.Join(t.TempDir(), "own.yml")
	require.NoError(t, os.WriteFile(path, []byte("title: Own\nname: stormbell_access_key_created\n"), 0o600))
	files, tests, err := rulefiles.ReadTested(rules.Prefix, path)
	require.NoError(t, err)
	require.Len(t, files, len(defaults))
	require.Equal(t, path, files[0].Name)
	require.NotContains(t, namesOf(files), "stormbell:aws/access_key_created.yml")
	require.Len(t, tests, len(defaults)-1)

	dirs, err := rulefiles.Directories(rules.Prefix, path)
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Dir(path)}, dirs)
}
