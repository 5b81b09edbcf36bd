// Package process puts processes together: it reads settings, sets up
// telemetry, the bus, the view of `control` and the sealer, and starts and
// stops services on them in order.
//
// It holds no logic of its own and knows no embedded broker: what brings the
// broker, the stores and the root key is its caller.
package process
