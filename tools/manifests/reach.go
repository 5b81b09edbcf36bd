package manifests

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// An End is one end of a connection: a pod, or an address outside the cluster.
type End struct {
	Namespace       string
	NamespaceLabels map[string]string
	Labels          map[string]string
	// Address is set where the end is no pod.
	Address netip.Addr
}

func (e End) pod() bool { return !e.Address.IsValid() }

// Reaches says whether policies let a connection from one end to a port of
// another through: the sender's egress and the receiver's ingress both must.
func Reaches(policies []*networkingv1.NetworkPolicy, from, to End, port int32, protocol corev1.Protocol) (bool, error) {
	out, err := passes(policies, networkingv1.PolicyTypeEgress, from, to, port, protocol)
	if err != nil || !out {
		return false, err
	}
	return passes(policies, networkingv1.PolicyTypeIngress, to, from, port, protocol)
}

// passes says whether the policies that select a pod let it talk with a peer in
// one direction. Where none selects it, everything passes.
func passes(policies []*networkingv1.NetworkPolicy, direction networkingv1.PolicyType, pod, peer End, port int32, protocol corev1.Protocol) (bool, error) {
	if !pod.pod() {
		return true, nil
	}
	selected := false
	for _, p := range policies {
		if p.Namespace != pod.Namespace || !slices.Contains(p.Spec.PolicyTypes, direction) {
			continue
		}
		chosen, err := matches(&p.Spec.PodSelector, pod.Labels)
		if err != nil {
			return false, fmt.Errorf("policy %s: %w", p.Name, err)
		}
		if !chosen {
			continue
		}
		selected = true
		ok, err := allows(p, direction, peer, port, protocol)
		if err != nil {
			return false, fmt.Errorf("policy %s: %w", p.Name, err)
		}
		if ok {
			return true, nil
		}
	}
	return !selected, nil
}

func allows(p *networkingv1.NetworkPolicy, direction networkingv1.PolicyType, peer End, port int32, protocol corev1.Protocol) (bool, error) {
	type rule struct {
		peers []networkingv1.NetworkPolicyPeer
		ports []networkingv1.NetworkPolicyPort
	}
	var rules []rule
	if direction == networkingv1.PolicyTypeEgress {
		for _, r := range p.Spec.Egress {
			rules = append(rules, rule{r.To, r.Ports})
		}
	} else {
		for _, r := range p.Spec.Ingress {
			rules = append(rules, rule{r.From, r.Ports})
		}
	}
	for _, r := range rules {
		if !opens(r.ports, port, protocol) {
			continue
		}
		if len(r.peers) == 0 {
			return true, nil
		}
		for i := range r.peers {
			ok, err := covers(&r.peers[i], p.Namespace, peer)
			if ok || err != nil {
				return ok, err
			}
		}
	}
	return false, nil
}

func opens(ports []networkingv1.NetworkPolicyPort, port int32, protocol corev1.Protocol) bool {
	for _, p := range ports {
		want := corev1.ProtocolTCP
		if p.Protocol != nil {
			want = *p.Protocol
		}
		if want != protocol {
			continue
		}
		if p.Port == nil || p.Port.IntVal == port || p.EndPort != nil && port >= p.Port.IntVal && port <= *p.EndPort {
			return true
		}
	}
	return len(ports) == 0
}

func covers(peer *networkingv1.NetworkPolicyPeer, namespace string, end End) (bool, error) {
	if peer.IPBlock != nil {
		return inBlock(peer.IPBlock, end)
	}
	if !end.pod() {
		return false, nil
	}
	if peer.NamespaceSelector == nil {
		if end.Namespace != namespace {
			return false, nil
		}
	} else if ok, err := matches(peer.NamespaceSelector, end.NamespaceLabels); !ok || err != nil {
		return false, err
	}
	if peer.PodSelector == nil {
		return true, nil
	}
	return matches(peer.PodSelector, end.Labels)
}

func inBlock(block *networkingv1.IPBlock, end End) (bool, error) {
	if end.pod() {
		return false, nil // what the addresses of pods are, is not known here
	}
	within, err := netip.ParsePrefix(block.CIDR)
	if err != nil {
		return false, fmt.Errorf("cidr: %w", err)
	}
	if !within.Contains(end.Address) {
		return false, nil
	}
	for _, text := range block.Except {
		except, err := netip.ParsePrefix(text)
		if err != nil {
			return false, fmt.Errorf("except: %w", err)
		}
		if except.Bits() < within.Bits() || !within.Contains(except.Addr()) {
			return false, fmt.Errorf("except %s lies not in %s, which Kubernetes refuses", except, within)
		}
		if except.Contains(end.Address) {
			return false, nil
		}
	}
	return true, nil
}

func matches(selector *metav1.LabelSelector, set map[string]string) (bool, error) {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return false, fmt.Errorf("selector: %w", err)
	}
	return s.Matches(labels.Set(set)), nil
}
