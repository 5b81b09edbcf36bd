package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric/noop"
	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/e2e/demo"
	"github.com/stormbell/stormbell/services/e2e/kube"
	"github.com/stormbell/stormbell/services/e2e/program"
	"github.com/stormbell/stormbell/services/e2e/rig"
	workday "github.com/stormbell/stormbell/services/e2e/story"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/tools/ledger"
	"github.com/stormbell/stormbell/tools/manifests"
)

// Settings of TestKubernetes, which `make test-kubernetes` makes of its own.
const (
	kubeEnv  = "STORMBELL_KUBERNETES"          // registry with the services' images
	tagEnv   = "STORMBELL_KUBERNETES_TAG"      // their tag; dev
	roundEnv = "STORMBELL_KUBERNETES_DELETED"  // how often each pod is deleted; 5
	hostEnv  = "STORMBELL_KUBERNETES_RECEIVER" // address of this machine for pods; found out
)

const (
	kubeDir       = "../../deployments/kubernetes"
	kubeNamespace = "stormbell"
	kubePatience  = 10 * time.Minute
	kubeRate      = 500 // events per second
)

// services of the cluster, in the order of the journey.
func kubeServices() []string {
	return []string{"gateway", "correlator-detect", "correlator-correlate", "notifier"}
}

// A world is the dev overlay on a real cluster.
type world struct {
	kube.Cluster
	*rig.Deployment

	host string // of this machine, for pods
	base string // the kustomization, with everything but the images of the dev overlay
}

// TestKubernetes runs the dev overlay on the cluster that KUBECONFIG names, in
// the namespace stormbell, which must not be there before and is removed.
func TestKubernetes(t *testing.T) {
	registry := os.Getenv(kubeEnv)
	if registry == "" {
		t.Skip(kubeEnv + " names no registry: run make test-kubernetes")
	}
	w := startWorld(t, registry)
	t.Run("Validates", w.testValidates)
	t.Run("CustomResources", w.testCustomResources)
	t.Run("Confined", w.testConfined)
	t.Run("Demo", w.testDemo)
	t.Run("Disruptions", w.testDisruptions)
	t.Run("KafkaStops", w.testKafkaStops)
	t.Run("RedisIsLost", w.testRedisIsLost)
	t.Run("WrongPassword", w.testWrongPassword)
}

// startWorld applies the overlay and waits until every pod is ready.
func startWorld(t *testing.T, registry string) *world {
	t.Helper()
	w := &world{Cluster: kube.Cluster{Namespace: kubeNamespace}, base: t.TempDir()}
	ctx := within(t, kubePatience)
	_, err := w.Run(ctx, "", "get", "namespace", kubeNamespace)
	require.ErrorContains(t, err, "NotFound", "the namespace %s is there already: remove it, if nobody needs it", kubeNamespace)
	node, err := w.Run(ctx, "", "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
	require.NoError(t, err)
	if w.host = os.Getenv(hostEnv); w.host == "" {
		conn, err := net.Dial("udp", net.JoinHostPort(node, "30080")) // sends nothing
		require.NoError(t, err)
		w.host, _, err = net.SplitHostPort(conn.LocalAddr().String())
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	w.kustomize(t, registry)
	set, err := manifests.Render(w.base)
	require.NoError(t, err)

	t.Cleanup(func() { w.remove(t) })
	_, err = w.Run(ctx, "", "apply", "-f", filepath.Join(kubeDir, "overlays/dev/namespace.yaml"))
	require.NoError(t, err)
	key := filepath.Join(t.TempDir(), "admin.key")
	cmd := exec.CommandContext(ctx, "sh", filepath.Join(kubeDir, "secrets.sh"), kubeNamespace, key)
	cmd.Env = append(os.Environ(), "STORMBELL="+rig.Program("stormbell"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)

	began := time.Now()
	_, err = w.Run(ctx, string(set.YAML), "apply", "-f", "-")
	require.NoError(t, err)
	all := len(kubeServices()) + 2
	require.NoError(t, w.AwaitPods(ctx, "app.kubernetes.io/component!=setup", kube.Settled(all)))
	ready := time.Since(began)
	_, err = w.Run(ctx, "", "wait", "--for=condition=complete", "job/setup", "--timeout=5m")
	require.NoError(t, err)
	t.Logf("%d pods ready %.1f s after kubectl apply, topics and first key made after %.1f s", all, ready.Seconds(), time.Since(began).Seconds())

	text, err := os.ReadFile(key)
	require.NoError(t, err)
	w.Deployment = &rig.Deployment{
		Kind: "kubernetes", Dir: t.TempDir(), Key: strings.TrimSpace(string(text)),
		URLs: []string{"http://" + net.JoinHostPort(node, "30080")},
	}
	return w
}

// kustomize writes a kustomization on the dev overlay with images of a registry.
func (w *world) kustomize(t *testing.T, registry string) {
	t.Helper()
	overlay, err := filepath.Abs(filepath.Join(kubeDir, "overlays/dev"))
	require.NoError(t, err)
	if w.base, err = filepath.EvalSymlinks(w.base); err == nil {
		overlay, err = filepath.Rel(w.base, overlay)
	}
	require.NoError(t, err)
	settings, err := os.ReadFile(filepath.Join(kubeDir, "overlays/dev/stormbell.yaml"))
	require.NoError(t, err)
	trail := "  sources:\n    - {name: trail, format: cloudtrail, product: aws, service: cloudtrail, lateness: 12h}\n"
	text := strings.Replace(string(settings), "gateway:\n", "gateway:\n"+trail, 1)
	require.NoError(t, os.WriteFile(filepath.Join(w.base, "stormbell.yaml"), []byte(text), 0o600))
	tag := "dev"
	if named := os.Getenv(tagEnv); named != "" {
		tag = named
	}
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: %s\nresources: [%s]\n", kubeNamespace, overlay)
	b.WriteString("configMapGenerator: [{name: stormbell, behavior: replace, files: [stormbell.yaml]}]\nimages:\n")
	for _, image := range []string{"gateway", "correlator", "notifier", "stormbell"} {
		fmt.Fprintf(&b, "  - {name: stormbell/%s, newName: %s/%s, newTag: %s}\n", image, registry, image, tag)
	}
	require.NoError(t, os.WriteFile(filepath.Join(w.base, "kustomization.yaml"), []byte(b.String()), 0o600))
}

// remove takes the namespace away, and shows what pods said if the test failed.
func (w *world) remove(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	defer cancel()
	if t.Failed() {
		for _, args := range [][]string{
			{"get", "pods", "-o", "wide"},
			{"get", "events", "--sort-by=.lastTimestamp"},
			{"logs", "-l", "app.kubernetes.io/name=stormbell", "--all-containers", "--prefix", "--tail=40", "--max-log-requests=50"},
		} {
			out, err := w.Run(ctx, "", args...)
			t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	_, err := w.Run(ctx, "", "delete", "namespace", kubeNamespace)
	require.NoError(t, err)
}

func (w *world) receiver(t *testing.T) *ledger.Receiver {
	t.Helper()
	r, err := ledger.NewReceiver(t.Context(), ledger.NewSecret(), ledger.Behave{Host: w.host})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func (w *world) awaitDrained(t *testing.T) {
	t.Helper()
	require.NoError(t, program.AwaitDrained(within(t, kubePatience), rig.Partitions, w.Scrape))
}

// testValidates has the API server judge everything without making it.
func (w *world) testValidates(t *testing.T) {
	custom := regexp.MustCompile(`(?m)^apiVersion: (monitoring\.coreos\.com|keda\.sh|gateway\.networking\.k8s\.io)/`)
	for _, dir := range []string{"overlays/dev", "examples/production"} {
		set, err := manifests.Render(filepath.Join(kubeDir, dir))
		require.NoError(t, err)
		var served []string
		for doc := range strings.SplitSeq(string(set.YAML), "\n---\n") {
			// A Job that is there has other images, and cannot be changed. What has
			// no definition in this cluster, nobody in it can judge.
			if !custom.MatchString(doc) && !strings.Contains(doc, "\nkind: Job\n") {
				served = append(served, doc)
			}
		}
		out, err := kube.Cluster{Namespace: kubeNamespace}.Run(t.Context(), strings.ReplaceAll(strings.Join(served, "\n---\n"), "nodePort: 30080", "nodePort: 30081"), "apply", "--dry-run=server", "--validate=strict", "-f", "-")
		require.NoError(t, err, dir)
		require.Equal(t, len(served), strings.Count(out, "(server dry run)"), out)
	}
	_, err := w.Run(t.Context(), "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {colour: red}\n", "apply", "--dry-run=server", "--validate=strict", "-f", "-")
	require.ErrorContains(t, err, "colour", "what is wrong is noticed")
}

// testCustomResources has the API server judge what is not Kubernetes' own, by
// the definitions that their authors publish.
func (w *world) testCustomResources(t *testing.T) {
	ctx := within(t, kubePatience)
	dir := t.TempDir()
	base, err := filepath.Abs(kubeDir)
	require.NoError(t, err)
	relative, err := filepath.Rel(dir, base)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(strings.ReplaceAll(
		"namespace: "+kubeNamespace+"\nresources: [K/base]\ncomponents: [K/components/keda, K/components/monitoring, K/components/gateway-api]\n", "K", relative)), 0o600))
	set, err := manifests.Render(dir)
	require.NoError(t, err)

	made, err := w.Define(ctx, kube.Definitions())
	t.Cleanup(func() { require.NoError(t, w.Undefine(context.WithoutCancel(ctx), made)) })
	require.NoError(t, err)
	judged := map[string]int{}
	kinds := regexp.MustCompile(`(?m)^apiVersion: (?:monitoring\.coreos\.com|keda\.sh|gateway\.networking\.k8s\.io)/\S+\n(?s:.*?)^kind: (\S+)$`)
	for doc := range strings.SplitSeq(string(set.YAML), "\n---\n") {
		kind := kinds.FindStringSubmatch(doc)
		if kind == nil {
			continue
		}
		judged[kind[1]]++
		out, err := w.Run(ctx, doc, "apply", "--dry-run=server", "--validate=strict", "-f", "-")
		require.NoError(t, err, doc)
		require.Contains(t, out, "(server dry run)")
		_, err = w.Run(ctx, strings.Replace(doc, "\nspec:\n", "\nspec:\n  colour: red\n", 1), "apply", "--dry-run=server", "--validate=strict", "-f", "-")
		require.ErrorContains(t, err, "colour", "what is wrong is noticed")
	}
	require.Equal(t, map[string]int{"ScaledObject": 3, "ServiceMonitor": 1, "PrometheusRule": 1, "Gateway": 1, "HTTPRoute": 1}, judged)
}

// testConfined: a pod of ours that asks for more is refused, and one that does
// not can neither write its root nor gain rights.
func (w *world) testConfined(t *testing.T) {
	ctx := within(t, kubePatience)
	pod := func(name, context, command string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q},"spec":{"restartPolicy":"Never","automountServiceAccountToken":false,
"securityContext":{"runAsNonRoot":true,"runAsUser":65532,"seccompProfile":{"type":"RuntimeDefault"}},
"containers":[{"name":"c","image":"redis:7","imagePullPolicy":"IfNotPresent","command":["sh","-c",%q],"securityContext":%s}]}}`, name, command, context)
	}
	for name, context := range map[string]string{
		"root":       `{"runAsUser":0,"runAsNonRoot":false,"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}`,
		"privileged": `{"privileged":true}`,
		"escalation": `{"allowPrivilegeEscalation":true,"capabilities":{"drop":["ALL"]}}`,
		"capability": `{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"],"add":["NET_ADMIN"]}}`,
	} {
		_, err := w.Run(ctx, pod("more-"+name, context, "true"), "apply", "-f", "-")
		require.ErrorContains(t, err, `violates PodSecurity "restricted:latest"`, name)
	}
	set, err := manifests.Render(w.base)
	require.NoError(t, err)
	// Exactly what our containers have, around a shell, which our images lack.
	ours, err := json.Marshal(set.Deployments[0].Spec.Template.Spec.Containers[0].SecurityContext)
	require.NoError(t, err)
	try := `grep -E "NoNewPrivs|CapEff" /proc/self/status; id -u; if touch /x; then echo wrote; fi; if mount -t tmpfs none /mnt; then echo mounted; fi; if chown 0 /proc/self/fd; then echo chowned; fi; echo tried`
	_, err = w.Run(ctx, pod("ours", string(ours), try), "apply", "-f", "-")
	require.NoError(t, err)
	_, err = w.Run(ctx, "", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/ours", "--timeout=2m")
	require.NoError(t, err)
	out, err := w.Run(ctx, "", "logs", "ours")
	require.NoError(t, err)
	require.Contains(t, out, "NoNewPrivs:\t1")
	require.Contains(t, out, "CapEff:\t0000000000000000")
	require.Contains(t, out, "\n65532\n")
	require.Contains(t, out, "Read-only file system")
	for _, did := range []string{"wrote", "mounted", "chowned"} {
		require.NotRegexp(t, "(?m)^"+did+"$", out)
	}
	_, err = w.Run(ctx, "", "delete", "pod", "ours", "--now")
	require.NoError(t, err)
}

// testDemo plays the story of `make demo`: its six alerts arrive, verified, and no
// other.
func (w *world) testDemo(t *testing.T) {
	w.PushRules(t, shippedRules)
	r := w.receiver(t)
	id := w.Subscribe(t, 0, r)
	day := workday.Ending(time.Now())
	began := time.Now()
	for chunk := range slices.Chunk(day.Routine, 100) {
		w.file(t, "trail", chunk)
	}
	w.file(t, "trail", day.Attack)
	body := day.Host.JSON
	resp, err := w.Call(t.Context(), 0, w.Key, http.MethodPost, "/v1/events?source=agent", "application/json", body)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, resp.Status, "%s", resp.Body)
	want, err := demo.StoryRules(os.DirFS(shippedRules))
	require.NoError(t, err)
	require.NoError(t, r.Await(within(t, kubePatience), func(got []ledger.Delivery) bool { return len(ledger.Alerts(got)) >= len(want) }))
	t.Logf("%d alerts %.1f s after the first event", len(want), time.Since(began).Seconds())
	w.awaitDrained(t)
	var rules []string
	for _, d := range r.Deliveries() {
		require.Empty(t, d.Refused, "its signature holds")
		var b struct {
			Data struct{ Rule struct{ ID string } }
		}
		require.NoError(t, json.Unmarshal(d.Body, &b))
		rules = append(rules, b.Data.Rule.ID)
	}
	require.ElementsMatch(t, want, rules)
	w.JSON(t, 0, http.MethodDelete, "/v1/webhooks/"+id, nil, http.StatusNoContent, nil)
}

// file posts events as a CloudTrail file, compressed.
func (w *world) file(t *testing.T, source string, events []workday.Event) {
	t.Helper()
	packed, err := workday.File(events)
	require.NoError(t, err)
	resp, err := w.Call(t.Context(), 0, w.Key, http.MethodPost, "/v1/events?source="+source, "application/json", packed, "Content-Encoding", "gzip")
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, resp.Status, "%s", resp.Body)
}

// topics reads the log from where it began for this test.
func (w *world) topics(t *testing.T, from map[string][]int64, names ...string) (map[string][]bus.Record, map[string][]int64) {
	t.Helper()
	stop, err := w.Forward(t.Context(), "kafka-0", 9094)
	require.NoError(t, err)
	defer stop()
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{"127.0.0.1:9094"}
	client, err := bus.New(cfg, slog.New(slog.DiscardHandler), noop.NewMeterProvider())
	require.NoError(t, err)
	defer client.Close()
	records, ends := map[string][]bus.Record{}, map[string][]int64{}
	for _, topic := range names {
		n, err := client.Partitions(t.Context(), topic)
		require.NoError(t, err)
		for p := range n {
			first, end, err := client.Offsets(t.Context(), topic, p)
			require.NoError(t, err)
			ends[topic] = append(ends[topic], end)
			if from == nil {
				continue
			}
			if len(from[topic]) > p {
				first = from[topic][p]
			}
			require.NoError(t, client.Read(t.Context(), topic, p, first, end, func(batch []bus.Record) error {
				records[topic] = append(records[topic], batch...)
				return nil
			}))
		}
	}
	return records, ends
}

// testDisruptions posts at a steady rate, with a ledger, while everything that a
// cluster does to its pods is done to these.
func (w *world) testDisruptions(t *testing.T) {
	w.PushRules(t, "testdata/rules/crash")
	_, from := w.topics(t, nil, bus.TopicEvents, bus.TopicAlerts, bus.TopicDLQ)
	r := w.receiver(t)
	w.Subscribe(t, 0, r)
	ctx := within(t, 45*time.Minute)
	for _, name := range kubeServices() {
		require.NoError(t, w.Scale(ctx, name, 2))
	}
	l := newLoad(seedOfCrash(t), 600_000, 400, time.Now())
	client := newClient(t, w.Deployment)
	done := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return steady(ctx, client, l, done) })
	g.Go(func() error {
		defer close(done)
		return w.disrupt(ctx, t, client)
	})
	require.NoError(t, g.Wait())
	w.awaitDrained(t)

	topics, _ := w.topics(t, from, bus.TopicEvents, bus.TopicAlerts, bus.TopicDLQ)
	require.Empty(t, topics[bus.TopicDLQ])
	rules, settings := rulesOf(t, "testdata/rules/crash")
	v := &verdict{rules: rules, settings: settings, told: client.Accepted(), events: accepted(t, topics[bus.TopicEvents]), alerts: alertIDs(t, topics[bus.TopicAlerts])}
	made := map[string]bool{}
	for _, id := range v.alerts {
		made[id] = true
	}
	err := r.Await(within(t, kubePatience), func(got []ledger.Delivery) bool { return len(ledger.Alerts(got)) >= len(made) })
	if err != nil {
		t.Log(err) // the judge says which are lost
	}
	v.deliveries = r.Deliveries()
	found, err := v.judge()
	require.NoError(t, err)
	require.Empty(t, found)
	require.GreaterOrEqual(t, len(made), 100)
	for status := range client.Statuses() {
		require.Contains(t, []int{http.StatusAccepted, http.StatusTooManyRequests, http.StatusServiceUnavailable}, status, "%v; 0 is no answer", client.Statuses())
	}
	t.Logf("%d events accepted, %d alerts, each delivered; answers %v", len(v.told), len(made), client.Statuses())
}

// steady posts in small batches at kubeRate until done.
func steady(ctx context.Context, client *ledger.Client, l *load, done <-chan struct{}) error {
	const size = 20
	tick := time.NewTicker(time.Second * size / kubeRate)
	defer tick.Stop()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(64)
	for events := range slices.Chunk(l.sent, size) {
		select {
		case <-done:
			return g.Wait()
		case <-ctx.Done():
			return g.Wait()
		case <-tick.C:
		}
		g.Go(func() error {
			var body bytes.Buffer
			for _, e := range events {
				body.Write(e.raw)
				body.WriteByte('\n')
			}
			_, err := client.Post(ctx, ledger.Batch{ContentType: "application/x-ndjson", Body: body.Bytes(), Events: len(events)})
			return err
		})
	}
	<-done
	return g.Wait()
}

// disrupt does to pods what clusters do.
func (w *world) disrupt(ctx context.Context, t *testing.T, client *ledger.Client) error {
	rounds := 5
	if text := os.Getenv(roundEnv); text != "" {
		if _, err := fmt.Sscan(text, &rounds); err != nil {
			return fmt.Errorf("%s: %w", roundEnv, err)
		}
	}
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"rolling restart of each service", w.restartAll},
		{fmt.Sprintf("each pod deleted %d times", rounds), func(ctx context.Context) error { return w.deleteAll(ctx, rounds) }},
		{"eviction of all pods under the budgets", w.evictAll},
		{"gateway 1, 3, 1", func(ctx context.Context) error { return w.scale(ctx, "gateway", 1, 3, 1, 2) }},
		{"correlator-detect 1, 4, 1", func(ctx context.Context) error { return w.scale(ctx, "correlator-detect", 1, 4, 1, 2) }},
		{"correlator-correlate 1, 4, 1", func(ctx context.Context) error { return w.scale(ctx, "correlator-correlate", 1, 4, 1, 2) }},
		{"notifier 1, 3, 1", func(ctx context.Context) error { return w.scale(ctx, "notifier", 1, 3, 1, 2) }},
		{"drain of the node", w.drain},
	}
	for _, s := range steps {
		began, before := time.Now(), len(client.Accepted())
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		took := time.Since(began)
		t.Logf("%s: %.0f s, %.0f events/s accepted meanwhile; answers so far %v", s.name, took.Seconds(), float64(len(client.Accepted())-before)/took.Seconds(), client.Statuses())
	}
	return nil
}

func (w *world) restartAll(ctx context.Context) error {
	for _, name := range kubeServices() {
		if _, err := w.Run(ctx, "", "rollout", "restart", "deployment", name); err != nil {
			return err
		}
		if _, err := w.Run(ctx, "", "rollout", "status", "deployment", name, "--timeout=10m"); err != nil {
			return err
		}
		if err := w.AwaitPods(ctx, kube.Component(name), kube.Settled(2)); err != nil {
			return err
		}
	}
	return nil
}

// deleteAll deletes each pod of each service, one of a service after the other
// and the services side by side.
func (w *world) deleteAll(ctx context.Context, rounds int) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, name := range kubeServices() {
		g.Go(func() error {
			for range rounds {
				pods, err := w.Pods(ctx, kube.Component(name))
				if err != nil {
					return err
				}
				for _, p := range pods {
					if _, err := w.Run(ctx, "", "delete", "pod", p.Name, "--wait=false"); err != nil {
						return err
					}
					if err := w.AwaitPods(ctx, kube.Component(name), kube.Settled(2)); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// evictAll evicts all pods at once, as many as the budgets allow at a time.
func (w *world) evictAll(ctx context.Context) error {
	g, evicting := errgroup.WithContext(ctx)
	for _, name := range kubeServices() {
		pods, err := w.Pods(ctx, kube.Component(name))
		if err != nil {
			return err
		}
		for _, p := range pods {
			g.Go(func() error { return w.Evict(evicting, p.Name) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return w.settle(ctx)
}

func (w *world) settle(ctx context.Context) error {
	for _, name := range kubeServices() {
		if err := w.AwaitPods(ctx, kube.Component(name), kube.Settled(2)); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) scale(ctx context.Context, name string, sizes ...int) error {
	for _, n := range sizes {
		if err := w.Scale(ctx, name, n); err != nil {
			return err
		}
	}
	return nil
}

// drain evicts what is ours from the node as `kubectl drain` does. The node takes
// pods at once again: there is no other one to take them.
func (w *world) drain(ctx context.Context) error {
	node, err := w.Run(ctx, "", "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	if err != nil {
		return err
	}
	g, drained := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := w.Run(drained, "", "drain", node, "--pod-selector=app.kubernetes.io/part-of=stormbell", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=10m")
		return err
	})
	g.Go(func() error { // drain has marked the node before it evicts
		if err := rig.Every(drained, "the node is marked", func() bool {
			marked, err := w.Run(drained, "", "get", "node", node, "-o", "jsonpath={.spec.unschedulable}")
			return err == nil && marked == "true"
		}); err != nil {
			return err
		}
		_, err := w.Run(drained, "", "uncordon", node)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return w.settle(ctx)
}

// swap changes the image of a pod's container, which ends what ran in it and
// keeps its volumes.
func (w *world) swap(ctx context.Context, pod, container, image string) error {
	patch := fmt.Sprintf(`{"spec":{"containers":[{"name":%q,"image":%q}]}}`, container, image)
	_, err := w.Run(ctx, "", "patch", "pod", pod, "-p", patch)
	return err
}

// ready are the components of which every pod is ready, or none.
func ready(pods []kube.Pod, want bool, components ...string) bool {
	for _, p := range pods {
		if slices.Contains(components, p.Component) && p.Ready != want {
			return false
		}
	}
	return true
}

// testKafkaStops: nothing is restarted, who can do no work is not ready, the
// gateway says so to its clients, and all comes back by itself.
func (w *world) testKafkaStops(t *testing.T) {
	ctx := within(t, kubePatience)
	const ours = "app.kubernetes.io/part-of=stormbell,app.kubernetes.io/component!=setup"
	before, err := w.Pods(ctx, ours)
	require.NoError(t, err)
	require.NoError(t, w.swap(ctx, "kafka-0", "kafka", "registry.k8s.io/pause:3.10.1"))
	stopped := time.Now()
	require.NoError(t, w.AwaitPods(ctx, ours, func(pods []kube.Pod) bool {
		return ready(pods, false, "correlator-detect", "correlator-correlate", "notifier") && ready(pods, true, "gateway")
	}))
	t.Logf("correlators and notifiers unready %.1f s after Kafka was told to stop", time.Since(stopped).Seconds())
	require.NoError(t, rig.Every(ctx, "the gateway refuses", func() bool {
		status, header, err := w.post(ctx)
		return err == nil && status == http.StatusServiceUnavailable && header.Get("Retry-After") != ""
	}))
	pods, err := w.Pods(ctx, ours)
	require.NoError(t, err)
	require.True(t, ready(pods, true, "gateway"), "gateways stay in their Service")

	require.NoError(t, w.swap(ctx, "kafka-0", "kafka", "apache/kafka:4.3.0"))
	require.NoError(t, w.AwaitPods(ctx, "app.kubernetes.io/name=kafka", kube.Settled(1)))
	back := time.Now()
	require.NoError(t, rig.Every(ctx, "the gateway accepts", func() bool {
		status, _, err := w.post(ctx)
		return err == nil && status == http.StatusAccepted
	}))
	accepted := time.Since(back)
	require.NoError(t, w.AwaitPods(ctx, ours, func(pods []kube.Pod) bool { return ready(pods, true, kubeServices()...) }))
	t.Logf("accepted again %.1f s, all ready %.1f s after Kafka took connections again", accepted.Seconds(), time.Since(back).Seconds())
	after, err := w.Pods(ctx, ours)
	require.NoError(t, err)
	require.ElementsMatch(t, names(before), names(after), "no pod was replaced or restarted")
	w.awaitDrained(t)
}

// names are those of pods with how often each was restarted.
func names(pods []kube.Pod) []string {
	var out []string
	for _, p := range pods {
		out = append(out, fmt.Sprintf("%s, %d restarts", p.Name, p.Restarts))
	}
	return out
}

func (w *world) post(ctx context.Context) (status int, header http.Header, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URLs[0]+"/v1/events", strings.NewReader(`{"action":"none"}`))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+w.Key)
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header, err
}

// testRedisIsLost replaces Redis by an empty one: what was counted before counts
// on.
func (w *world) testRedisIsLost(t *testing.T) {
	ctx := within(t, kubePatience)
	r := w.receiver(t)
	w.PushRules(t, "testdata/rules/count")
	w.Subscribe(t, 0, r)
	user := rig.Secret()
	event := []byte(`{"action":"login_failed","user":"` + user + `"}` + "\n")
	ids := w.Post(t, 0, bytes.Repeat(event, 4))
	w.awaitDrained(t)
	_, err := w.Run(ctx, "", "delete", "pod", "redis-0")
	require.NoError(t, err)
	require.NoError(t, w.AwaitPods(ctx, "app.kubernetes.io/name=redis", kube.Settled(1)))
	back := time.Now()
	require.NoError(t, w.AwaitPods(ctx, "app.kubernetes.io/part-of=stormbell,app.kubernetes.io/component!=setup", func(pods []kube.Pod) bool { return ready(pods, true, kubeServices()...) }))
	ids = append(ids, w.Post(t, 0, event)...)
	require.NoError(t, r.Await(ctx, func(got []ledger.Delivery) bool { return len(got) > 0 && hasAll(t, got, ids) }))
	t.Logf("an alert of events from before and after, %.1f s after an empty Redis answered", time.Since(back).Seconds())
}

// testWrongPassword: one line says what is wrong, and what to look at.
func (w *world) testWrongPassword(t *testing.T) {
	ctx := within(t, kubePatience)
	_, err := w.Run(ctx, "", "create", "secret", "generic", "stormbell-redis", "--from-literal=password="+rig.Secret())
	require.NoError(t, err)
	_, err = w.Run(ctx, "", "exec", "redis-0", "--", "redis-cli", "config", "set", "requirepass", "other")
	require.NoError(t, err)
	_, err = w.Run(ctx, "", "delete", "pod", "-l", kube.Component("notifier"))
	require.NoError(t, err)
	var lines string
	require.NoError(t, rig.Every(ctx, "the notifier says what is wrong", func() bool {
		pods, err := w.Pods(ctx, kube.Component("notifier"))
		if err != nil || len(pods) == 0 {
			return false
		}
		lines, err = w.Run(ctx, "", "logs", pods[0].Name)
		return err == nil && strings.Contains(lines, "refuses the credentials")
	}))
	said := 0
	for line := range strings.Lines(lines) {
		if strings.Contains(line, "refuses the credentials") {
			said++
			require.Regexp(t, `^notifier: redis at redis:6379 refuses the credentials of user "default": check redis\.username and redis\.password\n$`, line)
		}
	}
	require.Equal(t, 1, said, lines)
}
