package images

import (
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Order says which images are made and where they are put.
type Order struct {
	Source    Source
	Meta      Meta
	Platforms []Platform
	// Names are those of the programs; empty: all.
	Names []string
	// Out is the directory that the images are written to.
	Out string
	// Tag and Registry are what the images are called: REGISTRY/NAME:TAG.
	Tag, Registry string
	// Push sends the images to the registry as well.
	Push bool
}

// A Made is an image that was made.
type Made struct {
	Name string
	// Ref is what the image is called, Digest what it is.
	Ref    string
	Digest v1.Hash
	// Bytes is the size of its files, by platform.
	Bytes map[Platform]int64
	// Archives are the files for `docker load`, by platform.
	Archives map[Platform]string
}

// Make compiles programs, packs them and writes for each NAME
//
//	NAME-ARCH.tar       for `docker load`
//	NAME-ARCH.cdx.json  its bill of materials
//	oci/                all of them as an OCI image layout, one index for each name
//	digests.txt         digest and name, one line each
func Make(ctx context.Context, o Order) ([]Made, error) {
	programs, err := o.programs()
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(filepath.Join(o.Out, "oci")); err != nil {
		return nil, fmt.Errorf("write images: %w", err)
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil { //nolint:gosec // what is in images is no secret
		return nil, fmt.Errorf("write images: %w", err)
	}
	store, err := layout.Write(filepath.Join(o.Out, "oci"), empty.Index)
	if err != nil {
		return nil, fmt.Errorf("write images: %w", err)
	}
	work, err := os.MkdirTemp("", "images-")
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	built := make(map[Platform]string)
	names := make([]string, len(programs))
	for i, p := range programs {
		names[i] = p.Name
	}
	for _, platform := range o.Platforms {
		if built[platform], err = o.Source.compile(ctx, work, platform, names); err != nil {
			return nil, err
		}
	}
	var made []Made
	for _, p := range programs {
		m, index, err := o.make(p, built)
		if err != nil {
			return nil, err
		}
		if err := store.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": m.Ref})); err != nil {
			return nil, fmt.Errorf("write image of %s: %w", p.Name, err)
		}
		if o.Push {
			if err := push(ctx, m.Ref, index); err != nil {
				return nil, err
			}
		}
		made = append(made, m)
	}
	return made, o.writeDigests(made)
}

func (o Order) programs() ([]Program, error) {
	all := Programs()
	if len(o.Names) == 0 {
		return all, nil
	}
	var chosen []Program
	for _, name := range o.Names {
		i := slices.IndexFunc(all, func(p Program) bool { return p.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no program %q: use gateway, correlator, notifier or stormbell", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// make packs one program for each platform.
func (o Order) make(p Program, built map[Platform]string) (Made, v1.ImageIndex, error) {
	m := Made{Name: p.Name, Ref: o.Registry + "/" + p.Name + ":" + o.Tag, Bytes: make(map[Platform]int64), Archives: make(map[Platform]string)}
	tag, err := name.NewTag(m.Ref)
	if err != nil {
		return m, nil, fmt.Errorf("name of an image: %w", err)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range o.Platforms {
		program, err := os.ReadFile(filepath.Join(built[platform], p.Name))
		if err != nil {
			return m, nil, fmt.Errorf("image of %s: %w", p.Name, err)
		}
		bom, err := BOM(p.Name, o.Meta.Version, program)
		if err != nil {
			return m, nil, err
		}
		image, err := pack(p, platform, program, o.Meta, gzip.BestSpeed)
		if err != nil {
			return m, nil, err
		}
		file := filepath.Join(o.Out, p.Name+"-"+platform.Arch)
		if err := os.WriteFile(file+".cdx.json", bom, 0o644); err != nil { //nolint:gosec // what is in images is no secret
			return m, nil, fmt.Errorf("write bill of materials: %w", err)
		}
		if err := tarball.WriteToFile(file+".tar", tag, image); err != nil {
			return m, nil, fmt.Errorf("write image of %s: %w", p.Name, err)
		}
		m.Archives[platform] = file + ".tar"
		for _, f := range base() {
			m.Bytes[platform] += int64(len(f.content))
		}
		m.Bytes[platform] += int64(len(program))
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: platform.OS, Architecture: platform.Arch}},
		})
	}
	if m.Digest, err = index.Digest(); err != nil {
		return m, nil, fmt.Errorf("image of %s: %w", p.Name, err)
	}
	return m, index, nil
}

func (o Order) writeDigests(made []Made) error {
	var lines strings.Builder
	for _, m := range made {
		fmt.Fprintf(&lines, "%s  %s\n", m.Digest, m.Ref)
	}
	if err := os.WriteFile(filepath.Join(o.Out, "digests.txt"), []byte(lines.String()), 0o644); err != nil { //nolint:gosec // digests are no secret
		return fmt.Errorf("write digests: %w", err)
	}
	return nil
}

// push sends an image of all platforms. Registries on loopback and in private
// networks are spoken to without TLS, as container engines do.
func push(ctx context.Context, ref string, index v1.ImageIndex) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("name of an image: %w", err)
	}
	if err := remote.WriteIndex(tag, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}
