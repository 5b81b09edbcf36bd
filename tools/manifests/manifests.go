// Package manifests reads what deployments/kubernetes renders to, as the types
// that Kubernetes itself reads, and judges it: by schema, by the Pod Security
// Standards, and by who may reach whom under its NetworkPolicies.
package manifests

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// Set is what a kustomization renders to.
type Set struct {
	// YAML is all of it, as kubectl takes it.
	YAML []byte

	Namespaces      []*corev1.Namespace
	Deployments     []*appsv1.Deployment
	StatefulSets    []*appsv1.StatefulSet
	Jobs            []*batchv1.Job
	Services        []*corev1.Service
	ServiceAccounts []*corev1.ServiceAccount
	ConfigMaps      []*corev1.ConfigMap
	Budgets         []*policyv1.PodDisruptionBudget
	Policies        []*networkingv1.NetworkPolicy
	Ingresses       []*networkingv1.Ingress
	Autoscalers     []*autoscalingv2.HorizontalPodAutoscaler
	// Others are of kinds that Kubernetes does not have by itself.
	Others []Other
}

// Other is an object of a custom resource.
type Other struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec map[string]any `json:"spec"`
}

// Render renders a directory as `kubectl kustomize` does, and reads the result
// strictly: a field that Kubernetes does not know is an error.
func Render(dir string) (*Set, error) {
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionLegacy // namespaces first
	all, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", dir, err)
	}
	s := new(Set)
	if s.YAML, err = all.AsYaml(); err != nil {
		return nil, fmt.Errorf("render %s: %w", dir, err)
	}
	for _, r := range all.Resources() {
		if err := s.add(r); err != nil {
			return nil, fmt.Errorf("render %s: %s %s: %w", dir, r.GetKind(), r.GetName(), err)
		}
	}
	return s, nil
}

func (s *Set) add(r *resource.Resource) error {
	text, err := r.AsYAML()
	if err != nil {
		return err //nolint:wrapcheck // Render names the object
	}
	switch kind := r.GetApiVersion() + " " + r.GetKind(); kind {
	case "v1 Namespace":
		return read(text, &s.Namespaces)
	case "apps/v1 Deployment":
		return read(text, &s.Deployments)
	case "apps/v1 StatefulSet":
		return read(text, &s.StatefulSets)
	case "batch/v1 Job":
		return read(text, &s.Jobs)
	case "v1 Service":
		return read(text, &s.Services)
	case "v1 ServiceAccount":
		return read(text, &s.ServiceAccounts)
	case "v1 ConfigMap":
		return read(text, &s.ConfigMaps)
	case "policy/v1 PodDisruptionBudget":
		return read(text, &s.Budgets)
	case "networking.k8s.io/v1 NetworkPolicy":
		return read(text, &s.Policies)
	case "networking.k8s.io/v1 Ingress":
		return read(text, &s.Ingresses)
	case "autoscaling/v2 HorizontalPodAutoscaler":
		return read(text, &s.Autoscalers)
	case "monitoring.coreos.com/v1 ServiceMonitor", "monitoring.coreos.com/v1 PrometheusRule", "keda.sh/v1alpha1 ScaledObject",
		"gateway.networking.k8s.io/v1 Gateway", "gateway.networking.k8s.io/v1 HTTPRoute":
		var o Other
		if err := yaml.UnmarshalStrict(text, &o); err != nil {
			return err //nolint:wrapcheck // Render names the object
		}
		s.Others = append(s.Others, o)
		return nil
	default:
		return fmt.Errorf("%s is not expected here: add it to this package", kind)
	}
}

func read[T any](text []byte, into *[]*T) error {
	o := new(T)
	if err := yaml.UnmarshalStrict(text, o); err != nil {
		return err //nolint:wrapcheck // Render names the object
	}
	*into = append(*into, o)
	return nil
}

// Pod is a template of pods and what makes them.
type Pod struct {
	Kind, Name, Namespace string
	Template              *corev1.PodTemplateSpec
}

// Pods are all templates.
func (s *Set) Pods() []Pod {
	var pods []Pod
	for _, d := range s.Deployments {
		pods = append(pods, Pod{"Deployment", d.Name, d.Namespace, &d.Spec.Template})
	}
	for _, d := range s.StatefulSets {
		pods = append(pods, Pod{"StatefulSet", d.Name, d.Namespace, &d.Spec.Template})
	}
	for _, d := range s.Jobs {
		pods = append(pods, Pod{"Job", d.Name, d.Namespace, &d.Spec.Template})
	}
	return pods
}
