package images_test

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log" //nolint:depguard // the library's registry wants one
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/tools/images"
)

// tiny writes a module with the programs' names, which compiles in no time: how
// images are packed does not depend on what is in them.
func tiny(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(dir, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	write("go.mod", "module example.com/tiny\n\ngo 1.26\n")
	for _, p := range images.Programs() {
		write("cmd/"+p.Name+"/main.go", "package main\n\nfunc main() { println(\""+p.Name+"\") }\n")
	}
	return dir
}

func order(t *testing.T, module, out string, platforms ...string) images.Order {
	t.Helper()
	o := images.Order{
		Source: images.Source{Module: module, Version: "v1.2.3", Revision: "0123456789abcdef"}, Out: out, Registry: "stormbell", Tag: "test",
	}
	o.Meta = images.Meta{Version: "v1.2.3", Revision: "0123456789abcdef", Created: time.Unix(1700000000, 0).UTC()}
	for _, text := range platforms {
		p, err := images.ParsePlatform(text)
		require.NoError(t, err)
		o.Platforms = append(o.Platforms, p)
	}
	return o
}

func digests(made []images.Made) map[string]string {
	all := make(map[string]string)
	for _, m := range made {
		all[m.Name] = m.Digest.String()
	}
	return all
}

// TestSameDigest makes images of one source in two places at two times.
func TestSameDigest(t *testing.T) {
	platforms := []string{"linux/amd64", "linux/arm64"}
	first, err := images.Make(t.Context(), order(t, tiny(t), t.TempDir(), platforms...))
	require.NoError(t, err)
	second, err := images.Make(t.Context(), order(t, tiny(t), t.TempDir(), platforms...))
	require.NoError(t, err)
	require.Len(t, first, len(images.Programs()))
	require.Equal(t, digests(first), digests(second))

	other := order(t, tiny(t), t.TempDir(), platforms...)
	other.Meta.Version = "v1.2.4"
	third, err := images.Make(t.Context(), other)
	require.NoError(t, err)
	for name, digest := range digests(first) {
		require.NotEqual(t, digest, digests(third)[name], "another version is another image")
	}
}

// TestImage reads back all that is written of one program.
func TestImage(t *testing.T) {
	out := t.TempDir()
	o := order(t, tiny(t), out, "linux/amd64", "linux/arm64")
	o.Names = []string{"stormbell"}
	made, err := images.Make(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, made, 1)

	text, err := os.ReadFile(filepath.Join(out, "digests.txt"))
	require.NoError(t, err)
	require.Equal(t, made[0].Digest.String()+"  stormbell/stormbell:test\n", string(text))

	root, err := layout.ImageIndexFromPath(filepath.Join(out, "oci"))
	require.NoError(t, err)
	index, err := root.ImageIndex(made[0].Digest)
	require.NoError(t, err)
	require.NoError(t, validate.Index(index))
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	require.Len(t, manifest.Manifests, 2)
	require.Equal(t, "linux/arm64", manifest.Manifests[1].Platform.String())

	tag, err := name.NewTag("stormbell/stormbell:test")
	require.NoError(t, err)
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		image, err := tarball.ImageFromPath(filepath.Join(out, "stormbell-"+arch+".tar"), &tag)
		require.NoError(t, err)
		program, err := elf.NewFile(bytes.NewReader(contents(t, image)["stormbell"].content))
		require.NoError(t, err)
		require.Equal(t, machine, program.Machine)
		libraries, err := program.ImportedLibraries()
		require.NoError(t, err)
		require.Empty(t, libraries)
	}
	image, err := tarball.ImageFromPath(filepath.Join(out, "stormbell-amd64.tar"), &tag)
	require.NoError(t, err)
	config, err := image.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "65532:65532", config.Config.User)
	require.Equal(t, []string{"/stormbell"}, config.Config.Entrypoint)
	require.Equal(t, "amd64", config.Architecture)
	require.Equal(t, "v1.2.3", config.Config.Labels["org.opencontainers.image.version"])
	require.Equal(t, "0123456789abcdef", config.Config.Labels["org.opencontainers.image.revision"])
	require.Equal(t, "2023-11-14T22:13:20Z", config.Config.Labels["org.opencontainers.image.created"])
	require.Contains(t, config.Config.Volumes, "/data")

	files := contents(t, image)
	require.Equal(t, "stormbell:x:65532:65532::/:/none\n", string(files["etc/passwd"].content))
	require.Equal(t, 65532, files["data/"].header.Uid)
	require.EqualValues(t, 0o755, files["stormbell"].header.Mode)
	requireAuthorities(t, files["etc/ssl/certs/ca-certificates.crt"].content)
	for name, f := range files {
		require.NotContains(t, []string{"bin/sh", "busybox"}, name)
		require.Zero(t, f.header.ModTime.Unix(), name)
		require.Zero(t, f.header.Mode&0o6022, "%s: nobody else may write, nothing changes its user", name)
	}
	requireBOM(t, filepath.Join(out, "stormbell-arm64.cdx.json"))
}

// TestPush sends to a registry and asks it for what it has.
func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	o := order(t, tiny(t), t.TempDir(), "linux/amd64", "linux/arm64")
	o.Names, o.Push, o.Registry = []string{"gateway"}, true, strings.TrimPrefix(server.URL, "http://")+"/stormbell"
	made, err := images.Make(t.Context(), o)
	require.NoError(t, err)
	tag, err := name.NewTag(o.Registry + "/gateway:test")
	require.NoError(t, err)
	there, err := remote.Index(tag)
	require.NoError(t, err)
	digest, err := there.Digest()
	require.NoError(t, err)
	require.Equal(t, made[0].Digest, digest)
	require.NoError(t, validate.Index(there))

	server.Close()
	_, err = images.Make(t.Context(), o)
	require.ErrorContains(t, err, "push "+o.Registry+"/gateway:test")
}

type entry struct {
	header  *tar.Header
	content []byte
}

func contents(t *testing.T, image v1.Image) map[string]entry {
	t.Helper()
	layers, err := image.Layers()
	require.NoError(t, err)
	found := make(map[string]entry)
	for _, l := range layers {
		r, err := l.Uncompressed()
		require.NoError(t, err)
		for in := tar.NewReader(r); ; {
			h, err := in.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			content, err := io.ReadAll(in)
			require.NoError(t, err)
			found[h.Name] = entry{h, content}
		}
		require.NoError(t, r.Close())
	}
	return found
}

// requireAuthorities holds that the file is one that Go can take up, and that
// it is not cut short.
func requireAuthorities(t *testing.T, text []byte) {
	t.Helper()
	count := 0
	for rest := bytes.TrimSpace(text); len(rest) > 0; count++ {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		require.NotNil(t, block)
		cert, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		require.True(t, cert.IsCA)
	}
	require.Greater(t, count, 100)
}

func requireBOM(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var bom struct {
		BOMFormat string
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version, PURL string }
	}
	require.NoError(t, json.Unmarshal(text, &bom))
	require.Equal(t, "CycloneDX", bom.BOMFormat)
	require.Equal(t, "v1.2.3", bom.Metadata.Component.Version)
	require.Equal(t, "std", bom.Components[0].Name)
	require.True(t, strings.HasPrefix(bom.Components[0].PURL, "pkg:golang/std@1."), bom.Components[0].PURL)
}

func TestRefuses(t *testing.T) {
	for _, text := range []string{"", "linux", "windows/amd64", "linux/riscv64"} {
		_, err := images.ParsePlatform(text)
		require.ErrorContains(t, err, "use linux/amd64 or linux/arm64", text)
	}
	o := order(t, tiny(t), t.TempDir(), "linux/amd64")
	o.Names = []string{"archive"}
	_, err := images.Make(t.Context(), o)
	require.ErrorContains(t, err, `no program "archive": use gateway`)
	o.Names, o.Source.Module = nil, t.TempDir()
	_, err = images.Make(t.Context(), o)
	require.ErrorContains(t, err, "compile gateway, correlator")
	o = order(t, tiny(t), t.TempDir(), "linux/amd64")
	o.Registry = "Not A Name"
	_, err = images.Make(t.Context(), o)
	require.ErrorContains(t, err, "name of an image")
}

// TestQuick pushes one image as it would be made otherwise, but for how it is
// squeezed.
func TestQuick(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	o := order(t, tiny(t), t.TempDir(), "linux/amd64")
	o.Names, o.Push, o.Registry, o.Meta.Created = []string{"gateway"}, true, host+"/stormbell", time.Time{}
	_, err := images.Make(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, images.Quick(t.Context(), o.Source, "gateway", o.Platforms[0], host+"/dev_gateway:1"))
	pull := func(ref string) v1.Image {
		tag, err := name.NewTag(ref)
		require.NoError(t, err)
		image, err := remote.Image(tag, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}))
		require.NoError(t, err)
		require.NoError(t, validate.Image(image))
		return image
	}
	made, err := pull(host + "/stormbell/gateway:test").ConfigFile()
	require.NoError(t, err)
	quick, err := pull(host + "/dev_gateway:1").ConfigFile()
	require.NoError(t, err)
	require.Equal(t, made.RootFS, quick.RootFS, "the same files")
	require.Equal(t, made.Config.Entrypoint, quick.Config.Entrypoint)
	require.Equal(t, made.Config.Env, quick.Config.Env)
	require.Equal(t, made.Config.User, quick.Config.User)

	require.ErrorContains(t, images.Quick(t.Context(), o.Source, "agent", o.Platforms[0], host+"/x:1"), `no program "agent"`)
	server.Close()
	require.ErrorContains(t, images.Quick(t.Context(), o.Source, "gateway", o.Platforms[0], host+"/dev_gateway:2"), "push "+host+"/dev_gateway:2")
}
