package gateway

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/stormbell/stormbell/services/formats/body"
	"github.com/stormbell/stormbell/services/formats/eventtime"
	"github.com/stormbell/stormbell/services/formats/vpcflow"
	"github.com/stormbell/stormbell/services/internal/event"
)

// A Decoder makes events of lines as a gateway makes them of one request, for
// tools that read files: the same ids, times and log sources. It is not safe
// for concurrent use.
type Decoder struct {
	b      batch
	limits body.Limits
	lines  int // seen so far
	again  bool
}

// A Rejection is a line that is no event, and why.
type Rejection struct {
	Index  int
	Detail string
}

// NewDecoder returns a decoder for events of a tenant from a configured source,
// or from none.
func NewDecoder(cfg Config, tenant, source string) (*Decoder, error) {
	all, err := newSources(cfg)
	if err != nil {
		return nil, err
	}
	from, ok := all[source]
	if !ok {
		return nil, fmt.Errorf("unknown source %q: %s, or leave it out", source, all.unknown())
	}
	d := &Decoder{limits: body.Limits{Records: math.MaxInt, Depth: cfg.MaxDepth, Members: maxMembers}}
	d.b.origin = origin{tenant: tenant, source: from, maxRecordBytes: cfg.MaxRecordBytes}
	return d, nil
}

// At returns another decoder of the same kind, for use beside d, that begins at a
// line.
func (d *Decoder) At(line int) *Decoder {
	other := &Decoder{limits: d.limits, lines: line}
	other.b.origin = d.b.origin
	return other
}

// Again makes d begin at a line as At does, for whoever is done with all events
// that it has returned: their memory serves again.
func (d *Decoder) Again(line int) {
	d.b.Reset()
	d.lines, d.again = line, true
}

// LogsourceFields are the fields in which JSON events assert their log source,
// with dots between nested names. Those that are empty stay as they are.
type LogsourceFields struct{ Product, Service, Category string }

// ReadLogsource looks the log source of JSON events up in other fields.
func (d *Decoder) ReadLogsource(fields LogsourceFields) {
	from := *d.b.source
	for _, f := range []struct {
		name string
		into *eventtime.Field
	}{{fields.Product, &from.dimensions.product}, {fields.Service, &from.dimensions.service}, {fields.Category, &from.dimensions.category}} {
		if f.name != "" {
			*f.into = strings.Split(f.name, ".")
		}
	}
	d.b.source = &from
}

// Lines returns the events of further lines, and those that are none with
// their index among the lines. Events refer to text.
func (d *Decoder) Lines(text []byte) ([]event.Event, []Rejection, error) {
	if !d.again {
		d.b.events = nil
	}
	d.b.rejected, d.b.rejectedMore, d.again = nil, 0, false
	// An event without time and id is told apart by where it stands.
	d.b.requestID = "line " + strconv.Itoa(d.lines)
	n, err := d.take(text)
	if err != nil {
		return nil, nil, fmt.Errorf("decode lines: %w", err)
	}
	d.lines += n
	rejected := make([]Rejection, len(d.b.rejected))
	for i, r := range d.b.rejected {
		rejected[i] = Rejection{r.Index, r.Detail}
	}
	return d.b.events, rejected, nil
}

func (d *Decoder) take(text []byte) (n int, err error) {
	if isText(d.b.source.format) {
		return d.b.textLines(text, d.limits.Records)
	}
	counted := counter{&d.b, 0}
	err = body.Lines(text, d.limits, &counted)
	return counted.n, err //nolint:wrapcheck // the caller does
}

// IsHeader reports whether a line is no event but names the fields of those
// behind it, in whatever parts they are decoded.
func (d *Decoder) IsHeader(line []byte) bool {
	return d.b.source.format == FormatVPCFlow && vpcflow.IsHeader(line)
}

// counter counts the records that pass to a batch.
type counter struct {
	*batch
	n int
}

func (c *counter) Record(r *body.Record) {
	c.n++
	c.batch.Record(r)
}
