package images_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/tools/child"
	"github.com/stormbell/stormbell/tools/images"
)

// maxBytes is what an image may weigh, unpacked.
const maxBytes = 40_000_000

// TestStormbell makes the real images twice, of copies of the source in two
// places, and runs them confined.
func TestStormbell(t *testing.T) {
	if os.Getenv("STORMBELL_IMAGES") == "" {
		t.Skip("compiles everything for two platforms, which takes minutes: `make test-images` runs it")
	}
	platforms := []string{"linux/amd64", "linux/arm64"}
	if text := os.Getenv("PLATFORMS"); text != "" {
		platforms = strings.Split(text, ",")
	}
	places := [2]string{t.TempDir(), t.TempDir()}
	for _, dir := range places { // both before the first is compiled, lest someone edits meanwhile
		for _, module := range []string{"proto", "services"} {
			require.NoError(t, os.CopyFS(filepath.Join(dir, module), os.DirFS("../../"+module)))
		}
	}
	var all [2][]images.Made
	for i, dir := range places {
		made, err := images.Make(t.Context(), order(t, filepath.Join(dir, "services"), t.TempDir(), platforms...))
		require.NoError(t, err)
		all[i] = made
	}
	require.Equal(t, digests(all[0]), digests(all[1]))
	for _, m := range all[0] {
		for platform, size := range m.Bytes {
			require.Less(t, size, int64(maxBytes), "%s for %s", m.Name, platform)
		}
	}
	t.Run("confined", func(t *testing.T) { runConfined(t, all[0]) })
	t.Run("emulated", func(t *testing.T) { runEmulated(t, all[0]) })
}

// runEmulated has the programs for arm64 say their version, on whichever machine.
func runEmulated(t *testing.T, made []images.Made) {
	emulator, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		t.Skip("needs qemu-aarch64-static (Debian: qemu-user-static)")
	}
	arm, err := images.ParsePlatform("linux/arm64")
	require.NoError(t, err)
	for _, m := range made {
		if m.Archives[arm] == "" {
			t.Skip("made for other platforms than arm64")
		}
		program := unpack(t, m, m.Archives[arm])
		out, err := exec.CommandContext(t.Context(), emulator, program, versionFlag(m.Name)).CombinedOutput()
		require.NoError(t, err, string(out))
		require.Contains(t, string(out), "v1.2.3")
		if m.Name == "stormbell" {
			require.Contains(t, string(out), "linux/arm64")
		}
	}
}

// unpack writes the program of an image to a file.
func unpack(t *testing.T, m images.Made, archive string) string {
	t.Helper()
	tag, err := name.NewTag(m.Ref)
	require.NoError(t, err)
	image, err := tarball.ImageFromPath(archive, &tag)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), m.Name)
	require.NoError(t, os.WriteFile(path, contents(t, image)[m.Name].content, 0o700))
	return path
}

// runConfined starts each image without rights, without network and without a
// file that it may write, and asks it whether it lives.
func runConfined(t *testing.T, made []images.Made) {
	d := startDocker(t)
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	here, err := images.ParsePlatform("linux/amd64")
	require.NoError(t, err)
	for _, m := range made {
		archive, ok := m.Archives[here]
		if !ok {
			t.Skip("made for other platforms than that of the daemon")
		}
		require.Contains(t, d.run(t, "load", "-i", archive), m.Ref)
		args := []string{
			"run", "-d", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "65532",
			"--network", "none", "-e", "STORMBELL_GATEWAY_INSECURE=true",
		}
		probe := []string{"/" + m.Name, "--probe", "live"}
		if m.Name == "stormbell" {
			args = append(args, "--tmpfs", "/data:uid=65532,mode=0700")
			probe = []string{"/stormbell", "up", "--probe", "ready"} // it has all that it needs
		} else {
			args = append(args, "-e", "STORMBELL_SEAL_ROOT_KEY="+base64.StdEncoding.EncodeToString(raw))
		}
		id := strings.TrimSpace(d.run(t, append(args, m.Ref)...))
		require.Eventually(t, func() bool {
			_, err := d.try(t.Context(), append([]string{"exec", id}, probe...)...)
			return err == nil
		}, 2*time.Minute, 100*time.Millisecond, "%s does not live", m.Name)
		d.run(t, "stop", "-t", "60", id)
		if m.Name == "gateway" || m.Name == "stormbell" { // the others may have given up for want of a Redis
			require.Equal(t, "0", strings.TrimSpace(d.run(t, "inspect", "--format", "{{.State.ExitCode}}", id)), "%s ends when it is told to", m.Name)
		}
		require.Contains(t, d.run(t, "run", "--rm", "--network", "none", m.Ref, versionFlag(m.Name)), "v1.2.3")
	}
	_, err = d.try(t.Context(), "run", "--rm", "--network", "none", made[0].Ref)
	require.ErrorContains(t, err, "without TLS", "nothing is open that nobody has opened")
}

func versionFlag(name string) string {
	if name == "stormbell" {
		return "version"
	}
	return "--version"
}

// docker is a daemon that this test has started, with directories of its own.
type docker struct{ host string }

// startDocker skips where no daemon can be started.
func startDocker(t *testing.T) docker {
	t.Helper()
	program, err := exec.LookPath("dockerd")
	if err != nil {
		program = "/usr/sbin/dockerd"
	}
	if _, err := os.Stat(program); err != nil || os.Getuid() != 0 {
		t.Skip("needs root and dockerd (Debian: docker.io)")
	}
	dir, err := os.MkdirTemp("", "dockerd-") //nolint:usetesting // a socket's path is short
	require.NoError(t, err)
	d := docker{host: "unix://" + dir + "/sock"}
	p, err := child.Start([]string{
		program, "--data-root", dir + "/data", "--exec-root", dir + "/exec", "--pidfile", dir + "/pid", "-H", d.host, "--bridge", "none", "--iptables=false",
	}, dir+"/log")
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(child.Tail(dir + "/log"))
		}
		require.NoError(t, p.Stop(time.Minute))
		require.NoError(t, os.RemoveAll(dir))
	})
	require.Eventually(t, func() bool {
		_, err := d.try(t.Context(), "version")
		return err == nil
	}, time.Minute, 100*time.Millisecond, "dockerd (process "+strconv.Itoa(os.Getpid())+"'s child) does not answer")
	return d
}

func (d docker) try(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+d.host)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", &failed{err, errs.String()}
	}
	return out.String(), nil
}

type failed struct {
	error
	said string
}

func (f *failed) Error() string { return f.error.Error() + ": " + f.said }

func (d docker) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := d.try(t.Context(), args...)
	require.NoError(t, err, strings.Join(args, " "))
	return out
}
