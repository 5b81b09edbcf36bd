package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Definition is where the definition of a custom resource is published: a file
// of a Go module, which the checksum database vouches for.
type Definition struct {
	// Name is that of the resource in a cluster.
	Name                  string
	Module, Version, Path string
}

// Definitions are those of the custom resources that components use.
func Definitions() []Definition {
	const (
		keda    = "github.com/kedacore/keda/v2"
		monitor = "github.com/prometheus-operator/prometheus-operator"
		gateway = "sigs.k8s.io/gateway-api"
	)
	return []Definition{
		{"scaledobjects.keda.sh", keda, "v2.21.0", "config/crd/bases/keda.sh_scaledobjects.yaml"},
		{"servicemonitors.monitoring.coreos.com", monitor, "v0.94.1", "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"},
		{"prometheusrules.monitoring.coreos.com", monitor, "v0.94.1", "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"},
		{"gateways.gateway.networking.k8s.io", gateway, "v1.6.1", "config/crd/standard/gateway.networking.k8s.io_gateways.yaml"},
		{"httproutes.gateway.networking.k8s.io", gateway, "v1.6.1", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"},
	}
}

// Define makes definitions that the cluster lacks and returns their names, for
// Undefine. One that is there stays as it is.
func (c Cluster) Define(ctx context.Context, all []Definition) ([]string, error) {
	var made []string
	for _, d := range all {
		if _, err := c.Run(ctx, "", "get", "crd", d.Name); err == nil {
			continue
		} else if !strings.Contains(err.Error(), "NotFound") {
			return made, err
		}
		file, err := d.fetch(ctx)
		if err != nil {
			return made, err
		}
		// Annotations, which others would keep them in, are too small for some.
		if _, err := c.Run(ctx, "", "create", "-f", file); err != nil {
			return made, err
		}
		made = append(made, d.Name)
		if _, err := c.Run(ctx, "", "wait", "--for=condition=Established", "crd/"+d.Name, "--timeout=1m"); err != nil {
			return made, err
		}
	}
	return made, nil
}

// Undefine removes definitions, with whatever there is of them.
func (c Cluster) Undefine(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	_, err := c.Run(ctx, "", append([]string{"delete", "crd"}, names...)...)
	return err
}

// fetch returns the file, from the module cache or else through the proxy.
func (d Definition) fetch(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", d.Module+"@"+d.Version)
	cmd.Dir = os.TempDir() // no module's own
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	out, err := cmd.Output()
	var got struct{ Dir, Error string }
	if err = errors.Join(err, json.Unmarshal(out, &got)); err != nil {
		return "", fmt.Errorf("fetch %s@%s: %w: %s", d.Module, d.Version, err, got.Error)
	}
	return filepath.Join(got.Dir, d.Path), nil
}
