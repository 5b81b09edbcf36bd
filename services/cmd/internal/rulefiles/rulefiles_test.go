package rulefiles_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
	"github.com/stormbell/stormbell/services/sigma"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yml", "a.yaml", "UPPER.YML", "deep/er/c.yml", "notes.md", ".hidden.yml", ".git/d.yml", "..data/e.yml"} {
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
