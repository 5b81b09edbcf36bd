package tiltfile_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/stormbell/stormbell/tools/manifests"
)

// object is what of a manifest tells which it is.
type object struct {
	Kind     string
	Metadata struct{ Name string }
}

func (o object) selector() string { return o.Metadata.Name + ":" + strings.ToLower(o.Kind) }

// TestKubernetesNamesWhatIsThere: each object of the overlay dev has its place
// among the resources, and each resource names something that is there.
func TestKubernetesNamesWhatIsThere(t *testing.T) {
	d := declare(t, "up", "--k8s")
	var workloads, loose []string
	for doc := range strings.SplitSeq(d.kube.yaml, "\n---\n") {
		var o object
		require.NoError(t, yaml.Unmarshal([]byte(doc), &o))
		switch o.Kind {
		case "Deployment", "StatefulSet", "Job":
			workloads = append(workloads, o.Metadata.Name)
		case "Service": // goes with the pods that it selects
		default:
			loose = append(loose, o.selector())
		}
	}
	var named, objects []string
	for _, r := range d.kube.grouped {
		if r.renamed {
			objects = append(objects, r.objects...)
			continue
		}
		named = append(named, r.name)
	}
	require.ElementsMatch(t, workloads, named)
	require.ElementsMatch(t, loose, objects, "what is in no resource is applied before there is a namespace")
}

// TestKubernetesOrder: what a resource waits for exists, and none waits for itself.
func TestKubernetesOrder(t *testing.T) {
	d := declare(t, "up", "--k8s")
	needs := map[string][]string{}
	for _, r := range d.resources {
		needs[r.name] = r.needs
	}
	for _, r := range d.kube.grouped {
		needs[r.name] = r.needs
	}
	var reach func(from string, path []string) []string
	reach = func(from string, path []string) []string {
		require.NotContains(t, path, from, "in a circle")
		require.Contains(t, needs, from, "needed by %v", path)
		all := []string{from}
		for _, n := range needs[from] {
			all = append(all, reach(n, append(path, from))...)
		}
		return all
	}
	for name := range needs {
		reach(name, nil)
	}
	for _, name := range []string{"gateway", "correlator-detect", "correlator-correlate", "notifier", "setup"} {
		for _, first := range []string{"namespace", "settings", "keys", "kafka", "images"} {
			require.Contains(t, reach(name, nil), first, name)
		}
		require.Contains(t, reach("journey", nil), name)
	}
}

// TestKubernetesImages: each image of ours in the overlay is built, and again for
// everything that its program imports.
func TestKubernetesImages(t *testing.T) {
	dir, err := filepath.Abs(root)
	require.NoError(t, err)
	set, err := manifests.Render(filepath.Join(root, "deployments/kubernetes/overlays/dev"))
	require.NoError(t, err)
	used := map[string]bool{}
	for _, p := range set.Pods() {
		for _, c := range slices.Concat(p.Template.Spec.InitContainers, p.Template.Spec.Containers) {
			if name, ours := strings.CutSuffix(c.Image, ":dev"); ours {
				used[name] = true
			}
		}
	}
	d := declare(t, "up", "--k8s", "--data", "/data")
	require.Equal(t, 1, d.kube.parallel, "builds take turns")
	require.ElementsMatch(t, slices.Collect(maps.Keys(used)), slices.Collect(maps.Keys(d.kube.images)))
	for ref, image := range d.kube.images {
		name := strings.TrimPrefix(ref, "stormbell/")
		t.Run(name, func(t *testing.T) {
			require.Equal(t, []string{"sh", "-euc", `exec env "$@" "$0" -quick "$EXPECTED_REF" ` + name, "/data/bin/images", "GOWORK=off", "GOGC=off", "GOMEMLIMIT=1GiB"}, image.cmd)
			require.True(t, image.pushes, "no Docker is asked")
			require.Equal(t, []string{"**/*_test.go", "**/testdata", "**/*.md"}, image.ignore)
			apart := siblings()[name]
			built := &resource{cmd: []string{"go", "build", "-C", "services", "./cmd/" + name}}
			require.Empty(t, missed(t, dir, built, image.deps, apart), "add them to the Tiltfile")
			for _, dep := range image.deps {
				_, err := os.Stat(filepath.Join(dir, dep))
				require.NoError(t, err, "watched, but not there")
			}
		})
	}
}

// TestKubernetesPorts: the ports on this machine are those of the other modes,
// on loopback, and lead to ports that containers have.
func TestKubernetesPorts(t *testing.T) {
	d := declare(t, "up", "--k8s")
	set, err := manifests.Render(filepath.Join(root, "deployments/kubernetes/overlays/dev"))
	require.NoError(t, err)
	open := map[string][]int{}
	for _, p := range set.Pods() {
		for _, port := range p.Template.Spec.Containers[0].Ports {
			open[p.Name] = append(open[p.Name], int(port.ContainerPort))
		}
	}
	want := map[string]map[int]int{
		"gateway": {8080: 8080, 8081: 8081}, "correlator-detect": {8082: 8081}, "correlator-correlate": {8086: 8081},
		"notifier": {8083: 8081}, "redis": {8084: 6379}, "kafka": {8085: 9094},
	}
	for name, r := range d.kube.grouped {
		require.Len(t, r.forwards, len(want[name]), name)
		for local, container := range r.forwards {
			require.Equal(t, want[name][local], container, name)
			require.Contains(t, open[name], container, name)
		}
		for _, host := range r.hosts {
			require.Equal(t, "127.0.0.1", host)
		}
		for local, container := range r.forwards {
			if container == 8081 {
				admin := fmt.Sprintf("http://127.0.0.1:%d", local)
				require.Equal(t, map[string]string{"ready?": admin + "/readyz", "metrics": admin + "/metrics", "pprof": admin + "/debug/pprof/"}, r.links)
			}
		}
	}
	require.Contains(t, d.kube.yaml, "HOST://127.0.0.1:8085\n", "clients are sent to where Kafka is forwarded")
	require.Contains(t, declare(t, "up", "--k8s", "--port", "31000").kube.yaml, "HOST://127.0.0.1:31005\n")
}

// TestKubernetesAsksFirst: no cluster but a local one is touched unless it is named.
func TestKubernetesAsksFirst(t *testing.T) {
	d := declare(t, "up", "--k8s")
	require.Empty(t, d.kube.contexts)
	require.Empty(t, d.kube.registry)
	require.True(t, d.kube.grouped["setup"].manual)
	d = declare(t, "up", "--k8s", "--context", "mine", "--registry", "localhost:5000")
	require.Equal(t, []string{"mine"}, d.kube.contexts)
	require.Equal(t, "localhost:5000", d.kube.registry)
	for mode, args := range modes() {
		if mode != "kubernetes" {
			require.Empty(t, declare(t, "up", args...).kube.yaml)
		}
	}
}

// TestReceiverOfACluster: a receiver listens where pods reach it, and says so.
func TestReceiverOfACluster(t *testing.T) {
	d := declare(t, "up", "--k8s", "--receiver", "192.0.2.7")
	require.Equal(t, "192.0.2.7", d.find(t, "listen").serveEnv["RECEIVER"])
	require.Equal(t, "192.0.2.7", d.find(t, "journey").env["RECEIVER"])
	cmd := d.find(t, "listen").serve
	run := exec.CommandContext(t.Context(), "sh", append([]string{filepath.Join(root, cmd[1]), "echo"}, cmd[2:]...)...)
	run.Env = append(os.Environ(), "RECEIVER=192.0.2.7")
	out, err := run.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, strings.Join(cmd[2:], " ")+" --listen 192.0.2.7:0\n", string(out))
}
