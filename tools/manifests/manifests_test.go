package manifests_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	"github.com/stormbell/stormbell/tools/manifests"
)

const kubernetes = "../../deployments/kubernetes"

func render(t *testing.T, dir string) *manifests.Set {
	t.Helper()
	set, err := manifests.Render(filepath.Join(kubernetes, dir))
	require.NoError(t, err)
	return set
}

// everything is the base with a component: what an overlay would take.
func everything(t *testing.T, lines string) (*manifests.Set, error) {
	t.Helper()
	dir := t.TempDir()
	base, err := filepath.Abs(kubernetes)
	require.NoError(t, err)
	resolved, err := filepath.EvalSymlinks(dir)
	require.NoError(t, err)
	up, err := filepath.Rel(resolved, base)
	require.NoError(t, err)
	text := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: stormbell\n" + strings.ReplaceAll(lines, "KUBERNETES", up)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600))
	return manifests.Render(dir)
}

// directories are those beneath deployments/kubernetes that hold a kustomization
// of a kind.
func directories(t *testing.T, kind string) []string {
	t.Helper()
	var found []string
	require.NoError(t, filepath.WalkDir(kubernetes, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.Name() != "kustomization.yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), "\nkind: "+kind+"\n") {
			dir, _ := filepath.Rel(kubernetes, filepath.Dir(path))
			found = append(found, dir)
		}
		return err
	}))
	require.NotEmpty(t, found)
	return found
}

// TestEverythingRenders reads all of it strictly: overlays, examples, and each
// component on the base.
func TestEverythingRenders(t *testing.T) {
	for _, dir := range directories(t, "Kustomization") {
		t.Run(dir, func(t *testing.T) { require.NotEmpty(t, render(t, dir).Deployments) })
	}
	for _, dir := range directories(t, "Component") {
		t.Run(dir, func(t *testing.T) {
			plain, err := everything(t, "resources: [KUBERNETES/base]\n")
			require.NoError(t, err)
			set, err := everything(t, "resources: [KUBERNETES/base]\ncomponents: [KUBERNETES/"+dir+"]\n")
			require.NoError(t, err)
			require.NotEqual(t, string(plain.YAML), string(set.YAML), "it changes something")
		})
	}
	_, err := everything(t, "resources: [KUBERNETES/base]\npatches: [{target: {kind: Deployment}, patch: '[{op: add, path: /spec/template/spec/colour, value: red}]'}]\n")
	require.ErrorContains(t, err, "colour", "what Kubernetes does not know is noticed")
}

func TestPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	refused := func(p manifests.Pod) string {
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &p.Template.ObjectMeta, &p.Template.Spec))
		return result.ForbiddenDetail()
	}
	for _, dir := range directories(t, "Kustomization") {
		for _, p := range render(t, dir).Pods() {
			require.Empty(t, refused(p), "%s: %s %s", dir, p.Kind, p.Name)
		}
	}
	bad := render(t, "base").Pods()[0]
	bad.Template.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = nil
	require.Contains(t, refused(bad), "allowPrivilegeEscalation", "a breach is noticed")
}

// TestPods holds the services to what the standards do not ask for.
func TestPods(t *testing.T) {
	for _, dir := range []string{"base", "overlays/dev"} {
		set := render(t, dir)
		names := map[string]bool{}
		for _, d := range set.Deployments {
			names[d.Name] = true
			t.Run(dir+"/"+d.Name, func(t *testing.T) {
				spec := d.Spec.Template.Spec
				require.Len(t, spec.Containers, 1)
				c := spec.Containers[0]
				require.Equal(t, int64(65532), *spec.SecurityContext.RunAsUser)
				require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
				require.False(t, *spec.AutomountServiceAccountToken)
				require.False(t, *spec.EnableServiceLinks)
				require.Equal(t, d.Name, spec.ServiceAccountName)
				require.Len(t, spec.TopologySpreadConstraints, 2)
				require.False(t, c.Resources.Requests.Cpu().IsZero())
				require.False(t, c.Resources.Requests.Memory().IsZero())
				require.False(t, c.Resources.Limits.Memory().IsZero())
				probes(t, &c)
				hasMemoryLimit(t, &c)
			})
		}
		require.Equal(t, map[string]bool{"gateway": true, "correlator-detect": true, "correlator-correlate": true, "notifier": true}, names)
		require.Len(t, set.Budgets, len(names))
		for _, b := range set.Budgets {
			require.True(t, names[b.Name])
			require.Equal(t, "1", b.Spec.MaxUnavailable.String())
		}
		for _, a := range set.ServiceAccounts {
			require.False(t, *a.AutomountServiceAccountToken, a.Name)
		}
	}
}

// probes asks other things of each: who lives need not be ready.
func probes(t *testing.T, c *corev1.Container) {
	t.Helper()
	for path, p := range map[string][]*corev1.Probe{"/healthz": {c.StartupProbe, c.LivenessProbe}, "/readyz": {c.ReadinessProbe}} {
		for _, probe := range p {
			require.NotNil(t, probe)
			require.Equal(t, path, probe.HTTPGet.Path)
			require.Equal(t, "admin", probe.HTTPGet.Port.StrVal)
		}
	}
}

// hasMemoryLimit holds that Go collects before the kernel kills.
func hasMemoryLimit(t *testing.T, c *corev1.Container) {
	t.Helper()
	for _, e := range c.Env {
		if e.Name != "GOMEMLIMIT" {
			continue
		}
		mib, err := time.ParseDuration(strings.TrimSuffix(e.Value, "MiB") + "s") // a number
		require.NoError(t, err)
		limit := float64(c.Resources.Limits.Memory().Value()) / (1 << 20)
		require.InDelta(t, 0.9*limit, mib.Seconds(), 0.03*limit)
		return
	}
	require.Fail(t, "no GOMEMLIMIT")
}

// TestGraceCoversTheDrain: a gateway is not killed before it is done.
func TestGraceCoversTheDrain(t *testing.T) {
	for _, dir := range []string{"base", "overlays/dev"} {
		set := render(t, dir)
		var settings struct {
			Gateway struct {
				Linger       string `json:"linger"`
				DrainTimeout string `json:"drain_timeout"`
			} `json:"gateway"`
		}
		require.Len(t, set.ConfigMaps, 1)
		require.NoError(t, yaml.Unmarshal([]byte(set.ConfigMaps[0].Data["stormbell.yaml"]), &settings))
		linger, err := time.ParseDuration(settings.Gateway.Linger)
		require.NoError(t, err)
		drain, err := time.ParseDuration(settings.Gateway.DrainTimeout)
		require.NoError(t, err)
		i := slices.IndexFunc(set.Deployments, func(d *appsv1.Deployment) bool { return d.Name == "gateway" })
		spec := set.Deployments[i].Spec.Template.Spec
		before := time.Duration(spec.Containers[0].Lifecycle.PreStop.Sleep.Seconds) * time.Second
		require.GreaterOrEqual(t, before, 5*time.Second)
		require.GreaterOrEqual(t, linger, 2*time.Second)
		rest := 25 * time.Second // all other parts of the process
		require.GreaterOrEqual(t, time.Duration(*spec.TerminationGracePeriodSeconds)*time.Second, before+linger+drain+rest)
	}
}

// TestNoSecretIsWritten: secrets are named, never there.
func TestNoSecretIsWritten(t *testing.T) {
	for _, dir := range directories(t, "Kustomization") {
		set := render(t, dir)
		require.NotContains(t, string(set.YAML), "\nkind: Secret\n")
		for _, p := range set.Pods() {
			for _, c := range append(p.Template.Spec.InitContainers, p.Template.Spec.Containers...) {
				for _, e := range c.Env {
					if strings.Contains(e.Name, "PASSWORD") || strings.Contains(e.Name, "SECRET") || strings.HasSuffix(e.Name, "_KEY") {
						require.NotNil(t, e.ValueFrom, "%s: %s", p.Name, e.Name)
						require.NotNil(t, e.ValueFrom.SecretKeyRef, "%s: %s", p.Name, e.Name)
					}
				}
			}
		}
	}
}

// TestServicesSelectPods: what a Service, a budget or a monitor selects is there.
func TestServicesSelectPods(t *testing.T) {
	set, err := everything(t, "resources: [KUBERNETES/base]\ncomponents: [KUBERNETES/components/monitoring]\n")
	require.NoError(t, err)
	for _, s := range set.Services {
		found := 0
		for _, p := range set.Pods() {
			if covers(s.Spec.Selector, p.Template.Labels) && p.Kind == "Deployment" {
				found++
				for _, port := range s.Spec.Ports {
					require.True(t, slices.ContainsFunc(p.Template.Spec.Containers[0].Ports, func(c corev1.ContainerPort) bool { return c.Name == port.TargetPort.StrVal }), "%s %s", s.Name, port.Name)
				}
			}
		}
		require.Positive(t, found, s.Name)
	}
	for _, d := range set.Deployments {
		require.True(t, covers(d.Spec.Selector.MatchLabels, d.Spec.Template.Labels))
	}
}

func covers(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}
