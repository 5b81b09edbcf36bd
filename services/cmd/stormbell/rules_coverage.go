package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/stormbell/stormbell/services/formats/agent"
	"github.com/stormbell/stormbell/services/formats/cloudtrail"
	"github.com/stormbell/stormbell/services/formats/elb"
	"github.com/stormbell/stormbell/services/formats/s3access"
	"github.com/stormbell/stormbell/services/formats/vpcflow"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// documents are all that files hold, without what is wrong with them.
func documents(files []ruleset.File) []sigma.Document {
	var out []sigma.Document
	for _, f := range files {
		docs, _ := sigma.Parse(f.Content, f.Name)
		out = append(out, docs...)
	}
	return out
}

// sourcesOf are the log sources that events can be of: those that a gateway
// has by itself, and those that it is configured with.
func sourcesOf(cfg gateway.Config) []sigma.Source {
	logs := func(name, service string) sigma.Source {
		return sigma.Source{Name: name, LogSource: sigma.LogSource{Product: cloudtrail.Product, Service: service}, Strict: true}
	}
	trail := func(name string) sigma.Source { return logs(name, cloudtrail.Service) }
	hosts := func(name string) []sigma.Source {
		var out []sigma.Source
		for _, p := range agent.Products() {
			out = append(out, sigma.Source{Name: name, LogSource: sigma.LogSource{Product: p}})
		}
		return out
	}
	all := []sigma.Source{trail(gateway.FormatCloudTrail)}
	named := false
	for _, s := range cfg.Sources {
		named = named || s.Name == gateway.SourceAgent
		plain := sigma.Source{Name: s.Name, LogSource: sigma.LogSource{
			Product: strings.ToLower(s.Product), Service: strings.ToLower(s.Service), Category: strings.ToLower(s.Category),
		}}
		switch s.Format {
		case gateway.FormatCloudTrail:
			all = append(all, trail(s.Name))
		case gateway.FormatAgent:
			all = append(all, hosts(s.Name)...)
		case gateway.FormatS3Access:
			all = append(all, logs(s.Name, s3access.Service))
		case gateway.FormatELB:
			all = append(all, logs(s.Name, elb.Service))
		case gateway.FormatVPCFlow:
			all = append(all, logs(s.Name, vpcflow.Service))
		case gateway.FormatJSON:
			all = append(all, plain)
		default: // told by each record
			all = append(all, plain, trail(s.Name))
		}
	}
	if !named {
		all = append(all, hosts(gateway.SourceAgent)...)
	}
	return all
}

// coverage is how many rules there are for a log source, and who gives it.
type coverage struct {
	Product  string   `json:"product,omitempty"`
	Category string   `json:"category,omitempty"`
	Service  string   `json:"service,omitempty"`
	Rules    int      `json:"rules"`
	Sources  []string `json:"sources"`
}

func coverageOf(all []sigma.Coverage) []coverage {
	out := make([]coverage, len(all))
	for i, c := range all {
		out[i] = coverage{c.LogSource.Product, c.LogSource.Category, c.LogSource.Service, c.Rules, c.Sources}
		if out[i].Sources == nil {
			out[i].Sources = []string{}
		}
	}
	return out
}

// printCoverage prints a line for each log source that rules are for.
func printCoverage(out io.Writer, rows []coverage) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PRODUCT\tCATEGORY\tSERVICE\tRULES\tSOURCES")
	rules, reached := 0, 0
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", dash(r.Product), dash(r.Category), dash(r.Service), r.Rules, dash(strings.Join(r.Sources, ", ")))
		if rules += r.Rules; len(r.Sources) > 0 {
			reached += r.Rules
		}
	}
	_ = w.Flush()
	fmt.Fprintf(out, "coverage: %d of %d detection rules have a source\n", reached, rules)
}

// dash stands for nothing in a table.
func dash(s string) string { return cmp.Or(printable(s), "-") }
