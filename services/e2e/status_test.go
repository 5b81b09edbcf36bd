package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
)

// statusBody is what the scenario looks at of GET /v1/status.
type statusBody struct {
	Counts map[string]struct{ Count int64 }
	Stages []struct {
		Name      string
		Instances int
	}
	Hints []struct{ Code, Text, Command string }
}

func (s *statusBody) text() string {
	var b strings.Builder
	for _, h := range s.Hints {
		b.WriteString(h.Text + ": " + h.Command + "\n")
	}
	return b.String()
}

// testStatus holds that every gateway tells what all processes have counted, and
// goes on telling it when processes have ended.
func testStatus(t *testing.T, r *rig.Runner) {
	d := r.Start(t, rig.Options{Rules: "testdata/rules/status"})
	last := len(d.URLs) - 1
	status := func(ok func(*statusBody) bool) *statusBody {
		t.Helper()
		var s *statusBody
		err := rig.Every(within(t, patience), "status is as it should", func() bool {
			s = new(statusBody)
			d.JSON(t, last, http.MethodGet, "/v1/status", nil, http.StatusOK, s)
			return ok(s)
		})
		require.NoError(t, err, "%+v", s)
		return s
	}
	for range 3 {
		for gateway := range d.URLs {
			d.Post(t, gateway, []byte(`{"product":"app","action":"login_failed","user":"bob"}`+"\n"))
		}
	}
	sent := int64(3 * len(d.URLs))
	want := map[string]int64{"received": sent, "matched": sent, "detections": sent, "alerts": 1, "unsubscribed_alerts": 1}
	told := func(s *statusBody) bool {
		for name, n := range want {
			if s.Counts[name].Count != n {
				return false
			}
		}
		return true
	}
	instances := 1 // of each service, which tell of themselves one after the other
	if d.Kind == rig.Cluster {
		instances = 2
	}
	s := status(func(s *statusBody) bool {
		for _, st := range s.Stages {
			if st.Instances != instances {
				return false
			}
		}
		return told(s) && len(s.Stages) == 4
	})
	for _, line := range []string{
		"1 alert had no subscriber: stormbell webhooks add URL",
		"rule 'Wrong product' is for product 'apps', and no event of that product has come (came: app): did you mean 'app'?: stormbell rules explain",
		"has never matched: field session.mfa, which it needs, was in none of the events that it fits otherwise: stormbell rules explain",
	} {
		require.Contains(t, s.text(), line)
	}
	// One of each, so that the others go on.
	for _, p := range d.Processes {
		if d.Kind == rig.Embedded || strings.HasSuffix(p.Name, "-0") {
			require.NoError(t, p.Stop(time.Minute))
			require.NoError(t, p.Start(within(t, patience)))
		}
	}
	s = status(func(s *statusBody) bool { return told(s) && len(s.Stages) == 4 })
	require.Contains(t, s.text(), "had no subscriber")
	testGroups(t, d, last, sent)
}

// testGroups holds that a gateway tells which groups of a correlation are open, with
// all that came before the restart, though none has changed since.
func testGroups(t *testing.T, d *rig.Deployment, gateway int, before int64) {
	t.Helper()
	var all struct {
		Watermark    *time.Time
		Correlations []struct {
			ID, Type, Condition string
			Open                int64 `json:"open_groups"`
		}
	}
	var groups struct {
		Groups []struct {
			Group         map[string]string
			Count, Events int64
			Expires       *float64 `json:"expires_in_seconds"`
		}
	}
	require.NoError(t, rig.Every(within(t, patience), "the group is shown", func() bool {
		d.JSON(t, gateway, http.MethodGet, "/v1/correlations", nil, http.StatusOK, &all)
		if len(all.Correlations) != 1 || all.Correlations[0].Open != 1 || all.Watermark == nil {
			return false
		}
		d.JSON(t, gateway, http.MethodGet, "/v1/correlations/"+all.Correlations[0].ID+"/groups", nil, http.StatusOK, &groups)
		return len(groups.Groups) == 1 && groups.Groups[0].Expires != nil && groups.Groups[0].Count == before
	}), "%+v %+v", &all, &groups)
	c, g := all.Correlations[0], groups.Groups[0]
	require.Equal(t, []string{"event_count", "gte 2"}, []string{c.Type, c.Condition})
	require.Equal(t, map[string]string{"user": "bob"}, g.Group)
	require.Greater(t, *g.Expires, (4 * time.Hour).Seconds(), "its window, its lateness and more")
	d.JSON(t, gateway, http.MethodGet, "/v1/correlations/nonsense/groups", nil, http.StatusNotFound, nil)
}
