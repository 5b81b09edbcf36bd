package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/config"
	"github.com/stormbell/stormbell/services/internal/seal"
)

type inner struct {
	// Wait is how long
	// to wait.
	Wait   time.Duration `yaml:"wait" env:"WAIT"`
	Second time.Duration `yaml:"second"`
}

type item struct {
	Name string `yaml:"name"`
}

type settings struct {
	Name     string      `yaml:"name" env:"NAME"`
	Count    int         `yaml:"count" env:"COUNT"`
	Password seal.Secret `yaml:"password" env:"PASSWORD"`
	Inner    inner       `yaml:"inner" envPrefix:"INNER_"`
	Items    []item      `yaml:"items"`
	Hosts    []string    `yaml:"hosts" env:"HOSTS"`
	hidden   int
}

func defaults() settings {
	return settings{Name: "d", Count: 3, Inner: inner{Wait: time.Second}, hidden: 1}
}

func TestFileThenEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	require.NoError(t, os.WriteFile(path, []byte("name: file\ncount: 7\npassword: canary\ninner:\n  wait: 5s\nitems:\n- name: a\n"), 0o600))
	s := defaults()
	require.NoError(t, config.Load(&s, path, []string{"STORMBELL_COUNT=9", "STORMBELL_INNER_WAIT=1m", "STORMBELL_HOSTS=a,b", "STORMBELL_NAME=", "COUNT=1", "STORMBELL_API_KEY=x"}))
	require.Equal(t, "file", s.Name, "an empty variable overrides nothing")
	require.Equal(t, 9, s.Count)
	require.Equal(t, time.Minute, s.Inner.Wait)
	require.Equal(t, []string{"a", "b"}, s.Hosts)
	require.Equal(t, "canary", s.Password.Reveal())
	require.Equal(t, []item{{"a"}}, s.Items)

	var out bytes.Buffer
	require.NoError(t, config.Print(&out, s))
	require.NotContains(t, out.String(), "canary")
	require.Contains(t, out.String(), "password: '[redacted]'")
	require.Contains(t, out.String(), "wait: 1m0s")
}

func TestUnknown(t *testing.T) {
	s := defaults()
	names, err := config.Unknown(&s, []string{"STORMBELL_PORT=tcp://x", "STORMBELL_COUNT=9", "STORMBELL_COUNTS=canary", "STORMBELL_INNER_WAIT=", "COUNTS=1", "STORMBELLS=2"})
	require.NoError(t, err)
	require.Equal(t, []string{"STORMBELL_COUNTS", "STORMBELL_PORT"}, names)
}

func TestMistakesNameTheirLineAndNoValue(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":          {"name: a\ncuont: 3\n", `line 2: unknown key "cuont"`},
		"unknown nested key":   {"inner:\n  wiat: 3s\n", `line 2: unknown key "wiat"`},
		"wrong type":           {"\ncount: canary\n", "line 2: a value of type int is needed here"},
		"duration has no unit": {"inner:\n  wait: 10\n", "line 2: a value of type duration"},
		"set twice":            {"name: a\nname: b\n", "line 2: mapping key \"name\" already defined at line 1"},
		"two documents":        {"name: a\n---\nname: b\n", "more than one YAML document"},
		"not YAML":             {"name: [\n", "line"},
		"a list":               {"- canary\n", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := defaults()
			err := config.Decode(&s, []byte(tc.text))
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "canary")
		})
	}
	s := defaults()
	err := config.Environment(&s, []string{"STORMBELL_COUNT=canary", "STORMBELL_INNER_WAIT=5"})
	require.ErrorContains(t, err, "Count")
	require.ErrorContains(t, err, "Wait")
	require.NotContains(t, err.Error(), "canary")
	require.ErrorIs(t, config.Load(&s, "/nowhere/c.yaml", nil), os.ErrNotExist)
	require.NoError(t, config.Decode(&s, nil))
	require.NoError(t, config.Decode(&s, []byte("# nothing\n")))
}

func TestReference(t *testing.T) {
	list := config.Settings(defaults())
	got := make(map[string]config.Setting)
	for _, s := range list {
		got[s.Key] = s
	}
	require.Len(t, list, 8)
	require.Equal(t, "STORMBELL_INNER_WAIT", got["inner.wait"].Env)
	require.Equal(t, "1s", got["inner.wait"].Default)
	require.Equal(t, "duration", got["inner.wait"].Type)
	require.Equal(t, "secret", got["password"].Type)
	require.Empty(t, got["items[].name"].Env)
	require.Equal(t, "list of text", got["hosts"].Type)
	page, err := config.Reference("# Settings\n", list, func(string) string { return "." })
	require.NoError(t, err)
	require.Contains(t, page, "| `inner.wait` | duration | `1s` | `STORMBELL_INNER_WAIT` | Wait is how long to wait. |")
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: a\ninner: {wait: 5s}\nitems: [{name: b}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		s := defaults()
		_ = config.Decode(&s, data)
	})
}
