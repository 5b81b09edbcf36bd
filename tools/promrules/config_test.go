package promrules_test

import (
	"path/filepath"
	"testing"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	_ "github.com/prometheus/prometheus/discovery/dns" // what the file finds services by
	"github.com/stretchr/testify/require"
)

// TestComposeScrapes has Prometheus read its configuration in deployments/compose.
func TestComposeScrapes(t *testing.T) {
	c, err := config.LoadFile(filepath.Join(deployments, "compose/prometheus.yaml"), false, promslog.NewNopLogger())
	require.NoError(t, err)
	require.Len(t, c.ScrapeConfigs, 1)
	require.Regexp(t, ".*stormbell.*", c.ScrapeConfigs[0].JobName, "the alert on instances asks for it")
	require.Equal(t, []string{"/etc/prometheus/rules/*.yaml"}, c.RuleFiles, "where compose.yaml mounts them")
}
