// Package cloudtrail recognises AWS CloudTrail records and reads what
// identifies and dates them. It judges only the outermost members, types
// nothing strictly, and leaves the record itself as it is.
package cloudtrail

import (
	"github.com/stormbell/stormbell/services/formats/eventtime"
	"github.com/stormbell/stormbell/services/formats/jsonscan"
)

// The log source that every CloudTrail record asserts.
const (
	Product = "aws"
	Service = "cloudtrail"
)

// A Record is what the gateway needs of a CloudTrail record.
type Record struct {
	// ID is the provider's own, empty if the record holds none that can serve
	// as an identity.
	ID []byte
	// TimeMS is Unix milliseconds, valid if HasTime is set.
	TimeMS  int64
	HasTime bool
}

// maxID bounds the length of an identity. CloudTrail's own have 36 characters.
const maxID = 128

// Parse reports whether the members are those of a CloudTrail record: an
// eventVersion and an eventTime with an eventID, or an aggregated event with
// an eventId and a timeWindow. Members are found in one pass, and the last of
// a name counts.
func Parse(members []jsonscan.Member) (Record, bool) {
	var id, aggregatedID, version, when, category, window []byte
	for _, m := range members {
		switch string(m.Name) {
		case "eventID":
			id = m.Value
		case "eventId":
			aggregatedID = m.Value
		case "eventVersion":
			version = m.Value
		case "eventTime":
			when = m.Value
		case "eventCategory":
			category = m.Value
		case "timeWindow":
			window = m.Value
		}
	}
	if isText(version) && isText(id) && isText(when) {
		r := Record{ID: identity(id)}
		r.TimeMS, r.HasTime = eventtime.Value(when)
		return r, true
	}
	if isText(aggregatedID) && string(category) == `"Aggregated"` && len(window) > 0 && window[0] == '{' {
		r := Record{ID: identity(aggregatedID)}
		var s jsonscan.Scanner
		if _, _, err := s.Value(window, 0); err == nil {
			r.TimeMS, r.HasTime = eventtime.Value(jsonscan.Find(s.Members, "windowEnd"))
		}
		return r, true
	}
	return Record{}, false
}

// ForeignRecords names the kind of a member of `Records` that other AWS
// services send in the same envelope, or returns "".
func ForeignRecords(members []jsonscan.Member) string {
	if v := jsonscan.Find(members, "s3"); len(v) > 0 && v[0] == '{' {
		return "an S3 notification"
	}
	for _, name := range []string{"eventSource", "EventSource"} {
		switch v := string(jsonscan.Find(members, name)); v {
		case `"aws:s3"`:
			return "an S3 notification"
		case `"aws:sns"`:
			return "an SNS message"
		case `"aws:sqs"`:
			return "an SQS message"
		case `"aws:kinesis"`:
			return "a Kinesis record"
		case `"aws:dynamodb"`:
			return "a DynamoDB stream record"
		}
	}
	return ""
}

func isText(v []byte) bool { return len(v) >= 2 && v[0] == '"' }

// identity returns the text of a value if it can serve as an identity: short,
// not empty, printable ASCII.
func identity(v []byte) []byte {
	text, _ := jsonscan.Text(v)
	if len(text) == 0 || len(text) > maxID {
		return nil
	}
	for _, c := range text {
		if c <= ' ' || c > '~' {
			return nil
		}
	}
	return text
}
