package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// processPackage holds the variables that the linker sets.
const processPackage = "github.com/stormbell/stormbell/services/cmd/internal/process"

// tags leave out of the programs what they never use, and put in what an image
// has no file for: the time zones. MessagePack comes with gin, and weighs 3 MB.
const tags = "timetzdata,nomsgpack"

// A Platform is an operating system and an architecture, in Go's names.
type Platform struct{ OS, Arch string }

// ParsePlatform reads a text such as linux/arm64.
func ParsePlatform(text string) (Platform, error) {
	system, arch, ok := strings.Cut(text, "/")
	if !ok || system != "linux" || arch != "amd64" && arch != "arm64" {
		return Platform{}, fmt.Errorf("platform %q: use linux/amd64 or linux/arm64", text)
	}
	return Platform{system, arch}, nil
}

// String returns the platform as ParsePlatform reads it.
func (p Platform) String() string { return p.OS + "/" + p.Arch }

// A Source is what programs are compiled from, and what they say of it.
type Source struct {
	// Module is the directory of the module services. It is built without the
	// workspace, as it is released.
	Module string
	// Version and Revision are what `stormbell version` prints.
	Version, Revision string
}

// compile builds programs of the source for a platform into a new directory
// beneath dir. What comes out depends on the source, its version and the Go
// toolchain, not on the machine, its directories or the time.
func (s Source) compile(ctx context.Context, dir string, p Platform, names []string) (string, error) {
	out := filepath.Join(dir, p.OS+"-"+p.Arch)
	if err := os.MkdirAll(out, 0o755); err != nil { //nolint:gosec // what is in images is no secret
		return "", fmt.Errorf("compile: %w", err)
	}
	args := []string{
		"build", "-C", s.Module, "-trimpath", "-buildvcs=false", "-tags", tags, "-o", out + string(filepath.Separator),
		"-ldflags", fmt.Sprintf("-s -w -buildid= -X %[1]s.version=%[2]s -X %[1]s.revision=%[3]s", processPackage, s.Version, s.Revision),
	}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Arch, "GOAMD64=v1", "GOARM64=v8.0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("compile %s for %s: %w", strings.Join(names, ", "), p, err)
	}
	return out, nil
}
