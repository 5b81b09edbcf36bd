package process

import (
	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/notifier"
)

func gatewayFault(crash func(string) error) gateway.Fault {
	if crash == nil {
		return nil
	}
	return func(p gateway.Point) error { return crash(string(p)) }
}

func correlatorFault(crash func(string) error) correlator.Fault {
	if crash == nil {
		return nil
	}
	return func(p correlator.Point, _ *correlator.Record) error { return crash(string(p)) }
}

func notifierFault(crash func(string) error) notifier.Fault {
	if crash == nil {
		return nil
	}
	return func(p notifier.Point) error { return crash(string(p)) }
}
