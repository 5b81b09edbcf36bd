package images

import (
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Quick makes the image of one program for one platform and pushes it as ref,
// for clusters of developers: what is in it is as Make has it, but it is not
// squeezed, nothing is written to disk, and there is no bill of materials.
func Quick(ctx context.Context, source Source, program string, platform Platform, ref string) error {
	chosen, err := Order{Names: []string{program}}.programs()
	if err != nil {
		return err
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("name of an image: %w", err)
	}
	work, err := os.MkdirTemp("", "images-")
	if err != nil {
		return fmt.Errorf("compile: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	dir, err := source.compile(ctx, work, platform, []string{program})
	if err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(dir, program))
	if err != nil {
		return fmt.Errorf("image of %s: %w", program, err)
	}
	image, err := pack(chosen[0], platform, content, Meta{Version: source.Version, Revision: source.Revision}, gzip.NoCompression)
	if err != nil {
		return err
	}
	if err := remote.Write(tag, image, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}
