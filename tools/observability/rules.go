package observability

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Runbooks is where alerts link to.
const Runbooks = "https://github.com/stormbell/stormbell/blob/main/docs/runbooks/"

// A Rule is a recording or an alerting rule of Prometheus.
type Rule struct {
	Record      string            `yaml:"record,omitempty"`
	Alert       string            `yaml:"alert,omitempty"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

// A Group is a group of rules.
type Group struct {
	Name  string `yaml:"name"`
	Rules []Rule `yaml:"rules"`
}

// An objective is a share of what happens that must be good.
type objective struct {
	name string
	// target is that share, in percent.
	target float64
	// bad and all are rates per second, with $w for the window.
	bad, all string
	// alert, summary and runbook are of the alerts on its burn rate.
	alert, summary, runbook string
}

// ingest are the routes by which events come.
const ingest = `route=~"/v1/(events|logs|cloudevents|aws/.+|agents/.+)|/services/.+"`

// withinSeconds is the bucket of the journey's histogram that is still in time.
// Prometheus 3 writes a bound as 5.0 where 2 wrote 5.
const withinSeconds = `le=~"5|5\\.0"`

func objectives() []objective {
	return []objective{
		{
			name: "ingest_errors", target: 99.9,
			bad:     `sum(rate(stormbell_gateway_requests_total{` + ingest + `,status=~"5.."}[$w]))`,
			all:     `sum(rate(stormbell_gateway_requests_total{` + ingest + `}[$w]))`,
			alert:   "StormbellIngestFails",
			summary: "Gateways answer posted events with errors: senders must repeat them.",
			runbook: "ingest-fails",
		},
		{
			name: "journey_slow", target: 99,
			bad: `(sum(rate(stormbell_notifier_event_to_webhook_seconds_count[$w]))` +
				` - sum(rate(stormbell_notifier_event_to_webhook_seconds_bucket{` + withinSeconds + `}[$w])))`,
			all:     `sum(rate(stormbell_notifier_event_to_webhook_seconds_count[$w]))`,
			alert:   "StormbellAlertsLate",
			summary: "Alerts reach subscribers more than 5 s after their event.",
			runbook: "alerts-late",
		},
		{
			name: "deliveries_parked", target: 99.9,
			bad:     `sum(rate(stormbell_notifier_attempts_total{outcome="parked"}[$w]))`,
			all:     `sum(rate(stormbell_notifier_attempts_total{outcome=~"parked|succeeded"}[$w]))`,
			alert:   "StormbellDeliveriesParked",
			summary: "Deliveries are given up: subscribers do not get their alerts.",
			runbook: "deliveries-parked",
		},
	}
}

// A burn is how many times faster than allowed the month's errors are used up,
// over a long window, and still over a short one.
type burn struct {
	factor      float64
	long, short string
	severity    string
	hold        string
}

// burns find an outage within minutes, and a slow leak within days.
func burns() []burn {
	return []burn{
		{14.4, "1h", "5m", "page", "2m"},
		{6, "6h", "30m", "page", "15m"},
		{3, "1d", "2h", "ticket", "1h"},
		{1, "3d", "6h", "ticket", "3h"},
	}
}

func windows() []string { return []string{"5m", "30m", "1h", "2h", "6h", "1d", "3d"} }

func (o objective) record(window string) string {
	return "stormbell:" + o.name + ":ratio_rate" + window
}

// recorded are the shares of what was bad, by window. Where nothing happens
// there is no share, and no alert.
func (o objective) recorded() Group {
	g := Group{Name: "stormbell-" + strings.ReplaceAll(o.name, "_", "-")}
	for _, w := range windows() {
		bad, all := strings.ReplaceAll(o.bad, "$w", w), strings.ReplaceAll(o.all, "$w", w)
		g.Rules = append(g.Rules, Rule{Record: o.record(w), Expr: fmt.Sprintf("(%s or vector(0))\n/\n(%s > 0)", bad, all)})
	}
	return g
}

func (o objective) alerts() []Rule {
	var rules []Rule
	for _, b := range burns() {
		limit := fmt.Sprintf("%g * %.4f", b.factor, (100-o.target)/100)
		rules = append(rules, Rule{
			Alert: o.alert, For: b.hold,
			Expr:   fmt.Sprintf("%s > %s\nand\n%s > %s", o.record(b.long), limit, o.record(b.short), limit),
			Labels: map[string]string{"severity": b.severity, "window": b.long},
			Annotations: map[string]string{
				"summary":     o.summary,
				"description": fmt.Sprintf("{{ $value | humanizePercentage }} over %s; the objective allows %g %% over 30 days.", b.long, 100-o.target),
				"runbook_url": Runbooks + o.runbook + ".md",
			},
		})
	}
	return rules
}

// symptom is an alert that is no objective's.
func symptom(name, severity, hold, expr, summary, runbook string) Rule {
	return Rule{
		Alert: name, Expr: expr, For: hold, Labels: map[string]string{"severity": severity},
		Annotations: map[string]string{"summary": summary, "runbook_url": Runbooks + runbook + ".md"},
	}
}

// happened is true for 15 minutes after one of the counters has grown. They
// appear with their first value, which no increase shows.
func happened(counters ...string) string {
	var terms []string
	for _, c := range counters {
		terms = append(terms, fmt.Sprintf("sum(increase(%[1]s[15m])) > 0\nor\nsum(%[1]s unless %[1]s offset 15m) > 0", c))
	}
	return strings.Join(terms, "\nor\n")
}

func symptoms() []Rule {
	return []Rule{
		symptom("StormbellDown", "page", "3m", `up{job=~".*stormbell.*"} == 0`,
			"{{ $labels.instance }} does not answer on its admin port.", "instance-down"),
		symptom("StormbellLagGrows", "page", "10m",
			`sum by (group) (stormbell_bus_lag_records) > 1000 and sum by (group) (deriv(stormbell_bus_lag_records[10m])) > 0`,
			"{{ $labels.group }} is {{ $value }} records behind, and falls further behind.", "lag-grows"),
		symptom("StormbellWatermarkStands", "ticket", "5m", `max by (stage) (stormbell_correlator_watermark_age_seconds) > 300`,
			"The watermark of stage {{ $labels.stage }} lies {{ $value | humanizeDuration }} behind: windows stay open, and memory grows.", "watermark-stands"),
		symptom("StormbellLogGap", "page", "0m",
			happened("stormbell_correlator_gaps_total", "stormbell_notifier_gaps_total"),
			"The log lost records before they were read: their alerts may be missing.", "log-gap"),
		symptom("StormbellDeadLetters", "ticket", "0m",
			happened("stormbell_correlator_poison_total", "stormbell_notifier_poison_total"),
			"Records could not be processed and lie in dlq.", "dead-letters"),
		symptom("StormbellGroupsOverflow", "ticket", "0m", happened("stormbell_correlator_overflow_total"),
			"A correlation has as many groups as it may have; further ones are not counted.", "groups-overflow"),
		symptom("StormbellGroupFull", "ticket", "0m", happened("stormbell_correlator_shed_total"),
			"A group of a correlation holds as many records as it may and lets go of the oldest: alerts may be missing.", "group-full"),
		symptom("StormbellStoreRefuses", "ticket", "15m",
			`sum(rate(stormbell_correlator_refused_writes_total[10m]) or vector(0)) + sum(rate(stormbell_notifier_refused_writes_total[10m]) or vector(0)) > 0`,
			"Redis refuses writes again and again: it loses data, or a partition has two owners.", "store-refuses"),
		symptom("StormbellDeliveriesOld", "ticket", "5m", `max(stormbell_notifier_oldest_alert_age_seconds) > 86400`,
			"A delivery has been open for {{ $value | humanizeDuration }}; after 75 h it is parked.", "deliveries-parked"),
	}
}

// Groups are all groups of rules.
func Groups() []Group {
	var all []Group
	slo := Group{Name: "stormbell-objectives"}
	for _, o := range objectives() {
		all = append(all, o.recorded())
		slo.Rules = append(slo.Rules, o.alerts()...)
	}
	return append(all, slo, Group{Name: "stormbell-symptoms", Rules: symptoms()})
}

const written = "# Written by `make generate` from tools/observability; do not edit.\n"

// RuleFile is what Prometheus reads.
func RuleFile() ([]byte, error) {
	return document(struct {
		Groups []Group `yaml:"groups"`
	}{Groups()})
}

// PrometheusRule is the same for the Prometheus Operator.
func PrometheusRule() ([]byte, error) {
	type metadata struct {
		Name   string            `yaml:"name"`
		Labels map[string]string `yaml:"labels"`
	}
	type spec struct {
		Groups []Group `yaml:"groups"`
	}
	return document(struct {
		APIVersion string   `yaml:"apiVersion"`
		Kind       string   `yaml:"kind"`
		Metadata   metadata `yaml:"metadata"`
		Spec       spec     `yaml:"spec"`
	}{"monitoring.coreos.com/v1", "PrometheusRule", metadata{"stormbell", map[string]string{"app.kubernetes.io/name": "stormbell"}}, spec{Groups()}})
}

func document(value any) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(written)
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(value); err != nil {
		return nil, fmt.Errorf("write rules: %w", err)
	}
	return out.Bytes(), nil
}
