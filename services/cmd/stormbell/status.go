package main

import (
	"encoding/json"
	"fmt"
	"net/http"

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
	var output string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show how a gateway is; the exit code is 1 if it is not ready",
		Example: "  stormbell status -o json",
		Args:    arguments(0, 0),
	}
	conn := connect(env, cmd)
	outputFlag(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := conn.open()
		if err != nil {
			return err
		}
		defer c.close()
		var s status
		if err := c.call(cmd.Context(), http.MethodGet, "/v1/status", nil, &s); err != nil {
			return err
		}
		switch output {
		case "json":
			if err := json.NewEncoder(env.out).Encode(s); err != nil {
				return fmt.Errorf("print: %w", err)
			}
		case "text":
			state := "ready"
			if !s.Ready {
				state = "not ready: " + s.Reason
			}
			fmt.Fprintf(env.out, "gateway:    %s\ntenant:     %s\nsources:    %s\npartitions: %d\nrules:      all tenants %s, own %s\n",
				printable(state), printable(s.Tenant), printable(anyOf(s.Sources)), s.Partitions, manifestName(s.Manifests.All), manifestName(s.Manifests.Tenant))
		default:
			return usagef("--output %q: use text or json", output)
		}
		if !s.Ready {
			return errFindings
		}
		return nil
	}
	return cmd
}

func manifestName(hash string) string {
	if hash == "" {
		return "none"
	}
	return printable(hash[:min(len(hash), 12)])
}
