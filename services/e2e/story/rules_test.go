package story_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/e2e/story"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/rules"
	"github.com/stormbell/stormbell/services/sigma"
)

// alerts are what the rules that come with Stormbell say to events, by title.
func alerts(t *testing.T, events []story.Event, host ...story.Event) (titles []string) {
	t.Helper()
	files, err := rules.Files()
	require.NoError(t, err)
	var docs []sigma.Document
	for _, f := range files {
		d, problems := sigma.Parse(f.Content, f.Name)
		require.Empty(t, problems)
		docs = append(docs, d...)
	}
	cfg := correlator.DefaultConfig()
	set, problems := sigma.Compile(docs, sigma.Options{Accept: cfg.Accept})
	require.Empty(t, problems)
	run, err := correlator.NewEvaluation(t.Context(), cfg, set)
	require.NoError(t, err)
	for source, events := range map[string][]story.Event{"": events, gateway.SourceAgent: host} {
		decoder, err := gateway.NewDecoder(gateway.DefaultConfig(), "default", source)
		require.NoError(t, err)
		var lines [][]byte
		for _, e := range events {
			lines = append(lines, e.JSON)
		}
		decoded, rejected, err := decoder.Lines(bytes.Join(lines, []byte("\n")))
		require.NoError(t, err)
		require.Empty(t, rejected)
		require.Len(t, decoded, len(events))
		matched, err := run.Evaluator().Match(t.Context(), decoded)
		require.NoError(t, err)
		require.NoError(t, run.Fold(t.Context(), matched, func(a *alertv1.Alert) error {
			titles = append(titles, a.GetRule().GetTitle())
			return nil
		}, func(reason string) { require.Fail(t, "an event was left out", reason) }))
	}
	slices.Sort(titles)
	return titles
}

// TestRulesOnTheDay holds that the rules that come with Stormbell say nothing
// of an ordinary working day, and all that there is to say of how it ends.
func TestRulesOnTheDay(t *testing.T) {
	day := story.Ending(noon())
	require.Empty(t, alerts(t, day.Routine))
	require.Equal(t, []string{
		"Access key created",
		"Account taken over, step by step",
		"CloudTrail stopped or deleted",
		"Console sign-in without MFA",
		"Many secrets read in a few minutes",
		"New access key and host login from one address",
	}, alerts(t, append(day.Routine, day.Attack...), day.Host))
}
