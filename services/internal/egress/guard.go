// Package egress makes the HTTP requests that users cause: to their webhooks.
//
// It refuses to reach what is not on the public internet. The address that is
// really dialled is judged, after name resolution and for each candidate, so
// that neither a name that resolves to something else the second time nor a
// literal in a strange spelling gets around it. Redirects are never followed,
// no proxy is taken from the environment, everything that comes back is
// bounded, and no error names an address, a URL or anything of it. There is no
// off switch: internal targets are allowed by listing their networks.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Config says what may be reached beyond the public internet.
type Config struct {
	// Allow lists networks (CIDR) that may be reached although they are
	// private, loopback or else denied, on any port.
	Allow []string `yaml:"allow" env:"ALLOW"`
	// AllowHTTP lets URLs be http:// where the address is in Allow.
	AllowHTTP bool `yaml:"allow_http" env:"ALLOW_HTTP"`
	// Deny lists further networks (CIDR) that must not be reached. Allow wins.
	Deny []string `yaml:"deny" env:"DENY"`
	// Ports lists the ports that may be reached outside Allow.
	Ports []int `yaml:"ports" env:"PORTS"`
}

// DefaultConfig allows https to the public internet.
func DefaultConfig() Config { return Config{Ports: []int{443, 8443}} }

// LoopbackConfig is DefaultConfig with this machine's loopback allowed, also
// without TLS, for a process that serves its own machine.
func LoopbackConfig() Config {
	c := DefaultConfig()
	c.Allow, c.AllowHTTP = []string{"127.0.0.0/8", "::1/128"}, true
	return c
}

// Validate reports the first setting that cannot work.
func (c Config) Validate() error {
	_, err := NewGuard(c)
	return err
}

// Guard judges URLs and addresses. Its methods are safe for concurrent use.
type Guard struct {
	allow, deny []netip.Prefix
	allowHTTP   bool
	ports       []int

	mu     sync.Mutex
	own    []netip.Addr
	readAt time.Time
}

// NewGuard returns a guard, or an error that names the setting to mend.
func NewGuard(cfg Config) (*Guard, error) {
	g := &Guard{allowHTTP: cfg.AllowHTTP, ports: slices.Clone(cfg.Ports)}
	var err error
	if g.allow, err = prefixes("egress.allow", cfg.Allow); err != nil {
		return nil, err
	}
	if g.deny, err = prefixes("egress.deny", cfg.Deny); err != nil {
		return nil, err
	}
	if len(cfg.Ports) == 0 {
		return nil, errors.New("egress.ports: list at least one port, such as 443")
	}
	for _, p := range cfg.Ports {
		if p < 1 || p > 65535 {
			return nil, fmt.Errorf("egress.ports: %d is no port", p)
		}
	}
	if cfg.AllowHTTP && len(cfg.Allow) == 0 {
		return nil, errors.New("egress.allow_http: it holds for the networks in egress.allow, which lists none")
	}
	return g, nil
}

func prefixes(setting string, list []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %q is no network: write it as 10.1.0.0/16", setting, s)
		case p.Addr().Is4In6():
			return nil, fmt.Errorf("%s: %q: write an IPv4 network as such", setting, s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// DeniedError says that the guard does not let a request out. It never names
// the address.
type DeniedError struct{ Reason string }

func (e *DeniedError) Error() string { return e.Reason }

var (
	errNetwork = &DeniedError{"this host is on a network that webhooks may not reach: an operator can list the network in egress.allow"}
	errPort    = &DeniedError{"this port may not be reached: an operator can list it in egress.ports, or the host's network in egress.allow"}
	errHTTP    = &DeniedError{"only https:// is allowed: an operator can set egress.allow_http and list the host's network in egress.allow"}
)

// deniedTable is what no webhook has to reach: the address registries' special
// ranges, and the metadata services of clouds that hide in plain ones.
func deniedTable() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),         // this network
		netip.MustParsePrefix("10.0.0.0/8"),        // private
		netip.MustParsePrefix("100.64.0.0/10"),     // carrier-grade NAT; Alibaba's metadata
		netip.MustParsePrefix("127.0.0.0/8"),       // loopback
		netip.MustParsePrefix("168.63.129.16/32"),  // Azure's host agent
		netip.MustParsePrefix("169.254.0.0/16"),    // link-local; metadata
		netip.MustParsePrefix("172.16.0.0/12"),     // private
		netip.MustParsePrefix("192.0.0.0/24"),      // IETF; Oracle's metadata
		netip.MustParsePrefix("192.0.2.0/24"),      // documentation
		netip.MustParsePrefix("192.31.196.0/24"),   // AS112
		netip.MustParsePrefix("192.52.193.0/24"),   // AMT
		netip.MustParsePrefix("192.88.99.0/24"),    // 6to4 relay
		netip.MustParsePrefix("192.168.0.0/16"),    // private
		netip.MustParsePrefix("192.175.48.0/24"),   // AS112
		netip.MustParsePrefix("198.18.0.0/15"),     // benchmarks
		netip.MustParsePrefix("198.51.100.0/24"),   // documentation
		netip.MustParsePrefix("203.0.113.0/24"),    // documentation
		netip.MustParsePrefix("224.0.0.0/4"),       // multicast
		netip.MustParsePrefix("240.0.0.0/4"),       // reserved, broadcast
		netip.MustParsePrefix("2001::/23"),         // Teredo, ORCHID
		netip.MustParsePrefix("2001:db8::/32"),     // documentation
		netip.MustParsePrefix("2002::/16"),         // 6to4
		netip.MustParsePrefix("2620:4f:8000::/48"), // AS112
		netip.MustParsePrefix("3fff::/20"),         // documentation
	}
}

// globalUnicast is all of IPv6 that may be public: NAT64, unique local,
// link-local, site-local, multicast and the rest lie outside.
func globalUnicast() netip.Prefix { return netip.MustParsePrefix("2000::/3") }

// verdict judges an address and port that is about to be dialled.
func (g *Guard) verdict(addr netip.AddrPort, plain bool) error {
	ip := addr.Addr()
	// Prefixes hold neither zoned nor mapped addresses.
	if !ip.IsValid() || ip.Zone() != "" {
		return errNetwork
	}
	ip = ip.Unmap()
	if contains(g.allow, ip) {
		if plain && !g.allowHTTP {
			return errHTTP
		}
		return nil
	}
	switch {
	case contains(deniedTable(), ip), contains(g.deny, ip), ip.Is6() && !globalUnicast().Contains(ip), g.isOwn(ip):
		return errNetwork
	case plain:
		return errHTTP
	case !slices.Contains(g.ports, int(addr.Port())):
		return errPort
	}
	return nil
}

func contains(list []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// ownAge is how long the machine's own addresses are believed.
const ownAge = 30 * time.Second

// isOwn reports whether an address is one of this machine's interfaces.
func (g *Guard) isOwn(ip netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); g.readAt.IsZero() || now.Sub(g.readAt) > ownAge {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return true // what cannot be judged is not reached
		}
		g.own, g.readAt = g.own[:0], now
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				g.own = append(g.own, p.Addr().WithZone("").Unmap())
			}
		}
	}
	return slices.Contains(g.own, ip)
}

// control returns a net.Dialer.ControlContext that judges each address
// between resolution and connect.
func (g *Guard) control(plain bool) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, network, address string, _ syscall.RawConn) error {
		if network != "tcp4" && network != "tcp6" {
			return errNetwork
		}
		addr, err := netip.ParseAddrPort(address)
		if err != nil {
			return errNetwork
		}
		return g.verdict(addr, plain)
	}
}

const maxURL = 2048

// CheckURL judges a webhook's URL before it is stored. What a name resolves to
// is judged when it is dialled. Errors name the setting that would allow it,
// where there is one, and never an address.
func (g *Guard) CheckURL(raw string) error {
	if len(raw) > maxURL {
		return &DeniedError{fmt.Sprintf("URL of %d bytes: use at most %d", len(raw), maxURL)}
	}
	u, err := url.Parse(raw)
	if err != nil || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return &DeniedError{"not a URL: write https://host/path"}
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return &DeniedError{"not an https:// URL"}
	case u.Opaque != "" || u.Hostname() == "":
		return &DeniedError{"URL without host: write https://host/path"}
	case u.User != nil:
		return &DeniedError{"URL with user or password: use a custom header instead"}
	case strings.Contains(raw, "#"):
		return &DeniedError{"URL with a fragment, which is never sent: leave it out"}
	}
	port, err := portOf(u)
	if err != nil {
		return err
	}
	plain := u.Scheme == "http"
	if ip, ok := literal(u.Hostname()); ok {
		return g.verdict(netip.AddrPortFrom(ip, port), plain)
	}
	if err := checkName(u.Hostname()); err != nil {
		return err
	}
	// Whether a name leads into an allowed network shows when it is dialled.
	switch {
	case plain && (!g.allowHTTP || len(g.allow) == 0):
		return errHTTP
	case len(g.allow) == 0 && !slices.Contains(g.ports, int(port)):
		return errPort
	}
	return nil
}

func portOf(u *url.URL) (uint16, error) {
	switch {
	case u.Port() != "":
		n, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || n == 0 {
			return 0, &DeniedError{"URL with a port that is none"}
		}
		return uint16(n), nil
	case strings.HasSuffix(u.Host, ":"):
		return 0, &DeniedError{"URL with an empty port"}
	case u.Scheme == "http":
		return 80, nil
	}
	return 443, nil
}

// literal returns the address that a host stands for by itself.
func literal(host string) (netip.Addr, bool) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip, true
	}
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	}
	return netip.Addr{}, false
}

// checkName refuses what is neither a name nor an address that everybody
// reads alike, such as 0x7f.1.
func checkName(host string) error {
	name := strings.TrimSuffix(host, ".")
	last := name[strings.LastIndexByte(name, '.')+1:]
	numeric := last != "" && strings.Trim(last, "0123456789") == ""
	hex := len(last) > 1 && strings.EqualFold(last[:2], "0x")
	if numeric || hex || len(name) > 253 {
		return &DeniedError{"URL whose host is neither a name nor a plain address"}
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return &DeniedError{"URL whose host is no name"}
		}
		for _, c := range []byte(label) {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			default:
				return &DeniedError{"URL whose host is no name: write international names as xn--…"}
			}
		}
	}
	return nil
}
