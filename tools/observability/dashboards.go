package observability

import "fmt"

// Dashboards are all pages.
func Dashboards() []Dashboard { return []Dashboard{journey(), services(), tenants()} }

func rate(sum, metric string) string {
	return fmt.Sprintf("%s(rate(%s[$__rate_interval]))", sum, metric)
}

func quantile(q float64, metric string) string {
	return fmt.Sprintf("histogram_quantile(%g, sum by (le) (rate(%s_bucket[$__rate_interval])))", q, metric)
}

func chart(title, unit string, queries ...Query) Panel {
	return Panel{Title: title, Kind: "timeseries", Unit: unit, Queries: queries}
}

func number(title, unit, expr string) Panel {
	return Panel{Title: title, Kind: "stat", Unit: unit, Queries: []Query{{Expr: expr}}}
}

func (p Panel) says(text string) Panel { p.Text = text; return p }

const journeySeconds = "stormbell_notifier_event_to_webhook_seconds"

// journey follows events from the request to the subscriber's answer.
func journey() Dashboard {
	return Dashboard{
		UID: "stormbell-journey", Title: "Stormbell / Journey", Text: "From the posted event to the webhook that was taken.",
		Rows: []Row{
			{"Now", []Panel{
				number("Events accepted", "cps", rate("sum", "stormbell_gateway_events_total")),
				number("Alerts", "cpm", "60 * "+rate("sum", "stormbell_correlator_alerts_total")),
				number("Webhooks taken", "cpm", "60 * "+rate("sum", `stormbell_notifier_attempts_total{outcome="succeeded"}`)),
				number("Event to webhook, p99", "s", quantile(0.99, journeySeconds)),
				number("Ingest errors, 5 min", "percentunit", "stormbell:ingest_errors:ratio_rate5m"),
				number("Parked, 24 h", "short", `sum(increase(stormbell_notifier_parked_total[24h])) or vector(0)`),
			}},
			{"Event to webhook", []Panel{
				{
					Title: "Event to webhook", Kind: "heatmap", Unit: "s",
					Text:    "From the ingest of the event that made an alert fire to the subscriber's 2xx, retries included. The points are traces.",
					Queries: []Query{{Expr: fmt.Sprintf("sum by (le) (increase(%s_bucket[$__rate_interval]))", journeySeconds), Legend: "{{le}}", Exemplars: true}},
				},
				chart("Event to webhook", "s",
					Query{Expr: quantile(0.5, journeySeconds), Legend: "p50"},
					Query{Expr: quantile(0.95, journeySeconds), Legend: "p95"},
					Query{Expr: quantile(0.99, journeySeconds), Legend: "p99", Exemplars: true}),
			}},
			{"Rate", []Panel{
				chart("Events", "cps",
					Query{Expr: rate("sum", "stormbell_gateway_events_total"), Legend: "accepted"},
					Query{Expr: rate("sum", "stormbell_correlator_events_total"), Legend: "matched against rules"},
					Query{Expr: rate("sum", "stormbell_correlator_detections_total"), Legend: "handed to correlations"}),
				chart("Alerts", "cps",
					Query{Expr: rate("sum", "stormbell_correlator_alerts_total"), Legend: "alerts"},
					Query{Expr: rate("sum", "stormbell_correlator_shadow_alerts_total"), Legend: "in the shadow"},
					Query{Expr: rate("sum", "stormbell_correlator_updates_total"), Legend: "updates"},
					Query{Expr: rate("sum", "stormbell_notifier_routed_total"), Legend: "routed"},
					Query{Expr: rate("sum", "stormbell_notifier_unsubscribed_alerts_total"), Legend: "without subscription"},
					Query{Expr: rate("sum", `stormbell_notifier_attempts_total{outcome="succeeded"}`), Legend: "deliveries taken"}),
			}},
			{"Errors", []Panel{
				chart("Requests refused", "reqps", Query{Expr: rate("sum by (status)", `stormbell_gateway_requests_total{status!~"2.."}`), Legend: "{{status}}"}),
				chart("Records refused", "cps",
					Query{Expr: rate("sum by (code)", "stormbell_gateway_rejected_records_total"), Legend: "{{code}}"},
					Query{Expr: rate("sum", "stormbell_correlator_poison_total"), Legend: "dead letters, correlator"},
					Query{Expr: rate("sum", "stormbell_notifier_poison_total"), Legend: "dead letters, notifier"}),
				chart("Deliveries not taken", "cps", Query{Expr: rate("sum by (outcome)", `stormbell_notifier_attempts_total{outcome!="succeeded"}`), Legend: "{{outcome}}"}),
			}},
			{"Lag", []Panel{
				chart("Records not yet read", "short", Query{Expr: "sum by (group) (stormbell_bus_lag_records)", Legend: "{{group}}"}),
				chart("Watermark behind the clock", "s", Query{Expr: "max by (stage) (stormbell_correlator_watermark_age_seconds)", Legend: "{{stage}}"}).
					says("State is dropped, and windows close, as the watermark moves."),
				chart("Deliveries waiting", "short",
					Query{Expr: "sum(stormbell_notifier_queue_depth)", Legend: "waiting or under way"},
					Query{Expr: "sum(stormbell_correlator_rebuild_records)", Legend: "detections to rebuild from"},
					Query{Expr: "sum(stormbell_notifier_rebuild_records)", Legend: "alerts to rebuild from"}),
				chart("Oldest open delivery", "s", Query{Expr: "max(stormbell_notifier_oldest_alert_age_seconds)", Legend: "age"}),
			}},
			{"Objectives", burnCharts()},
		},
	}
}

func burnCharts() []Panel {
	var panels []Panel
	for _, o := range objectives() {
		budget := (100 - o.target) / 100
		panels = append(panels, chart(fmt.Sprintf("Burn rate: %s, %g %%", o.name, o.target), "short",
			Query{Expr: fmt.Sprintf("%s / %.4f", o.record("1h"), budget), Legend: "1 h"},
			Query{Expr: fmt.Sprintf("%s / %.4f", o.record("6h"), budget), Legend: "6 h"},
			Query{Expr: fmt.Sprintf("%s / %.4f", o.record("3d"), budget), Legend: "3 d"}).
			says("1 uses up the month's errors in a month. A page comes at 14.4 over an hour, or 6 over six."))
	}
	return panels
}

// services looks into each process.
func services() Dashboard {
	const of = `{instance=~"$instance"}`
	return Dashboard{
		UID: "stormbell-services", Title: "Stormbell / Services", Text: "Each service from inside.",
		Choices: [][2]string{{"instance", `label_values(process_start_time_seconds{job=~".*stormbell.*"}, instance)`}},
		Rows: []Row{
			{"Gateway", []Panel{
				chart("Requests", "reqps", Query{Expr: rate("sum by (route, status)", "stormbell_gateway_requests_total"+of), Legend: "{{route}} {{status}}"}),
				chart("Duration of requests, p99", "s", Query{
					Expr: "histogram_quantile(0.99, sum by (route, le) (rate(stormbell_gateway_request_duration_seconds_bucket" + of + "[$__rate_interval])))", Legend: "{{route}}", Exemplars: true,
				}),
				chart("Broker's acknowledgement, p99", "s", Query{Expr: quantile(0.99, "stormbell_gateway_produce_duration_seconds"), Legend: "p99", Exemplars: true}),
				chart("Bytes that wait for the broker", "bytes", Query{Expr: "stormbell_gateway_produce_queue_bytes" + of, Legend: "{{instance}}"}),
			}},
			{"Gateway: events", []Panel{
				chart("Events by source", "cps", Query{Expr: rate("sum by (source)", "stormbell_gateway_events_total"+of), Legend: "{{source}}"}),
				chart("Bytes by source", "Bps", Query{Expr: rate("sum by (source)", "stormbell_gateway_event_bytes_total"+of), Legend: "{{source}}"}),
				chart("Late events", "cps", Query{Expr: rate("sum by (source)", "stormbell_gateway_late_events_total"+of), Legend: "{{source}}"}),
				chart("Produces that failed", "cps", Query{Expr: rate("sum by (reason)", "stormbell_gateway_produce_errors_total"+of), Legend: "{{reason}}"}),
			}},
			{"Correlator", []Panel{
				chart("Matched", "cps",
					Query{Expr: rate("sum", "stormbell_correlator_events_total"+of), Legend: "events"},
					Query{Expr: rate("sum", "stormbell_correlator_matched_total"+of), Legend: "matches"},
					Query{Expr: rate("sum", "stormbell_correlator_ungrouped_total"+of), Legend: "without group"}),
				chart("Lag by stage", "short", Query{Expr: "sum by (stage) (stormbell_correlator_lag_records" + of + ")", Legend: "{{stage}}"}),
				chart("Open groups", "short", Query{Expr: "sum by (instance) (stormbell_correlator_open_groups" + of + ")", Legend: "{{instance}}"}),
				chart("Not acknowledged by the log", "short", Query{Expr: "sum by (instance) (stormbell_correlator_outbox_entries" + of + ")", Legend: "{{instance}}"}),
				chart("Groups kept in the log", "cps",
					Query{Expr: rate("sum", "stormbell_correlator_snapshots_total"+of), Legend: "snapshots"},
					Query{Expr: rate("sum", "stormbell_correlator_restored_total"+of), Legend: "restored"}),
				chart("Not as it should be", "cps",
					Query{Expr: rate("sum by (reason)", "stormbell_correlator_refused_writes_total"+of), Legend: "refused: {{reason}}"},
					Query{Expr: rate("sum", "stormbell_correlator_overflow_total"+of), Legend: "groups overflow"},
					Query{Expr: rate("sum", "stormbell_correlator_shed_total"+of), Legend: "full groups shed"},
					Query{Expr: rate("sum", "stormbell_correlator_gaps_total"+of), Legend: "gaps in the log"},
					Query{Expr: rate("sum", "stormbell_correlator_copies_total"+of), Legend: "copies"}),
			}},
			{"Notifier", []Panel{
				chart("Attempts", "cps", Query{Expr: rate("sum by (outcome)", "stormbell_notifier_attempts_total"+of), Legend: "{{outcome}}"}),
				chart("Webhook requests, p99", "s", Query{
					Expr: "histogram_quantile(0.99, sum by (outcome, le) (rate(stormbell_notifier_delivery_seconds_bucket" + of + "[$__rate_interval])))", Legend: "{{outcome}}", Exemplars: true,
				}),
				chart("Under way, waiting", "short",
					Query{Expr: "sum(stormbell_notifier_requests_in_flight" + of + ")", Legend: "requests under way"},
					Query{Expr: "sum(stormbell_notifier_queue_depth" + of + ")", Legend: "deliveries open"},
					Query{Expr: "sum(stormbell_notifier_lag_records" + of + ")", Legend: "alerts not routed"}),
				chart("Not as it should be", "cps",
					Query{Expr: rate("sum by (reason)", "stormbell_notifier_refused_writes_total"+of), Legend: "refused: {{reason}}"},
					Query{Expr: rate("sum", "stormbell_notifier_stale_leases_total"+of), Legend: "after their lease"},
					Query{Expr: rate("sum", "stormbell_notifier_copies_total"+of), Legend: "copies"}),
			}},
			{"Kafka, as seen from here", []Panel{
				chart("Produced", "cps", Query{Expr: rate("sum by (topic)", "stormbell_bus_produced_records_total"+of), Legend: "{{topic}}"}),
				chart("Acknowledged after, p99", "s", Query{
					Expr: "histogram_quantile(0.99, sum by (topic, le) (rate(stormbell_bus_produce_duration_seconds_bucket" + of + "[$__rate_interval])))", Legend: "{{topic}}",
				}),
				chart("Sent again, given up", "cps",
					Query{Expr: rate("sum by (topic)", "stormbell_bus_produce_retries_total"+of), Legend: "again: {{topic}}"},
					Query{Expr: rate("sum by (topic)", "stormbell_bus_produce_failures_total"+of), Legend: "given up: {{topic}}"}),
				chart("Handlers started again", "cps", Query{Expr: rate("sum by (instance)", "stormbell_bus_handler_restarts_total"+of), Legend: "{{instance}}"}),
			}},
			{"Processes", []Panel{
				chart("Processor", "short", Query{Expr: rate("sum by (instance)", "process_cpu_seconds_total"+of), Legend: "{{instance}}"}),
				chart("Memory", "bytes", Query{Expr: "process_resident_memory_bytes" + of, Legend: "{{instance}}"}),
				chart("Goroutines", "short", Query{Expr: "go_goroutines" + of, Legend: "{{instance}}"}),
				chart("Open files", "short", Query{Expr: "process_open_fds" + of, Legend: "{{instance}}"}),
			}},
		},
	}
}

// tenants compares tenants. Each process names a hundred at most.
func tenants() Dashboard {
	by := func(title, metric string) Panel {
		return chart(title, "cps", Query{Expr: `topk(20, ` + rate("sum by (tenant)", metric+`{tenant=~"$tenant"}`) + `)`, Legend: "{{tenant}}"})
	}
	return Dashboard{
		UID: "stormbell-tenants", Title: "Stormbell / Tenants", Text: "What each tenant sends and gets.",
		Choices: [][2]string{{"tenant", "label_values(stormbell_tenant_events_total, tenant)"}},
		Rows: []Row{
			{"Sends", []Panel{
				by("Events", "stormbell_tenant_events_total"),
				by("Records refused", "stormbell_tenant_rejected_records_total"),
				by("Late events", "stormbell_tenant_late_events_total"),
			}},
			{"Finds", []Panel{
				by("Matches", "stormbell_tenant_matched_total"),
				by("Alerts", "stormbell_tenant_alerts_total"),
				by("Alerts without subscription", "stormbell_tenant_unsubscribed_alerts_total"),
			}},
			{"Gets", []Panel{
				by("Deliveries taken", "stormbell_tenant_delivered_total"),
				by("Attempts that failed", "stormbell_tenant_failed_attempts_total"),
				by("Parked", "stormbell_tenant_parked_total"),
				by("Dead letters", "stormbell_tenant_dead_letters_total"),
			}},
		},
	}
}
