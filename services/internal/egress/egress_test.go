package egress_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/stormbell/stormbell/services/internal/egress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	network = "this host is on a network that webhooks may not reach: an operator can list the network in egress.allow"
	port    = "this port may not be reached: an operator can list it in egress.ports, or the host's network in egress.allow"
	plain   = "only https:// is allowed: an operator can set egress.allow_http and list the host's network in egress.allow"
)

func guard(t testing.TB, cfg egress.Config) *egress.Guard {
	t.Helper()
	g, err := egress.NewGuard(cfg)
	require.NoError(t, err)
	return g
}

// denied is at least one address of each range that no webhook has to reach,
// the ends of the ranges among them.
func denied() []string {
	return []string{
		"0.0.0.0", "0.1.2.3", "0.255.255.255", "127.0.0.1", "127.255.255.254", "10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255",
		"192.168.0.1", "192.168.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255", "169.254.0.1", "169.254.169.254", "169.254.170.2",
		"168.63.129.16", "192.0.0.1", "192.0.0.192", "192.0.2.1", "198.51.100.7", "203.0.113.9", "198.18.0.1", "198.19.255.255",
		"192.88.99.1", "192.31.196.1", "192.52.193.1", "192.175.48.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::2", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:7f00:1",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fdff:ffff::1",
		"fe80::1", "febf::1", "fec0::1", "ff02::1", "ff0e::1", "2001::1", "2001:1ff:ffff::1", "2001:db8::1", "2002::1", "2002:7f00:1::", "3fff::1",
		"3fff:fff::1", "2620:4f:8000::1", "4000::1", "1fff::1", "8000::1",
	}
}

func allowed() []string {
	return []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255", "128.0.0.1", "168.63.129.17",
		"169.253.255.255", "169.255.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1", "192.167.255.255", "192.169.0.1", "198.17.255.255", "198.20.0.1",
		"223.255.255.255", "2000::1", "2001:200::1", "2001:db7::1", "2001:db9::1", "2003::1", "2606:4700:4700::1111", "3ffe::1", "::ffff:8.8.8.8",
	}
}

func host(addr string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]"
	}
	return addr
}

// Written into the URL, or behind a name that resolves to it.
func TestDeniedAddresses(t *testing.T) {
	g := guard(t, egress.DefaultConfig())
	for _, addr := range denied() {
		t.Run(addr, func(t *testing.T) {
			require.EqualError(t, g.CheckURL("https://"+host(addr)+"/"), network)
			names := newNames(t)
			names.set(netip.MustParseAddr(addr))
			c := client(t, g, names)
			_, err := c.Do(request(t, "https://hook.example.com/"))
			var cause *egress.Error
			require.ErrorAs(t, err, &cause)
			require.True(t, cause.Denied, cause.Reason)
			require.Equal(t, network, cause.Reason)
		})
	}
}

func TestAllowedAddresses(t *testing.T) {
	g := guard(t, egress.DefaultConfig())
	for _, addr := range allowed() {
		require.NoError(t, g.CheckURL("https://"+host(addr)+"/"), addr)
		require.EqualError(t, g.CheckURL("http://"+host(addr)+"/"), plain, addr)
		require.EqualError(t, g.CheckURL("https://"+host(addr)+":22/"), port, addr)
		require.NoError(t, g.CheckURL("https://"+host(addr)+":8443/"), addr)
	}
}

func TestURLs(t *testing.T) {
	g := guard(t, egress.DefaultConfig())
	cases := []struct{ name, url, want string }{
		{"good", "https://hooks.example.com/a?b=c", ""},
		{"a dot at the end", "https://hooks.example.com./", ""},
		{"localhost", "https://localhost/", network},
		{"localhost, spelt otherwise", "https://LOCALHOST./", network},
		{"below localhost", "https://a.localhost/", network},
		{"decimal address", "https://2130706433/", "URL whose host is neither a name nor a plain address"},
		{"hexadecimal address", "https://0x7f000001/", "URL whose host is neither a name nor a plain address"},
		{"hexadecimal part", "https://127.0.0.0x1/", "URL whose host is neither a name nor a plain address"},
		{"octal part", "https://0177.0.0.1/", "URL whose host is neither a name nor a plain address"},
		{"short address", "https://127.1/", "URL whose host is neither a name nor a plain address"},
		{"zone", "https://[fe80::1%25eth0]/", network},
		{"zoned public", "https://[2606:4700::1%25eth0]/", network},
		{"user", "https://user:pass@hooks.example.com/", "URL with user or password: use a custom header instead"},
		{"fragment", "https://hooks.example.com/#x", "URL with a fragment, which is never sent: leave it out"},
		{"no scheme", "hooks.example.com/x", "not an https:// URL"},
		{"file", "file:///etc/passwd", "not an https:// URL"},
		{"gopher", "gopher://hooks.example.com/", "not an https:// URL"},
		{"opaque", "https:hooks.example.com", "URL without host: write https://host/path"},
		{"no host", "https:///x", "URL without host: write https://host/path"},
		{"plain", "http://hooks.example.com/", plain},
		{"port", "https://hooks.example.com:6379/", port},
		{"port 0", "https://hooks.example.com:0/", "URL with a port that is none"},
		{"empty port", "https://hooks.example.com:/", "URL with an empty port"},
		{"line break", "https://hooks.example.com/\r\nX: y", "not a URL: write https://host/path"},
		{"space", "https://hooks.example.com/a b", "not a URL: write https://host/path"},
		{"full-width digits", "https://１２７.0.0.1/", "URL whose host is neither a name nor a plain address"},
		{"international name", "https://bücher.example.com/", "URL whose host is no name: write international names as xn--…"},
		{"empty label", "https://a..example.com/", "URL whose host is no name"},
		{"long", "https://hooks.example.com/" + strings.Repeat("a", 2048), "URL of 2074 bytes: use at most 2048"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			err := g.CheckURL(tc.url)
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestSettings(t *testing.T) {
	loopback := guard(t, egress.LoopbackConfig())
	require.NoError(t, loopback.CheckURL("http://127.0.0.1:3000/"))
	require.NoError(t, loopback.CheckURL("http://localhost:3000/"))
	require.NoError(t, loopback.CheckURL("http://[::1]:3000/"))
	require.EqualError(t, loopback.CheckURL("http://10.0.0.1/"), network)
	require.EqualError(t, loopback.CheckURL("http://8.8.8.8/"), plain)
	internal := egress.DefaultConfig()
	internal.Allow, internal.Deny = []string{"10.1.0.0/16"}, []string{"8.8.0.0/16", "10.0.0.0/8"}
	g := guard(t, internal)
	require.NoError(t, g.CheckURL("https://10.1.2.3:9000/"), "an operator's network, on any port")
	require.EqualError(t, g.CheckURL("http://10.1.2.3/"), plain)
	require.EqualError(t, g.CheckURL("https://10.2.2.3/"), network)
	require.EqualError(t, g.CheckURL("https://8.8.8.8/"), network)
	for want, cfg := range map[string]egress.Config{
		`egress.allow: "10.1.0.0" is no network: write it as 10.1.0.0/16`:                {Allow: []string{"10.1.0.0"}, Ports: []int{443}},
		`egress.deny: "x/8" is no network: write it as 10.1.0.0/16`:                      {Deny: []string{"x/8"}, Ports: []int{443}},
		`egress.allow: "::ffff:10.0.0.0/104": write an IPv4 network as such`:             {Allow: []string{"::ffff:10.0.0.0/104"}, Ports: []int{443}},
		"egress.ports: list at least one port, such as 443":                              {},
		"egress.ports: 70000 is no port":                                                 {Ports: []int{70000}},
		"egress.allow_http: it holds for the networks in egress.allow, which lists none": {AllowHTTP: true, Ports: []int{443}},
	} {
		require.EqualError(t, cfg.Validate(), want)
	}
}

// names is a name server on loopback, whose answers a test decides.
type names struct {
	conn    net.PacketConn
	mu      sync.Mutex
	answers []netip.Addr
	asked   atomic.Int64
	done    chan struct{}
}

func newNames(t testing.TB) *names {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &names{conn: conn, done: make(chan struct{})}
	go n.serve()
	t.Cleanup(func() {
		_ = conn.Close()
		<-n.done
	})
	return n
}

// set makes answers, one after the other; the last one stays.
func (n *names) set(addrs ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers = addrs
}

// next is the answer to a question about addresses of a kind. One resolution
// asks for both kinds; only the kind of the first answer counts.
func (n *names) next(v6 bool) (netip.Addr, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := n.answers[0]
	if mapped := a.Is4In6(); !mapped && a.Is6() != v6 || mapped && !v6 {
		return a, false
	}
	n.asked.Add(1)
	if len(n.answers) > 1 {
		n.answers = n.answers[1:]
	}
	return a, true
}

func (n *names) serve() {
	defer close(n.done)
	buf := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:size]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		m.Response, m.Authoritative, m.Additionals = true, true, nil
		if a, ok := n.next(q.Type == dnsmessage.TypeAAAA); ok && (q.Type == dnsmessage.TypeA || q.Type == dnsmessage.TypeAAAA) {
			h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
			if q.Type == dnsmessage.TypeAAAA {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
			} else {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
			}
		}
		if out, err := m.Pack(); err == nil {
			_, _ = n.conn.WriteTo(out, from)
		}
	}
}

func client(t testing.TB, g *egress.Guard, n *names) *egress.Client {
	t.Helper()
	cfg := egress.DefaultClientConfig()
	cfg.Timeout, cfg.ConnectTimeout = 5*time.Second, 3*time.Second
	if n != nil {
		cfg.Resolver = &net.Resolver{PreferGo: true, StrictErrors: false, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", n.conn.LocalAddr().String())
		}}
	}
	c := egress.NewClient(g, cfg)
	t.Cleanup(c.Close)
	return c
}

func request(t testing.TB, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("{}"))
	require.NoError(t, err)
	return req
}

// A name may resolve to something else when it is dialled than when it was
// checked: the dialled address is what counts, at each connection.
func TestRebinding(t *testing.T) {
	var reached atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		w.Header().Set("Connection", "close")
	}))
	defer target.Close()
	_, targetPort, err := net.SplitHostPort(target.Listener.Addr().String())
	require.NoError(t, err)
	// 127.0.0.1 is allowed here and stands for a public address; 127.0.0.2,
	// on which the same server answers nothing, for one that is not.
	g := guard(t, egress.Config{Allow: []string{"127.0.0.1/32"}, AllowHTTP: true, Ports: []int{443}})
	n := newNames(t)
	n.set(netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"))
	c := client(t, g, n)
	url := "http://rebind.example.com:" + targetPort + "/"
	require.NoError(t, g.CheckURL(url))
	resp, err := c.Do(request(t, url))
	require.NoError(t, err)
	require.Equal(t, 200, resp.Status)
	_, err = c.Do(request(t, url))
	require.EqualError(t, err, network)
	require.Equal(t, int64(1), reached.Load())
	require.Equal(t, int64(2), n.asked.Load())
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var reached atomic.Int64
	canary := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer canary.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", canary.URL)
			w.WriteHeader(status)
		}))
		c := client(t, guard(t, egress.LoopbackConfig()), nil)
		resp, err := c.Do(request(t, server.URL))
		require.NoError(t, err)
		require.Equal(t, status, resp.Status)
		c.Close()
		server.Close()
	}
	require.Zero(t, reached.Load())
}

// What comes back is bounded in bytes and in time, and a response whose status
// came counts.
func TestBounds(t *testing.T) {
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			_, _ = w.Write(make([]byte, 1<<20))
		case "/drip":
			_, _ = w.Write([]byte("x"))
			w.(http.Flusher).Flush() //nolint:forcetypeassert // httptest's is one
			<-ended
		case "/headers":
			w.Header().Set("X-Long", strings.Repeat("x", 64<<10))
		default:
			<-ended
		}
	}))
	defer server.Close()
	defer close(ended)
	cfg := egress.DefaultClientConfig()
	cfg.Timeout = 300 * time.Millisecond
	c := egress.NewClient(guard(t, egress.LoopbackConfig()), cfg)
	defer c.Close()
	resp, err := c.Do(request(t, server.URL+"/large"))
	require.NoError(t, err)
	require.Len(t, resp.Body, 16<<10)
	resp, err = c.Do(request(t, server.URL+"/drip"))
	require.NoError(t, err)
	require.Equal(t, "x", string(resp.Body))
	_, err = c.Do(request(t, server.URL+"/headers"))
	require.EqualError(t, err, "request failed")
	_, err = c.Do(request(t, server.URL+"/hang"))
	require.EqualError(t, err, "no response in time")
}

// No error says where the request went.
func TestErrorsNameNoAddress(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	hangUp := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer hangUp.Close()
	noTLS := strings.Replace(hangUp.URL, "http://", "https://", 1)
	selfSigned := httptest.NewTLSServer(nil)
	defer selfSigned.Close()
	c := client(t, guard(t, egress.LoopbackConfig()), nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for want, req := range map[string]*http.Request{
		"connection refused":                        request(t, closed.URL+"/secret"),
		"connection closed before the response":     request(t, hangUp.URL+"/secret"),
		"TLS handshake failed":                      request(t, noTLS+"/secret"),
		"the host's certificate cannot be verified": request(t, selfSigned.URL+"/secret"),
		"request cancelled":                         request(t, hangUp.URL+"/secret").WithContext(ended),
		network:                                     request(t, "https://10.0.0.1/secret"),
	} {
		_, err := c.Do(req)
		require.EqualError(t, err, want)
		require.NotContains(t, err.Error(), "127.0.0.1")
	}
}

// A proxy of the environment would be dialled in the target's place.
func TestNoProxy(t *testing.T) {
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer proxy.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	c := client(t, guard(t, egress.DefaultConfig()), nil)
	_, err := c.Do(request(t, "https://10.0.0.1/"))
	require.EqualError(t, err, network)
	require.Zero(t, asked.Load())
}

func TestCheckHeaders(t *testing.T) {
	good := map[string]string{"Authorization": "Bearer x", "X-Api-Key": "k", "x-tab": "a\tb"}
	require.NoError(t, egress.CheckHeaders(good))
	require.NoError(t, egress.CheckHeaders(nil))
	for _, name := range []string{
		"Host", "host", "HOST", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "Expect",
		"Proxy-Authorization", "proxy-connection", "webhook-id", "Webhook-Signature", "WEBHOOK-TIMESTAMP", "traceparent", "Tracestate", "baggage", "B3",
		"Forwarded", "X-Forwarded-For", "Via", "Date", "User-Agent", "Sec-Fetch-Mode", "ce-id",
	} {
		require.ErrorContains(t, egress.CheckHeaders(map[string]string{name: "v"}), "may not be set", name)
	}
	for name, value := range map[string]string{
		"": "v", "X Y": "v", "X:Y": "v", "X\r\nY": "v", "Ü": "v", "X-A": "a\r\nHost: b", "X-B": "a\nb", "X-C": "a\x00b", "X-D": "a\x7fb", "X-E": strings.Repeat("a", 4097),
	} {
		err := egress.CheckHeaders(map[string]string{name: value})
		require.Error(t, err, name)
		if len(value) > 1 {
			require.NotContains(t, err.Error(), value)
		}
	}
	many := map[string]string{}
	for i := range 21 {
		many["X-"+string(rune('A'+i))] = "v"
	}
	require.EqualError(t, egress.CheckHeaders(many), "21 custom headers: use at most 20")
}

// FuzzCheckURL looks for a URL that is let through although a client would
// dial something that is not.
func FuzzCheckURL(f *testing.F) {
	for _, a := range append(denied(), allowed()...) {
		f.Add("https://" + host(a) + "/")
	}
	f.Add("https://0x7f.1/")
	f.Add("https://[::ffff:7f00:1]:443/x")
	g := guard(f, egress.DefaultConfig())
	f.Fuzz(func(t *testing.T, raw string) {
		if g.CheckURL(raw) != nil {
			return
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, raw, nil)
		require.NoError(t, err)
		require.Equal(t, "https", req.URL.Scheme)
		if ip, err := netip.ParseAddr(req.URL.Hostname()); err == nil {
			ip = ip.Unmap()
			require.False(t, ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified(), raw)
			if ip.Is4() {
				b := ip.As4()
				require.Less(t, binary.BigEndian.Uint32(b[:]), uint32(224)<<24)
			}
		}
	})
}
