package main

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/event"
)

// routing says which log source events have, where the source does not.
type routing struct {
	fields, asserted map[string]string // by dimension
	off              bool
}

// dimensions are those of a log source.
func dimensions() []string { return []string{"product", "service", "category"} }

func (r *routing) flags(f *pflag.FlagSet) {
	f.StringToStringVar(&r.fields, "logsource-field", nil, "fields of JSON events that hold their log source, as product=F1,service=F2,category=F3 (default: the fields of these names)")
	f.StringToStringVar(&r.asserted, "logsource", nil, "log source of all events, as product=…,service=…,category=…, in place of what they say")
	f.BoolVar(&r.off, "no-routing", false, "try every rule on every event, whatever its log source")
}

func (r *routing) check() error {
	for name, given := range map[string]map[string]string{"--logsource-field": r.fields, "--logsource": r.asserted} {
		for dimension, value := range given {
			if !slices.Contains(dimensions(), dimension) || value == "" {
				return usagef("%s %s=%s: use product=…, service=… and category=…", name, dimension, value)
			}
		}
	}
	if r.off && len(r.fields)+len(r.asserted) > 0 {
		return usagef("--no-routing leaves no use for --logsource and --logsource-field")
	}
	return nil
}

// names are the fields that hold the log source, for the gateway's decoder.
func (r *routing) names() gateway.LogsourceFields {
	return gateway.LogsourceFields{Product: r.fields["product"], Service: r.fields["service"], Category: r.fields["category"]}
}

// route gives events the log source that was asked for.
func (r *routing) route(events []event.Event) {
	if !r.off && len(r.asserted) == 0 {
		return
	}
	product, service, category := r.dimension("product"), r.dimension("service"), r.dimension("category")
	for i := range events {
		e := &events[i]
		if r.off { // what is open excludes nothing
			e.Product, e.Service, e.Category, e.StrictLogsource = "", "", "", false
			continue
		}
		e.Product, e.Service, e.Category = product(e.Product), service(e.Service), category(e.Category)
	}
}

// dimension returns what becomes of an event's own value.
func (r *routing) dimension(name string) func(own string) string {
	if v, ok := r.asserted[name]; ok {
		v = strings.ToLower(v)
		return func(string) string { return v }
	}
	return func(own string) string { return own }
}
