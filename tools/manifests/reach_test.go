package manifests_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/stormbell/stormbell/tools/manifests"
)

func end(namespace, name, component string) manifests.End {
	labels := map[string]string{"app.kubernetes.io/name": name}
	if component != "" {
		labels["app.kubernetes.io/component"] = component
	}
	return manifests.End{Namespace: namespace, NamespaceLabels: map[string]string{"kubernetes.io/metadata.name": namespace}, Labels: labels}
}

func outside(address string) manifests.End {
	return manifests.End{Address: netip.MustParseAddr(address)}
}

// TestWhoReachesWhom evaluates the policies of the base: what is not in the
// table of what passes, does not.
func TestWhoReachesWhom(t *testing.T) {
	set, err := everything(t, "resources: [KUBERNETES/base]\n")
	require.NoError(t, err)
	services := map[string]manifests.End{}
	for _, p := range set.Pods() {
		e := end("stormbell", "", "")
		e.Labels = p.Template.Labels
		services[p.Name] = e
	}
	require.Len(t, services, 5)
	dns := end("kube-system", "coredns", "")
	dns.Labels["k8s-app"] = "kube-dns"
	targets := map[string]struct {
		end   manifests.End
		port  int32
		proto corev1.Protocol
		who   []string // of services; nil is none
	}{
		"dns":                         {dns, 53, corev1.ProtocolUDP, []string{"gateway", "correlator-detect", "correlator-correlate", "notifier", "setup"}},
		"dns, another port":           {dns, 9153, corev1.ProtocolTCP, nil},
		"kafka":                       {end("kafka", "kafka", ""), 9092, corev1.ProtocolTCP, []string{"gateway", "correlator-detect", "correlator-correlate", "notifier", "setup"}},
		"kafka, another port":         {end("kafka", "kafka", ""), 22, corev1.ProtocolTCP, nil},
		"redis":                       {end("stormbell", "redis", ""), 6379, corev1.ProtocolTCP, []string{"correlator-correlate", "notifier"}},
		"collector":                   {end("observability", "opentelemetry-collector", ""), 4317, corev1.ProtocolTCP, []string{"gateway", "correlator-detect", "correlator-correlate", "notifier", "setup"}},
		"another pod":                 {end("stormbell", "nginx", ""), 80, corev1.ProtocolTCP, nil},
		"another pod, https":          {end("shop", "nginx", ""), 443, corev1.ProtocolTCP, nil},
		"a public address":            {outside("93.184.216.34"), 443, corev1.ProtocolTCP, []string{"notifier"}},
		"a public address, 8443":      {outside("93.184.216.34"), 8443, corev1.ProtocolTCP, []string{"notifier"}},
		"a public address, ssh":       {outside("93.184.216.34"), 22, corev1.ProtocolTCP, nil},
		"a public address, IPv6":      {outside("2606:2800:220:1::1"), 443, corev1.ProtocolTCP, []string{"notifier"}},
		"metadata of a cloud":         {outside("169.254.169.254"), 443, corev1.ProtocolTCP, nil},
		"10/8":                        {outside("10.1.2.3"), 443, corev1.ProtocolTCP, nil},
		"172.16/12":                   {outside("172.31.255.255"), 443, corev1.ProtocolTCP, nil},
		"192.168/16":                  {outside("192.168.0.1"), 443, corev1.ProtocolTCP, nil},
		"carrier's network":           {outside("100.64.0.1"), 443, corev1.ProtocolTCP, nil},
		"multicast":                   {outside("224.0.0.1"), 443, corev1.ProtocolTCP, nil},
		"IPv6, unique local":          {outside("fd00::1"), 443, corev1.ProtocolTCP, nil},
		"IPv6, link local":            {outside("fe80::1"), 443, corev1.ProtocolTCP, nil},
		"IPv6, IPv4 by 6to4":          {outside("2002:a00:1::1"), 443, corev1.ProtocolTCP, nil},
		"IPv6, IPv4 by NAT64":         {outside("64:ff9b::a00:1"), 443, corev1.ProtocolTCP, nil},
		"metadata of a cloud by IPv6": {outside("fd00:ec2::254"), 443, corev1.ProtocolTCP, nil},
	}
	for name, target := range targets {
		for service, from := range services {
			t.Run(fmt.Sprintf("%s to %s", service, name), func(t *testing.T) {
				got, err := manifests.Reaches(set.Policies, from, target.end, target.port, target.proto)
				require.NoError(t, err)
				want := false
				for _, who := range target.who {
					want = want || who == service
				}
				require.Equal(t, want, got)
			})
		}
	}
}

func TestWhoIsReached(t *testing.T) {
	set, err := everything(t, "resources: [KUBERNETES/base]\n")
	require.NoError(t, err)
	for _, p := range set.Pods() {
		to := end("stormbell", "", "")
		to.Labels = p.Template.Labels
		for name, from := range map[string]struct {
			end   manifests.End
			port  int32
			wants bool
		}{
			"a client in the cluster":  {end("shop", "client", ""), 8080, p.Name == "gateway"},
			"a client outside":         {outside("93.184.216.34"), 8080, p.Name == "gateway"},
			"Prometheus":               {end("monitoring", "prometheus", ""), 8081, true},
			"another, for metrics":     {end("shop", "client", ""), 8081, false},
			"Prometheus, another port": {end("monitoring", "prometheus", ""), 9999, false},
		} {
			t.Run(p.Name+" by "+name, func(t *testing.T) {
				got, err := manifests.Reaches(set.Policies, from.end, to, from.port, corev1.ProtocolTCP)
				require.NoError(t, err)
				require.Equal(t, from.wants, got)
			})
		}
	}
}

// TestReachNotices: without the first policy everything passes.
func TestReachNotices(t *testing.T) {
	set, err := everything(t, "resources: [KUBERNETES/base]\n")
	require.NoError(t, err)
	from := end("stormbell", "other", "")
	got, err := manifests.Reaches(set.Policies, from, outside("10.0.0.1"), 22, corev1.ProtocolTCP)
	require.NoError(t, err)
	require.True(t, got, "pods that no policy selects are free")
	got, err = manifests.Reaches(nil, end("stormbell", "stormbell", "gateway"), outside("10.0.0.1"), 22, corev1.ProtocolTCP)
	require.NoError(t, err)
	require.True(t, got)
}
