// Package notifier takes alerts to the webhooks of their tenants: it decides
// once whom an alert goes to, and delivers until the receiver says 2xx or the
// schedule is exhausted, under one webhook-id.
//
// It refuses to route an alert twice, to let one endpoint hold up another, and
// to call anything delivered that no receiver has confirmed. What its queue
// remembers may be lost at any time: the topics `alerts` and `deliveries` say
// all of it.
package notifier
