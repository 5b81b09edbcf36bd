// Package observability writes what shows a Stormbell at work: dashboards for
// Grafana, and recording and alerting rules for Prometheus. They are code, so
// that each metric they name can be held against those that there are.
package observability

import (
	"encoding/json"
	"fmt"
	"slices"
)

// A Query is one expression of a panel. $__rate_interval is Grafana's.
type Query struct {
	Expr, Legend string
	// Exemplars shows traces at the points that they are of.
	Exemplars bool
}

// A Panel is one figure or chart.
type Panel struct {
	Title, Text string
	// Kind is Grafana's: timeseries, stat or heatmap.
	Kind string
	// Unit is Grafana's: s, reqps, short, bytes, percentunit.
	Unit    string
	Queries []Query
}

// A Row is panels side by side.
type Row struct {
	Title  string
	Panels []Panel
}

// A Dashboard is a page.
type Dashboard struct {
	UID, Title, Text string
	// Choices are variables beside the data source: name and the query that
	// lists their values.
	Choices [][2]string
	Rows    []Row
}

// The grid that Grafana places panels on is 24 wide.
const (
	width      = 24
	statHeight = 4
	height     = 8
)

type object = map[string]any

// JSON is the page as Grafana reads it.
func (d Dashboard) JSON() ([]byte, error) {
	var panels []object
	id, y := 1, 0
	for _, row := range d.Rows {
		panels = append(panels, object{
			"id": id, "type": "row", "title": row.Title, "collapsed": false, "panels": []object{},
			"gridPos": object{"x": 0, "y": y, "w": width, "h": 1},
		})
		id, y = id+1, y+1
		w, h := width/len(row.Panels), height
		if !slices.ContainsFunc(row.Panels, func(p Panel) bool { return p.Kind != "stat" }) {
			h = statHeight
		}
		for i, p := range row.Panels {
			panels = append(panels, p.object(id, object{"x": i * w, "y": y, "w": w, "h": h}))
			id++
		}
		y += h
	}
	variables := []object{{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}}
	for _, c := range d.Choices {
		variables = append(variables, object{
			"name": c[0], "type": "query", "datasource": source(), "query": object{"query": c[1], "refId": c[0]}, "refresh": 2,
			"includeAll": true, "multi": true, "allValue": ".*", "current": object{"text": "All", "value": "$__all"}, "sort": 1,
		})
	}
	out, err := json.MarshalIndent(object{
		"uid": d.UID, "title": d.Title, "description": d.Text, "tags": []string{"stormbell"}, "schemaVersion": 39, "version": 1,
		"editable": false, "graphTooltip": 1, "refresh": "10s", "time": object{"from": "now-1h", "to": "now"}, "timezone": "browser",
		"templating": object{"list": variables}, "panels": panels,
		"links": []object{{"type": "dashboards", "tags": []string{"stormbell"}, "title": "Stormbell", "asDropdown": true, "includeVars": true, "keepTime": true}},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write dashboard %s: %w", d.UID, err)
	}
	return append(out, '\n'), nil
}

func source() object { return object{"type": "prometheus", "uid": "${datasource}"} }

func (p Panel) object(id int, at object) object {
	var targets []object
	for i, q := range p.Queries {
		t := object{"refId": string(rune('A' + i)), "datasource": source(), "expr": q.Expr, "legendFormat": q.Legend, "exemplar": q.Exemplars}
		if p.Kind == "heatmap" {
			t["format"] = "heatmap"
		}
		targets = append(targets, t)
	}
	out := object{
		"id": id, "type": p.Kind, "title": p.Title, "description": p.Text, "datasource": source(), "gridPos": at, "targets": targets,
		"fieldConfig": object{"defaults": object{"unit": p.Unit, "min": 0}, "overrides": []object{}},
	}
	switch p.Kind {
	case "stat":
		out["options"] = object{"reduceOptions": object{"calcs": []string{"lastNotNull"}}, "graphMode": "area"}
	case "heatmap":
		out["options"] = object{"calculate": false, "yAxis": object{"unit": p.Unit}, "exemplars": object{"color": "rgba(255,0,255,0.7)"}, "color": object{"scheme": "Oranges"}}
	default:
		out["options"] = object{"legend": object{"displayMode": "table", "placement": "bottom", "calcs": []string{"lastNotNull", "max"}}, "tooltip": object{"mode": "multi", "sort": "desc"}}
	}
	return out
}
