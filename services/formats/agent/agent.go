// Package agent judges host events: flat JSON objects with the field names of
// Sigma's taxonomy, as docs/host-events.md has them. It looks at the outermost
// members only, and leaves the event itself as it is.
package agent

import (
	"fmt"
	"strings"

	"github.com/stormbell/stormbell/services/formats/eventtime"
	"github.com/stormbell/stormbell/services/formats/jsonscan"
)

// Categories that demand fields of their own. Any other plain name is one too.
const (
	Authentication    = "authentication"
	ProcessCreation   = "process_creation"
	NetworkConnection = "network_connection"
	FileEvent         = "file_event"
	FileAccess        = "file_access"
	FileChange        = "file_change"
	FileDelete        = "file_delete"
	FileRename        = "file_rename"
	DNSQuery          = "dns_query"
)

// A Record is what the gateway needs of a host event.
type Record struct {
	// Product, Service and Category are its log source, in lower case.
	Product, Service, Category string
	// TimeMS is Unix milliseconds.
	TimeMS int64
}

// A FieldError says which field keeps an event from being taken.
type FieldError struct {
	Field, Reason string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// maxName bounds product, service and category.
const maxName = 64

// fields are the members that are judged; nil is absent.
type fields struct {
	product, service, category, hostname         []byte
	user, eventType, outcome                     []byte
	image, target, query, destination, otherName []byte
}

// Parse judges the members of an event, whose time is looked up in times. Of
// several members of a name the last counts. Errors are *FieldError.
func Parse(members []jsonscan.Member, times []eventtime.Field) (Record, error) {
	f := find(members)
	var r Record
	ok := false
	if r.TimeMS, ok = eventtime.Find(members, times); !ok {
		return r, &FieldError{"time", "is missing or no time: send RFC 3339, such as 2026-03-02T10:00:00Z, or Unix time"}
	}
	if r.Product = product(f.product); r.Product == "" {
		return r, &FieldError{"product", "must be linux, windows or macos"}
	}
	if r.Category = name(f.category); r.Category == "" {
		return r, &FieldError{"category", "must be a Sigma category such as authentication, process_creation or network_connection"}
	}
	if f.service != nil {
		if r.Service = name(f.service); r.Service == "" {
			return r, &FieldError{"service", "must be the name of a Sigma service, or be left out"}
		}
	} else if r.Category == Authentication {
		r.Service = authService(r.Product)
	}
	if !filled(f.hostname) {
		return r, missing("Hostname", "every host event")
	}
	return r, f.demands(r.Category)
}

func find(members []jsonscan.Member) fields {
	var f fields
	for _, m := range members {
		switch string(m.Name) {
		case "product":
			f.product = m.Value
		case "service":
			f.service = m.Value
		case "category":
			f.category = m.Value
		case "Hostname":
			f.hostname = m.Value
		case "User":
			f.user = m.Value
		case "EventType":
			f.eventType = m.Value
		case "Outcome":
			f.outcome = m.Value
		case "Image":
			f.image = m.Value
		case "TargetFilename":
			f.target = m.Value
		case "QueryName":
			f.query = m.Value
		case "DestinationIp":
			f.destination = m.Value
		case "DestinationHostname":
			f.otherName = m.Value
		}
	}
	return f
}

// demands names the first field that a category needs and f lacks. What a rule
// could not do without is demanded, and no more.
func (f *fields) demands(category string) error {
	switch category {
	case Authentication:
		switch {
		case !filled(f.user):
			return missing("User", category)
		case !filled(f.eventType):
			return missing("EventType", category)
		case string(f.outcome) != `"success"` && string(f.outcome) != `"failure"`:
			return &FieldError{"Outcome", "must be success or failure: " + category + " needs it"}
		}
	case ProcessCreation:
		if !filled(f.image) {
			return missing("Image", category)
		}
	case NetworkConnection:
		if !filled(f.destination) && !filled(f.otherName) {
			return missing("DestinationIp", category)
		}
	case FileEvent, FileAccess, FileChange, FileDelete, FileRename:
		if !filled(f.target) {
			return missing("TargetFilename", category)
		}
	case DNSQuery:
		if !filled(f.query) {
			return missing("QueryName", category)
		}
	}
	return nil
}

func missing(field, who string) error {
	return &FieldError{field, fmt.Sprintf("is missing, empty or not text: %s needs it (names are case-sensitive)", who)}
}

// filled is true for a string that is not empty.
func filled(v []byte) bool { return len(v) > 2 && v[0] == '"' }

// Products are those that a host event can be of.
func Products() []string { return []string{"linux", "windows", "macos"} }

func product(v []byte) string {
	text, _ := jsonscan.Text(v)
	switch string(text) { // without an allocation for the usual spelling
	case "linux":
		return "linux"
	case "windows":
		return "windows"
	case "macos":
		return "macos"
	}
	for _, p := range Products() {
		if len(text) == len(p) && strings.EqualFold(string(text), p) {
			return p
		}
	}
	return ""
}

// authService is what public rules call the log that sign-ins are in.
func authService(product string) string {
	switch product {
	case "linux":
		return "auth"
	case "windows":
		return "security"
	default:
		return ""
	}
}

// name returns a dimension of the log source in lower case, or nothing if it
// is no plain name.
func name(v []byte) string {
	text, _ := jsonscan.Text(v)
	if len(text) == 0 || len(text) > maxName {
		return ""
	}
	for _, c := range text {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '.':
		default:
			return ""
		}
	}
	switch string(text) { // without an allocation for the usual ones
	case Authentication:
		return Authentication
	case ProcessCreation:
		return ProcessCreation
	case NetworkConnection:
		return NetworkConnection
	case FileEvent:
		return FileEvent
	case DNSQuery:
		return DNSQuery
	}
	return strings.ToLower(string(text))
}
