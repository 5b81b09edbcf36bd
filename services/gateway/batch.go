package gateway

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"

	"github.com/stormbell/stormbell/services/formats/agent"
	"github.com/stormbell/stormbell/services/formats/body"
	"github.com/stormbell/stormbell/services/formats/cloudtrail"
	"github.com/stormbell/stormbell/services/formats/eventtime"
	"github.com/stormbell/stormbell/services/formats/jsonscan"
	"github.com/stormbell/stormbell/services/internal/event"
)

// Codes of a rejected record, beside those of package body.
const (
	codeTooLarge      = "too_large"
	codeForeignRecord = "unsupported_record"
	codeWrongFormat   = "wrong_format"
)

// A rejection names a record of a request that was not taken, and why.
type rejection struct {
	Index  int    `json:"index"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// maxRejections bounds what an answer lists; all are counted.
const maxRejections = 1000

// An origin is what all records of a request share.
type origin struct {
	tenant         string
	requestID      string // minted here, never the client's
	idempotencyKey string
	source         *source
	maxRecordBytes int
}

// A batch is the records of one request on their way to events. It is a
// body.Sink.
type batch struct {
	origin
	events       []event.Event // without ingest time, flags and manifests
	rejected     []rejection
	rejectedMore int
	rawBytes     int
	ordinals     map[[sha256.Size]byte]int // of contents that carry their own time
}

func (b *batch) reset(o origin) {
	b.origin = o
	b.Reset()
}

// Reset forgets all records.
func (b *batch) Reset() {
	clear(b.events)
	b.events, b.rejected, b.rejectedMore, b.rawBytes = b.events[:0], nil, 0, 0
	clear(b.ordinals)
}

// Record takes one record of the body.
func (b *batch) Record(r *body.Record) {
	if r.Problem != nil {
		b.reject(r.Index, r.Problem.Code, r.Problem.Detail)
		return
	}
	if len(r.Raw) > b.maxRecordBytes {
		b.reject(r.Index, codeTooLarge, fmt.Sprintf("%d bytes: at most %d fit into a record", len(r.Raw), b.maxRecordBytes))
		return
	}
	if r.Enveloped {
		if kind := cloudtrail.ForeignRecords(r.Members); kind != "" {
			b.reject(r.Index, codeForeignRecord, "this is "+kind+", not an event: post the events themselves")
			return
		}
	}
	e := event.Event{Tenant: b.tenant, Source: b.source.name, LatenessMS: b.source.latenessMS, Raw: r.Raw}
	if b.source.format == FormatAgent {
		b.addAgent(&e, r)
		return
	}
	if b.source.format != FormatJSON {
		if trail, ok := cloudtrail.Parse(r.Members); ok {
			b.addCloudTrail(&e, r.Index, trail)
			return
		}
		if b.source.format == FormatCloudTrail {
			b.reject(r.Index, codeWrongFormat, fmt.Sprintf("not a CloudTrail record, which source %q asks for: it needs eventVersion, eventID and eventTime", b.source.name))
			return
		}
	}
	b.addJSON(&e, r)
}

func (b *batch) addCloudTrail(e *event.Event, index int, trail cloudtrail.Record) {
	e.Format, e.Product, e.Service, e.StrictLogsource = FormatCloudTrail, cloudtrail.Product, cloudtrail.Service, true
	e.TimeMS, e.OwnTime = trail.TimeMS, trail.HasTime
	if len(trail.ID) > 0 {
		e.ID = string(trail.ID)
	} else {
		e.ID = b.mint(e, index)
	}
	b.add(e)
}

// addAgent takes a host event. Its log source is complete: rules that name a
// dimension that it leaves open are for other logs.
func (b *batch) addAgent(e *event.Event, r *body.Record) {
	host, err := agent.Parse(r.Members, b.source.timeFields)
	if err != nil {
		b.reject(r.Index, codeWrongFormat, fmt.Sprintf("not a host event, which source %q asks for: %v", b.source.name, err))
		return
	}
	e.Format, e.Product, e.Service, e.Category, e.StrictLogsource = FormatAgent, host.Product, host.Service, host.Category, true
	e.TimeMS, e.OwnTime = host.TimeMS, true
	e.ID = b.mint(e, r.Index)
	b.add(e)
}

func (b *batch) addJSON(e *event.Event, r *body.Record) {
	e.Format = FormatJSON
	d, members := &b.source.dimensions, eventtime.NewIndex(r.Members)
	e.Product = asserted(b.source.product, &members, d.product)
	e.Service = asserted(b.source.service, &members, d.service)
	e.Category = asserted(b.source.category, &members, d.category)
	e.TimeMS, e.OwnTime = members.Find(b.source.timeFields)
	e.ID = b.mint(e, r.Index)
	b.add(e)
}

func (b *batch) add(e *event.Event) {
	b.rawBytes += len(e.Raw)
	b.events = append(b.events, *e)
}

// mint makes the id of an event whose provider gives it none. Content
// identifies an event only together with its own time: then equal contents of
// one request are told apart by their ordinal, and a second post is the same
// event. Without a time, each post is an event of its own unless the client
// says by its key that it is a retry.
func (b *batch) mint(e *event.Event, index int) string {
	if !e.OwnTime {
		if b.idempotencyKey == "" {
			return event.ID(b.tenant, e.Format, b.requestID, strconv.Itoa(index))
		}
		sum := sha256.Sum256(e.Raw)
		return event.ID(b.tenant, e.Format, b.idempotencyKey, strconv.Itoa(index), string(sum[:]))
	}
	sum := sha256.Sum256(e.Raw)
	if b.ordinals == nil {
		b.ordinals = make(map[[sha256.Size]byte]int)
	}
	ordinal := b.ordinals[sum]
	b.ordinals[sum] = ordinal + 1
	return event.ID(b.tenant, e.Format, string(sum[:]), strconv.Itoa(ordinal))
}

func (b *batch) reject(index int, code, detail string) {
	if len(b.rejected) == maxRejections {
		b.rejectedMore++
		return
	}
	b.rejected = append(b.rejected, rejection{index, code, detail})
}

// rejections counts the records that were not taken.
func (b *batch) rejections() int { return len(b.rejected) + b.rejectedMore }

// maxAsserted bounds a member that names a dimension of the log source.
const maxAsserted = 128

// asserted returns what the source says about a dimension, or else the event.
func asserted(configured string, members *eventtime.Index, name eventtime.Field) string {
	if configured != "" {
		return configured
	}
	v := members.Lookup(name)
	if v == nil {
		return ""
	}
	text, ok := jsonscan.Text(v)
	if !ok || len(text) > maxAsserted {
		return ""
	}
	return lower(text)
}

// lower returns text in lower case, without an allocation for the usual values.
func lower(text []byte) string {
	switch string(text) {
	case "aws":
		return "aws"
	case "linux":
		return "linux"
	case "windows":
		return "windows"
	}
	return strings.ToLower(string(text))
}
