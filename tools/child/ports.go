package child

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports below the range from which operating systems take the local ends of
// outgoing connections: a server that is killed finds its port free again.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// FreePorts returns n different loopback TCP ports that nothing listened on a
// moment ago. Another process may take one before it is used: callers that
// start a server retry with new ports.
func FreePorts(ctx context.Context, n int) ([]int, error) {
	ports := make([]int, 0, n)
	seen := make(map[int]bool, n)
	var listen net.ListenConfig
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		port := lowestPort + rand.IntN(highestPort-lowestPort) //nolint:gosec // spread, not secrecy
		if seen[port] {
			continue
		}
		l, err := listen.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("release port %d: %w", port, err)
		}
		seen[port] = true
		ports = append(ports, port)
	}
	return nil, errors.New("find free ports: none of 1,000 tries between 20000 and 32000 was free")
}
