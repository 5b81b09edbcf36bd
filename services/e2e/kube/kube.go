// Package kube reads and moves what runs on a Kubernetes, by kubectl, for tests
// on a real cluster. It asserts nothing.
package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// A Cluster is one namespace of the cluster that KUBECONFIG names.
type Cluster struct {
	Namespace string
}

// Run runs kubectl in the namespace and returns what it printed.
func (c Cluster) Run(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"-n", c.Namespace}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, diagnostics strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(diagnostics.String()))
	}
	return out.String(), nil
}

// Pod is what is asked of a pod.
type Pod struct {
	Name, Component string
	// Ready is whether its condition says so; Leaving whether it is being deleted.
	Ready, Leaving bool
	Restarts       int
}

// Pods are those that a label selector chooses and that have not ended.
func (c Cluster) Pods(ctx context.Context, selector string) ([]Pod, error) {
	text, err := c.Run(ctx, "", "get", "pods", "-l", selector, "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				Labels            map[string]string
				DeletionTimestamp *time.Time
			}
			Status struct {
				Phase             string
				Conditions        []struct{ Type, Status string }
				ContainerStatuses []struct{ RestartCount int }
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("read pods: %w", err)
	}
	var pods []Pod
	for _, item := range list.Items {
		if item.Status.Phase == "Succeeded" || item.Status.Phase == "Failed" {
			continue
		}
		p := Pod{Name: item.Metadata.Name, Component: item.Metadata.Labels["app.kubernetes.io/component"], Leaving: item.Metadata.DeletionTimestamp != nil}
		for _, one := range item.Status.Conditions {
			p.Ready = p.Ready || one.Type == "Ready" && one.Status == "True"
		}
		for _, one := range item.Status.ContainerStatuses {
			p.Restarts += one.RestartCount
		}
		pods = append(pods, p)
	}
	return pods, nil
}

// AwaitPods returns once the pods of a selector are as ok wants them.
func (c Cluster) AwaitPods(ctx context.Context, selector string, ok func([]Pod) bool) error {
	var last []Pod
	for {
		pods, err := c.Pods(ctx, selector)
		if err == nil {
			if last = pods; ok(pods) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("pods %s are not as wanted, last %+v: %w", selector, last, errors.Join(ctx.Err(), err))
		case <-time.After(200 * time.Millisecond): // kubectl has no condition for all that is asked
		}
	}
}

// Settled says that exactly n pods are there, and all are ready.
func Settled(n int) func([]Pod) bool {
	return func(pods []Pod) bool {
		for _, p := range pods {
			if !p.Ready || p.Leaving {
				return false
			}
		}
		return len(pods) == n
	}
}

// Evict asks for the eviction of a pod, as a drain does, until the budget allows it.
func (c Cluster) Evict(ctx context.Context, pod string) error {
	body := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":%q}}`, pod, c.Namespace)
	path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/eviction", c.Namespace, pod)
	for {
		_, err := c.Run(ctx, body, "create", "--raw", path, "-f", "-")
		if err == nil || strings.Contains(err.Error(), "NotFound") {
			return nil
		}
		if !strings.Contains(err.Error(), "disruption budget") {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(500 * time.Millisecond): // the budget says when by refusing
		}
	}
}

// Scale sets how many pods a Deployment has, and returns once they are so.
func (c Cluster) Scale(ctx context.Context, deployment string, n int) error {
	if _, err := c.Run(ctx, "", "scale", "deployment", deployment, "--replicas", strconv.Itoa(n)); err != nil {
		return err
	}
	return c.AwaitPods(ctx, Component(deployment), Settled(n))
}

// Component selects the pods of a service.
func Component(name string) string { return "app.kubernetes.io/component=" + name }

// Scrape reads the metrics of the services' pods, by way of the API server. A
// pod that does not answer says nothing.
func (c Cluster) Scrape(ctx context.Context) []string {
	pods, err := c.Pods(ctx, "app.kubernetes.io/name=stormbell")
	if err != nil {
		return nil
	}
	var pages []string
	for _, p := range pods {
		text, err := c.Run(ctx, "", "get", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:8081/proxy/metrics", c.Namespace, p.Name))
		if err == nil {
			pages = append(pages, text)
		}
	}
	return pages
}

// Forward opens a port on this machine to a pod's, until ctx ends.
func (c Cluster) Forward(ctx context.Context, pod string, port int) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, "kubectl", "-n", c.Namespace, "port-forward", pod, strconv.Itoa(port))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	stop = func() {
		cancel()
		_ = cmd.Wait() // ended by cancel
	}
	line := make([]byte, 256)
	n, err := out.Read(line)
	if err != nil || !strings.HasPrefix(string(line[:n]), "Forwarding") {
		stop()
		return nil, fmt.Errorf("port-forward says %q: %w", line[:n], errors.Join(err, errors.New("no port")))
	}
	go func() { // it writes a line for each connection
		for err == nil {
			_, err = out.Read(line)
		}
	}()
	return stop, nil
}
