package rulefiles_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
)

func TestPipelines(t *testing.T) {
	got, err := rulefiles.Pipelines(rulefiles.WindowsSecurity)
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, rulefiles.WindowsSecurity, got[0].Name)
	got, err = rulefiles.Pipelines()
	require.NoError(t, err)
	require.Empty(t, got)
	all := []string{rulefiles.WindowsSecurity, rulefiles.AWSS3Access, rulefiles.AWSELB, rulefiles.AWSVPCFlow}
	got, err = rulefiles.Pipelines(all...)
	require.NoError(t, err)
	require.Len(t, got, len(all))
	for i, name := range all {
		require.Equal(t, name, got[i].Name)
	}
	require.Equal(t, []string{"a.yml", "b/c.yaml"}, rulefiles.PipelineFiles("a.yml", rulefiles.WindowsSecurity, "b/c.yaml"))
}
