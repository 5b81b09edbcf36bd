package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stormbell/stormbell/services/formats/body"
	"github.com/stormbell/stormbell/services/formats/elb"
	"github.com/stormbell/stormbell/services/formats/s3access"
	"github.com/stormbell/stormbell/services/formats/vpcflow"
	"github.com/stormbell/stormbell/services/internal/event"
)

// How late lines of files may be, which AWS writes after the fact: those of S3
// come hours later, at best effort.
const (
	latenessFiles    = 30 * time.Minute
	latenessS3Access = 24 * time.Hour
)

// isText is true for formats that are lines of text, not JSON.
func isText(format string) bool {
	return format == FormatS3Access || format == FormatELB || format == FormatVPCFlow
}

// usualLateness is that of a format, or 0 where it has none of its own.
func usualLateness(format string) time.Duration {
	switch format {
	case FormatS3Access:
		return latenessS3Access
	case FormatELB, FormatVPCFlow:
		return latenessFiles
	}
	return 0
}

// layoutOf returns the layout of a source's lines, nil where the format knows.
func layoutOf(s Source) (*vpcflow.Layout, error) {
	switch {
	case s.Format == FormatVPCFlow && len(s.Fields) == 0:
		return vpcflow.Default(), nil
	case s.Format == FormatVPCFlow:
		return vpcflow.NewLayout(s.Fields) //nolint:wrapcheck // it names the field
	case len(s.Fields) > 0:
		return nil, errors.New("fields are for format " + FormatVPCFlow)
	}
	return nil, nil
}

// textLines takes the lines of a body and returns how many there were. A line
// that names the fields of VPC flow logs counts for those after it, and is none
// itself. The only error is body.ErrTooMany.
func (b *batch) textLines(text []byte, limit int) (n int, err error) {
	layout := b.source.layout
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, " \t\r\n")
		switch {
		case len(line) == 0:
			continue
		case layout != nil && vpcflow.IsHeader(line):
			if named, err := vpcflow.Header(line); err == nil {
				layout = named
				continue
			}
		}
		if n == limit {
			return n, body.ErrTooMany
		}
		b.addLine(n, line, layout)
		n++
	}
	return n, nil
}

// addLine makes an event of a line.
func (b *batch) addLine(index int, line []byte, layout *vpcflow.Layout) {
	tooLarge := func(n int) bool {
		if n > b.maxRecordBytes {
			b.reject(index, codeTooLarge, fmt.Sprintf("%d bytes: at most %d fit into a record", n, b.maxRecordBytes))
		}
		return n > b.maxRecordBytes
	}
	if tooLarge(len(line)) {
		return
	}
	e := event.Event{
		Tenant: b.tenant, Source: b.source.name, LatenessMS: b.source.latenessMS,
		Format: b.source.format, StrictLogsource: true, OwnTime: true,
	}
	var err error
	var key []string
	switch b.source.format {
	case FormatS3Access:
		var r s3access.Record
		r, err = s3access.Parse(line)
		e.Raw, e.TimeMS, key = r.JSON, r.TimeMS, r.Key
		e.Product, e.Service = s3access.Product, s3access.Service
	case FormatELB:
		var r elb.Record
		r, err = elb.Parse(line)
		e.Raw, e.TimeMS = r.JSON, r.TimeMS
		e.Product, e.Service = elb.Product, elb.Service
	default:
		var r vpcflow.Record
		r, err = layout.Parse(line)
		e.Raw, e.TimeMS, e.OwnTime = r.JSON, r.TimeMS, r.HasTime
		e.Product, e.Service = vpcflow.Product, vpcflow.Service
	}
	if err != nil {
		b.reject(index, codeWrongFormat, fmt.Sprintf("not a line of format %s, which source %q asks for: %s", b.source.format, b.source.name, strings.ToValidUTF8(err.Error(), "\uFFFD")))
		return
	}
	if tooLarge(len(e.Raw)) {
		return
	}
	if len(key) > 0 {
		e.ID = event.ID(b.tenant, e.Format, key...)
	} else {
		e.ID = b.mint(&e, index)
	}
	b.add(&e)
}
