// Package s3access reads the lines of Amazon S3 server access logs.
package s3access

import (
	"bytes"
	"fmt"
	"time"

	"github.com/stormbell/stormbell/services/formats/accesslog"
)

// The log source that every line asserts.
const (
	Product = "aws"
	Service = "s3"
)

// A Record is one line.
type Record struct {
	// JSON is the event, with the field names of AWS's description in snake
	// case, `time` in RFC 3339, and the parts of request_uri.
	JSON []byte
	// TimeMS is Unix milliseconds.
	TimeMS int64
	// Key identifies the line: bucket, request id, operation, key and version
	// id. Without a request id there is none.
	Key []string
}

const (
	timeLayout = "02/Jan/2006:15:04:05 -0700"
	// minFields is where the oldest lines end.
	minFields = 18
)

// names are those of the fields in their order. AWS adds further ones at the
// end: they are kept as a list.
func names() []string {
	return []string{
		"bucket_owner", "bucket", "time", "remote_ip", "requester", "request_id", "operation", "key", "request_uri",
		"status", "error_code", "bytes_sent", "object_size", "total_time", "turnaround_time", "referer", "user_agent",
		"version_id", "host_id", "signature_version", "cipher_suite", "auth_type", "host_header", "tls_version",
		"access_point_arn", "acl_required", "source_region",
	}
}

// Places of fields among the names.
const (
	atBucket = 1 + iota
	atTime
	_
	_
	atRequestID
	atOperation
	atKey
	atRequest
	atStatus
	atVersionID = 17
)

// Parse reads a line.
func Parse(line []byte) (Record, error) {
	fields, err := split(line)
	if err != nil {
		return Record{}, err
	}
	if len(fields) < minFields {
		return Record{}, fmt.Errorf("%d fields: a line of an S3 access log has at least %d", len(fields), minFields)
	}
	when, err := time.Parse(timeLayout, string(fields[atTime]))
	if err != nil {
		return Record{}, fmt.Errorf("field 3 is no time such as [06/Feb/2019:00:00:38 +0000]: %.40q", fields[atTime])
	}
	r := Record{TimeMS: when.UnixMilli()}
	o, known := accesslog.NewObject(2*len(line)+512), names()
	for i, v := range fields[:min(len(fields), len(known))] {
		switch {
		case i == atTime:
			o.Text(known[i], []byte(when.UTC().Format(time.RFC3339)))
		case i == atRequest:
			o.Text(known[i], v)
			o.Request(v)
		case i >= atStatus && i < 15 && i != atStatus+1:
			o.Value(known[i], v)
		default:
			o.Text(known[i], v)
		}
	}
	if len(fields) > len(known) {
		o.Texts("surplus", fields[len(known):])
	}
	r.JSON = o.JSON()
	if !accesslog.Absent(fields[atRequestID]) {
		for _, i := range []int{atBucket, atRequestID, atOperation, atKey, atVersionID} {
			r.Key = append(r.Key, string(fields[i]))
		}
	}
	return r, nil
}

// beforeAgent is how many fields are before the user agent.
const beforeAgent = 16

// split reads the user agent from its far end: clients choose it, quotes
// included, and no field behind it that is known has any.
func split(line []byte) ([][]byte, error) {
	fields, rest, err := accesslog.SplitN(line, beforeAgent)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what is wrong with the line
	}
	if len(rest) == 0 || len(fields) < beforeAgent {
		return fields, nil
	}
	if last := bytes.LastIndexByte(rest, '"'); rest[0] == '"' && last > 0 {
		tail, err := accesslog.Split(rest[last+1:])
		if err == nil {
			return append(append(fields, rest[1:last]), tail...), nil
		}
	}
	tail, err := accesslog.Split(rest)
	return append(fields, tail...), err //nolint:wrapcheck // as above
}
