package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDeploymentsSettings holds that every file of settings that is deployed is
// one that its processes take.
func TestDeploymentsSettings(t *testing.T) {
	found := 0
	require.NoError(t, filepath.WalkDir(filepath.Join("..", "..", "..", "deployments", "kubernetes"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != "stormbell.yaml" {
			return err
		}
		found++
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		// Secrets come by the environment.
		env := map[string]string{"STORMBELL_SEAL_ROOT_KEY": strings.Repeat("A", 43) + "="}
		if strings.Contains(string(text), "sasl:") {
			env["STORMBELL_KAFKA_SASL_PASSWORD"] = "canary"
		}
		for _, kind := range []string{"gateway", "correlator", "notifier"} {
			r := stormbell(t, "", env, "config", "check", "--config", path, "--for", kind)
			require.Equal(t, exitOK, r.code, "%s, %s: %s", path, kind, r.err)
		}
		return nil
	}))
	require.Greater(t, found, 3)
}
