package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// status is what a gateway says of itself.
type status struct {
	Ready      bool     `json:"ready"`
	Reason     string   `json:"reason,omitempty"`
	Tenant     string   `json:"tenant"`
	Sources    []string `json:"sources"`
	Partitions int      `json:"partitions"`
	Manifests  struct {
		All    string `json:"all"`
		Tenant string `json:"tenant"`
	} `json:"manifests"`
}

func newStatus(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show how a gateway is",
		Example: "  stormbell status -o json",
		Args:    arguments(0, 0),
	}
	finds(cmd, "the gateway is not ready")
	conn := connect(env, cmd)
	output := outputFlag(cmd)
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		var s status
		if err := gateway.get(ctx, "/v1/status", &s); err != nil {
			return err
		}
		if err := output.show(env, s, s.write); err != nil {
			return err
		}
		if !s.Ready {
			return errFindings
		}
		return nil
	})
	return cmd
}

func (s *status) write(out io.Writer) {
	state := "ready"
	if !s.Ready {
		state = "not ready: " + s.Reason
	}
	fmt.Fprintf(out, "gateway:    %s\ntenant:     %s\nsources:    %s\npartitions: %d\nrules:      all tenants %s, own %s\n",
		printable(state), printable(s.Tenant), printable(anyOf(s.Sources)), s.Partitions, manifestName(s.Manifests.All), manifestName(s.Manifests.Tenant))
}

func manifestName(hash string) string {
	if hash == "" {
		return "none"
	}
	return printable(hash[:min(len(hash), 12)])
}
