package kubescore_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zegl/kube-score/config"
	"github.com/zegl/kube-score/domain"
	"github.com/zegl/kube-score/parser"
	"github.com/zegl/kube-score/score"
	"github.com/zegl/kube-score/score/checks"
	"github.com/zegl/kube-score/scorecard"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const (
	kubernetes = "../../deployments/kubernetes"
	// released gives images the tag that the base, which is no release, leaves open.
	released = "images: [{name: stormbell/gateway, newTag: v1}, {name: stormbell/correlator, newTag: v1}," +
		" {name: stormbell/notifier, newTag: v1}, {name: stormbell/stormbell, newTag: v1}]\n"
)

// waivers are the criticals that stand, by check, of objects by kind and name
// ("": all), with the reason why.
func waivers() map[string]map[string]string {
	users := "the user is the image's own, which owns the files in it"
	network := "one pod of a fixed address: clients need not learn a new one when the pod is made anew"
	return map[string]map[string]string{
		"container-image-pull-policy":                       {"": "with Always a pod waits for the registry whenever it starts; tags of releases do not move"},
		"container-security-context-user-group-id":          {"StatefulSet kafka": users, "StatefulSet redis": users},
		"container-security-context-readonlyrootfilesystem": {"StatefulSet kafka": "the image's own start script writes there; for development only"},
		"statefulset-has-servicename":                       {"StatefulSet kafka": network, "StatefulSet redis": network},
	}
}

// render is what `kubectl kustomize` makes of a kustomization of these lines.
func render(t *testing.T, lines string) []byte {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	base, err := filepath.Abs(kubernetes)
	require.NoError(t, err)
	up, err := filepath.Rel(dir, base)
	require.NoError(t, err)
	text := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: stormbell\n" + strings.ReplaceAll(lines, "KUBERNETES", up)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600))
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	require.NoError(t, err)
	rendered, err := all.AsYaml()
	require.NoError(t, err)
	return rendered
}

type manifest struct{ io.Reader }

func (manifest) Name() string { return "rendered" }

// criticals are what kube-score finds critical, by check and then by kind and name.
func criticals(t *testing.T, rendered []byte) map[string]map[string]string {
	t.Helper()
	// A CPU limit delays answers while the processor idles. Memory, which cannot be
	// taken back, has one.
	run := &config.RunConfiguration{
		IgnoreContainerCpuLimitRequirement: true, KubernetesVersion: config.Semver{Major: 1, Minor: 30},
		MinReplicasDeployment: 2, MinReplicasHPA: 2,
	}
	p, err := parser.New(&parser.Config{})
	require.NoError(t, err)
	parsed, err := p.ParseFiles([]domain.NamedReader{manifest{bytes.NewReader(rendered)}})
	require.NoError(t, err)
	card, err := score.Score(parsed, score.RegisterAllChecks(parsed, &checks.Config{}, run), run)
	require.NoError(t, err)
	require.NotEmpty(t, *card)
	found := map[string]map[string]string{}
	for _, o := range *card {
		for _, c := range o.Checks {
			if c.Skipped || c.Grade > scorecard.GradeCritical {
				continue
			}
			if found[c.Check.ID] == nil {
				found[c.Check.ID] = map[string]string{}
			}
			why := ""
			for _, comment := range c.Comments {
				why += comment.Path + ": " + comment.Summary + ". "
			}
			found[c.Check.ID][o.TypeMeta.Kind+" "+o.ObjectMeta.Name] = why
		}
	}
	return found
}

// TestKubeScore holds what is rendered free of what kube-score finds critical,
// waivers aside, each of which is needed.
func TestKubeScore(t *testing.T) {
	needed := map[string]map[string]bool{}
	for name, lines := range map[string]string{
		"base": "resources: [KUBERNETES/base]\n" + released,
		"all": "resources: [KUBERNETES/base]\ncomponents: [KUBERNETES/components/gateway-hpa, KUBERNETES/components/ingress," +
			" KUBERNETES/components/gateway-api, KUBERNETES/components/gateway-tls, KUBERNETES/components/keda," +
			" KUBERNETES/components/kafka-ca, KUBERNETES/components/monitoring, KUBERNETES/components/redis-ca]\n" + released,
		"dev":        "resources: [KUBERNETES/overlays/dev]\n",
		"production": "resources: [KUBERNETES/examples/production]\n",
		"msk":        "resources: [KUBERNETES/examples/msk]\n",
		"confluent":  "resources: [KUBERNETES/examples/confluent]\n",
	} {
		for check, objects := range criticals(t, render(t, lines)) {
			for object, why := range objects {
				waived := false
				for _, of := range []string{"", object} {
					if waivers()[check][of] == "" {
						continue
					}
					waived = true
					if needed[check] == nil {
						needed[check] = map[string]bool{}
					}
					needed[check][of] = true
				}
				if !waived {
					t.Errorf("%s: %s: %s: %s", name, object, check, why)
				}
			}
		}
	}
	for check, objects := range waivers() {
		for object := range objects {
			require.True(t, needed[check][object], "the waiver of %s for %q is not needed", check, object)
		}
	}
}

// TestKubeScoreNotices: what would be wrong is found.
func TestKubeScoreNotices(t *testing.T) {
	rendered := render(t, `resources: [KUBERNETES/base]
patches:
  - target: {kind: Deployment, name: gateway}
    patch: |-
      - {op: remove, path: /spec/template/spec/containers/0/resources/limits/memory}
`)
	require.Contains(t, criticals(t, rendered)["container-resources"], "Deployment gateway")
}
