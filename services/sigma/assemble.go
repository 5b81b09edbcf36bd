package sigma

import "slices"

// assembled is what decides of a detection rule in a set: its own detection with
// the set's placeholders, filters and pipelines.
type assembled struct {
	expr         *expr
	logsource    LogSource
	active       []*transformation
	placeholders map[string][]string
	revision     string
}

// assemble builds a rule with the filters that apply to it. With labels its
// parts keep what they were written as.
func assemble(d *Document, filters []*Document, opts Options, labels bool) (*assembled, []part, *fault) {
	det := d.detection
	pipelines := opts.Pipelines
	if d.Pipelines != nil {
		pipelines = d.Pipelines
	}
	active, source, f := chain(pipelines, d)
	if f != nil {
		return nil, nil, f
	}
	a := &assembled{logsource: source, active: active, expr: det.expr}
	var wild bool
	a.placeholders, wild = resolved(active, opts.Placeholders)
	if wild {
		a.placeholders = withWildcards(a.placeholders, d, filters)
	}
	b := &builder{root: "detection", placeholders: a.placeholders, active: active, labels: labels}
	if len(det.placeholders) > 0 || len(active) > 0 || labels {
		if a.expr, f = b.build(det.node); f != nil {
			return nil, nil, f
		}
	}
	var revisions []string
	for _, other := range filters {
		b.root, b.prefix = "filter", "filter "+other.ID+": "
		e, f := b.build(other.filter.node)
		if f != nil {
			at := Problem{File: other.File, Line: f.line, Field: f.field, Message: f.message}
			return nil, nil, &fault{message: "the filter in " + at.String()}
		}
		a.expr = joinExpr(exprAnd, a.expr, e)
		revisions = append(revisions, filterRevision(other.filter, a.placeholders))
	}
	if a.expr, f = b.add(a.expr); f != nil {
		return nil, nil, f
	}
	if a.expr == nil {
		return nil, nil, &fault{field: "detection", message: "pipelines drop all of it"}
	}
	a.revision = detectionRevision(a, det, revisions, b.changes)
	return a, b.parts, nil
}

// withWildcards gives placeholders that have no values a star.
func withWildcards(values map[string][]string, d *Document, filters []*Document) map[string][]string {
	used := slices.Clone(d.detection.placeholders)
	for _, f := range filters {
		used = append(used, f.filter.placeholders...)
	}
	for _, name := range used {
		if len(values[name]) == 0 {
			values[name] = []string{"*"}
		}
	}
	return values
}

// renames finds the fields of a correlation that pipelines call otherwise in
// the events of its rules.
func (c *compiler) renames(d *Document, corr *Correlation) bool {
	for _, w := range corr.ways {
		id := w[len(w)-1]
		r := c.set.byID[id]
		if r == nil || len(r.active) == 0 {
			continue
		}
		for _, name := range slices.Concat(corr.GroupBy, corr.Field) {
			name = c.set.named(corr, name, w)
			names := renamed(r.active, name)
			switch {
			case len(names) > 1:
				c.fail(d, d.correlation.node, d.correlation.root, "pipelines give the field %q of rule %q several names: use an alias for one of them", name, id)
				return false
			case names[0] != name:
				if corr.renamed == nil {
					corr.renamed = map[string]map[string]string{}
				}
				if corr.renamed[w.key()] == nil {
					corr.renamed[w.key()] = map[string]string{}
				}
				corr.renamed[w.key()][name] = names[0]
			}
		}
	}
	return true
}
