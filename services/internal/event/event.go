// Package event is the record that every stage of the journey reads: an
// accepted event, its identity and its flags, as bytes of the topic
// `stormbell.events`.
//
// It is pure: it reads no clock and does no I/O. It does not look into the
// event itself, which stays the bytes that were received.
package event

// Headers of the Kafka records of all topics.
const (
	// HeaderSchema names the message that the record holds.
	HeaderSchema = "schema"
	// HeaderTenant repeats the tenant, so that tools need not decode a record.
	HeaderTenant = "tenant"
	// HeaderTraceparent and HeaderTracestate carry the W3C trace context of
	// the request that the record came with.
	HeaderTraceparent = "traceparent"
	HeaderTracestate  = "tracestate"
)

// Values of HeaderSchema on the topic `stormbell.events`.
const (
	SchemaEvent = "stormbell.event.v1.Event"
	SchemaTick  = "stormbell.event.v1.Tick"
)

// EarlyMS is how far ahead of its ingest an event's time may lie, in
// milliseconds, before the event counts as early.
const EarlyMS = 5 * 60 * 1000

// Event is one accepted event. Its meaning is that of the message
// stormbell.event.v1.Event. All times are Unix milliseconds.
type Event struct {
	// ID identifies the event within its tenant.
	ID string
	// Tenant comes from the credential, never from the request.
	Tenant string
	// Source is the configured source that was asked for, or empty.
	Source string
	// Format is the kind of record, not its transport: "cloudtrail", "json".
	Format string
	// Product, Service and Category are the asserted log source in lower
	// case; empty is unset.
	Product, Service, Category string
	// StrictLogsource says that the format asserts all three dimensions.
	StrictLogsource bool
	// TimeMS is the event's own time, or its ingest time if OwnTime is unset.
	TimeMS int64
	// OwnTime says that the event carries a time of its own.
	OwnTime bool
	// IngestMS is when the produce that carries the event was built.
	IngestMS int64
	// LatenessMS is the lateness of the event's source, in milliseconds.
	LatenessMS int64
	// Late and Early are what Flags returns for the three figures above.
	Late, Early bool
	// ManifestAll and ManifestTenant are the content hashes of the rule
	// manifests in force; empty where there is none.
	ManifestAll, ManifestTenant []byte
	// Raw is the event: one JSON object.
	Raw []byte
}

// Flags derives the two flags of an event. It is late if its time lies more
// than latenessMS before its ingest, and early if it lies more than EarlyMS
// after it. An event without a time of its own is neither, since its time is
// its ingest. Stage detect calls it anew where it raises an ingest time.
func Flags(timeMS, ingestMS, latenessMS int64) (late, early bool) {
	return timeMS < ingestMS-latenessMS, timeMS > ingestMS+EarlyMS
}
