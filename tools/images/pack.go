// Package images makes the container images of Stormbell's programs, without a
// container engine: they hold one static program, the authorities that TLS
// trusts, and a name for the user. What is made of the same source with the
// same Go has the same digest, on any machine and at any time.
//
// It does not sign images and does not decide how they are run.
package images

import (
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A Program is one that gets an image.
type Program struct {
	Name, Description string
	// Listens are the ports that it opens where the image's environment is kept.
	Listens []string
	// Command is what it runs without arguments.
	Command []string
	// Env is added to the environment that all have.
	Env []string
	// Data is a directory that the program's user may write to, if it needs one.
	Data string
}

// The ports of the API and of operators.
const (
	apiPort   = "8080/tcp"
	adminPort = "8081/tcp"
)

// Programs are those that get an image. In an image loopback is of no use:
// they listen on all addresses, of which a container has those of its own.
func Programs() []Program {
	api := []string{"STORMBELL_GATEWAY_LISTEN=:8080"}
	return []Program{
		{Name: "gateway", Description: "Takes events over HTTP and serves the management API", Listens: []string{apiPort, adminPort}, Env: api},
		{Name: "correlator", Description: "Matches events against Sigma rules and counts what belongs together", Listens: []string{adminPort}},
		{Name: "notifier", Description: "Delivers alerts as signed webhooks", Listens: []string{adminPort}},
		{
			Name: "stormbell", Description: "All of Stormbell in one process, and its command line", Listens: []string{apiPort, adminPort},
			Command: []string{"up"}, Env: append(api, "STORMBELL_DATA=/data"), Data: "data/",
		},
	}
}

// Meta is what an image says of its making.
type Meta struct {
	Version, Revision string
	// Created is the time of the commit: that of the making would change the digest.
	Created time.Time
}

// pack puts a program into an image, squeezed at one of gzip's levels.
func pack(p Program, platform Platform, program []byte, meta Meta, level int) (v1.Image, error) {
	under := base()
	if p.Data != "" {
		under = append(under, file{name: p.Data, mode: 0o700, owner: User})
	}
	lower, err := layer(under, level)
	if err != nil {
		return nil, err
	}
	upper, err := layer([]file{{name: p.Name, mode: 0o755, content: program}}, level)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image,
		mutate.Addendum{Layer: lower, History: v1.History{Created: v1.Time{Time: meta.Created}, CreatedBy: "authorities, user"}},
		mutate.Addendum{Layer: upper, History: v1.History{Created: v1.Time{Time: meta.Created}, CreatedBy: "go build ./cmd/" + p.Name}},
	)
	if err != nil {
		return nil, fmt.Errorf("image of %s: %w", p.Name, err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image of %s: %w", p.Name, err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = platform.OS, platform.Arch, v1.Time{Time: meta.Created}
	config.Config = p.config(meta)
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, fmt.Errorf("image of %s: %w", p.Name, err)
	}
	return image, nil
}

func (p Program) config(meta Meta) v1.Config {
	ports := make(map[string]struct{})
	for _, port := range p.Listens {
		ports[port] = struct{}{}
	}
	c := v1.Config{
		User:         fmt.Sprintf("%d:%d", User, User),
		Entrypoint:   []string{"/" + p.Name},
		Cmd:          p.Command,
		Env:          append([]string{"STORMBELL_TELEMETRY_ADMIN=:8081"}, p.Env...),
		ExposedPorts: ports,
		WorkingDir:   "/",
		StopSignal:   "SIGTERM",
		Labels: map[string]string{
			"org.opencontainers.image.title":       "stormbell " + p.Name,
			"org.opencontainers.image.description": p.Description,
			"org.opencontainers.image.version":     meta.Version,
			"org.opencontainers.image.revision":    meta.Revision,
			"org.opencontainers.image.created":     meta.Created.Format(time.RFC3339),
			"org.opencontainers.image.source":      "https://github.com/stormbell/stormbell",
			"org.opencontainers.image.licenses":    "Apache-2.0",
		},
	}
	if p.Data != "" {
		c.Volumes = map[string]struct{}{"/data": {}}
	}
	return c
}
