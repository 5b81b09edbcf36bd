package compose_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const dir = "../../deployments/compose"

type service struct {
	Image, User string
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Privileged  bool
	Profiles    []string
	Ports       []string
	Environment map[string]string
	Volumes     []string
	Healthcheck struct{ Test []string }
	Build       any
}

type file struct {
	Services map[string]service
	Secrets  map[string]struct{ File string }
	Configs  map[string]struct{ File string }
}

func read(t *testing.T) file {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "compose.yaml"))
	require.NoError(t, err)
	var f file
	require.NoError(t, yaml.Unmarshal(text, &f))
	return f
}

// TestFile holds what must not be lost when the file is changed.
func TestFile(t *testing.T) {
	f := read(t)
	ours := []string{"gateway", "correlator", "notifier", "setup", "cli"}
	for name, s := range f.Services {
		require.NotEmpty(t, s.Image, name)
		require.Nil(t, s.Build, "%s: images are pulled, or made by `make images`", name)
		tag := s.Image[strings.LastIndex(s.Image, ":")+1:]
		require.NotContains(t, []string{"latest", "latest}", ""}, tag, "%s: %s", name, s.Image)
		require.Contains(t, s.SecurityOpt, "no-new-privileges:true", name)
		require.False(t, s.Privileged, name)
		for _, p := range s.Ports {
			require.True(t, strings.HasPrefix(p, "127.0.0.1:"), "%s publishes %s beyond loopback", name, p)
		}
		for key, value := range s.Environment {
			secret := strings.Contains(key, "PASSWORD") || strings.Contains(key, "ROOT_KEY") || strings.Contains(key, "TOKEN")
			require.True(t, !secret || strings.HasPrefix(value, "/run/secrets/"), "%s: %s is no file", name, key)
		}
		if slices.Contains(ours, name) {
			require.True(t, s.ReadOnly, name)
			require.Equal(t, []string{"ALL"}, s.CapDrop, name)
			require.NotContains(t, []string{"", "0", "root"}, s.User, name)
			require.Empty(t, s.Volumes, "%s keeps nothing", name)
		}
	}
	for _, name := range []string{"gateway", "correlator", "notifier"} {
		require.Equal(t, []string{"CMD", "/" + name, "--probe", "ready"}, f.Services[name].Healthcheck.Test)
	}
	for name, s := range f.Secrets {
		require.True(t, strings.HasPrefix(s.File, "${SECRETS:-./secrets}/"), name)
	}
	for name, c := range f.Configs {
		_, err := os.Stat(filepath.Join(dir, c.File))
		require.NoError(t, err, name)
	}
}
