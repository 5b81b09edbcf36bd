package alert

import (
	"bytes"
	"slices"
	"strings"

	"github.com/valyala/fastjson"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/formats/jsonscan"
)

// Entities reads who, from where, what and how from an event: CloudTrail's
// fields, those of host events, else the names that other JSON uses for them,
// ECS first. A field of
// another type than expected is left out; what is no JSON object gives nothing.
func Entities(raw []byte) *detectionv1.Entities { return new(EntityReader).Read(raw) }

// EntityReader reads entities of one event after the other. It is not safe for
// concurrent use.
type EntityReader struct {
	scan    jsonscan.Scanner   // of the event
	parser  fastjson.Parser    // of what must be looked into
	members map[string]*member // of the object that is read, by the names that may be asked for
	found   []*member          // those that are there
	begins  [256]uint64        // by the first byte of a name, a bit for its length
	usual   [][]usualName      // of each entity
	// trail and host are the members that tell a CloudTrail record, and a host event.
	trail, host []*member
}

// Read is Entities.
func (r *EntityReader) Read(raw []byte) *detectionv1.Entities {
	e, _ := r.ReadCompact(raw)
	return e
}

// ReadCompact is Read, and reports whether the event is known to be JSON that an
// alert shows as it is. A no says nothing.
func (r *EntityReader) ReadCompact(raw []byte) (e *detectionv1.Entities, compact bool) {
	from, end, err := r.scan.Value(raw, 0)
	if err != nil {
		return &detectionv1.Entities{}, false
	}
	compact = end == len(raw) && isPlain(raw) && isTight(raw)
	if raw[from] != '{' || r.scan.Depth >= fastjson.MaxDepth || jsonscan.Space(raw, end) < len(raw) {
		return &detectionv1.Entities{}, compact
	}
	r.look()
	for i, all := range [...][]*member{r.trail, r.host} {
		if slices.ContainsFunc(all, func(m *member) bool { return m.value == nil }) {
			continue
		}
		v, err := r.parser.ParseBytes(raw)
		switch {
		case err != nil:
			return &detectionv1.Entities{}, compact
		case i == 0:
			return cloudTrail(v), compact
		default:
			return hostEvent(v), compact
		}
	}
	return &detectionv1.Entities{
		Principal: r.first(0), SourceIp: r.first(1), Account: r.first(2), Region: r.first(3),
		Action: r.first(4), Outcome: r.first(5), Resources: present(r.first(6)),
	}, compact
}

// usualNames are what JSON other than CloudTrail calls each entity, in the order
// in which they are looked up.
func usualNames() [][]string {
	return [][]string{
		{"user.name", "user.id", "userName", "username", "user", "principal", "actor", "User"},
		{"source.ip", "sourceIPAddress", "src_ip", "client_ip", "remote_ip", "ip", "SourceIp"},
		{"cloud.account.id", "account_id", "accountId", "account"},
		{"cloud.region", "region", "awsRegion"},
		{"event.action", "action", "eventName", "operation", "EventID"},
		{"event.outcome", "outcome", "result", "status"},
		{"host.name", "host.hostname", "hostname", "host", "Computer"},
	}
}

// A usualName is a name, and the members that it stands for: as it is, and by
// its dots in another.
type usualName struct {
	whole, outer *member
	rest         []string
}

// member is one of the object that is read: the text of its value, nil where there
// is none.
type member struct{ value []byte }

func (r *EntityReader) prepare() {
	r.members = make(map[string]*member)
	of := func(name string) *member {
		if r.members[name] == nil {
			r.members[name] = new(member)
			r.begins[name[0]] |= lengthBit(len(name))
		}
		return r.members[name]
	}
	r.trail = []*member{of("eventSource"), of("eventName")}
	r.host = []*member{of("Hostname"), of("category"), of("product")}
	for _, names := range usualNames() {
		var list []usualName
		for _, name := range names {
			u := usualName{whole: of(name)}
			if path := strings.Split(name, "."); len(path) > 1 {
				u.outer, u.rest = of(path[0]), path[1:]
			}
			list = append(list, u)
		}
		r.usual = append(r.usual, list)
	}
}

// look finds the members that have names of interest in one pass; of equal names
// the first counts.
func (r *EntityReader) look() {
	if r.members == nil {
		r.prepare()
	}
	for _, m := range r.found {
		m.value = nil
	}
	r.found = r.found[:0]
	for i := range r.scan.Members {
		name := r.scan.Members[i].Name
		if len(name) == 0 || r.begins[name[0]]&lengthBit(len(name)) == 0 {
			continue // no name is like it
		}
		if m := r.members[string(name)]; m != nil && m.value == nil {
			m.value = r.scan.Members[i].Value
			r.found = append(r.found, m)
		}
	}
}

func lengthBit(n int) uint64 { return 1 << min(n, 63) }

// first is the first of the names of an entity that holds text or a number.
func (r *EntityReader) first(entity int) string {
	for _, u := range r.usual[entity] {
		if s := r.text(u.whole.value); s != "" {
			return s
		}
		if u.outer != nil && u.outer.value != nil && u.outer.value[0] == '{' {
			if s := r.text(u.outer.value, u.rest...); s != "" {
				return s
			}
		}
	}
	return ""
}

// text is what textOf says of a value, or of one within it.
func (r *EntityReader) text(value []byte, path ...string) string {
	if len(value) == 0 {
		return ""
	}
	switch c := value[0]; {
	case len(path) > 0, c == '"' && bytes.IndexByte(value, '\\') >= 0: // as the parser decodes it
		v, err := r.parser.ParseBytes(value)
		if err != nil {
			return ""
		}
		return text(v, path...)
	case c == '"':
		return cut(string(value[1:len(value)-1]), maxRead)
	case c == '-' || '0' <= c && c <= '9':
		return string(value)
	default:
		return ""
	}
}

// hostEvent reads what the source "agent" takes: what was done is the kind of
// event, or else its category.
func hostEvent(v *fastjson.Value) *detectionv1.Entities {
	return &detectionv1.Entities{
		Principal: first(v, "User", "SubjectUserName", "TargetUserName"),
		SourceIp:  first(v, "SourceIp", "SourceIP", "IpAddress"),
		Action:    first(v, "EventType", "category"),
		Outcome:   text(v, "Outcome"),
		Resources: present(text(v, "Hostname")),
	}
}

func cloudTrail(v *fastjson.Value) *detectionv1.Entities {
	e := &detectionv1.Entities{
		Principal: cloudTrailPrincipal(v),
		SourceIp:  text(v, "sourceIPAddress"),
		Account:   text(v, "recipientAccountId"),
		Region:    text(v, "awsRegion"),
		Action:    text(v, "eventName"),
		Outcome:   "success",
	}
	if e.GetAccount() == "" {
		e.Account = text(v, "userIdentity", "accountId")
	}
	if code := text(v, "errorCode"); code != "" {
		e.Outcome = code
	} else if text(v, "responseElements", "ConsoleLogin") == "Failure" {
		e.Outcome = "failure"
	}
	for _, r := range v.GetArray("resources") {
		if arn := text(r, "ARN"); arn != "" && len(e.GetResources()) < maxListed {
			e.Resources = append(e.Resources, arn)
		}
	}
	return e
}

// cloudTrailPrincipal is the user's name, else role and session, else the end
// of the ARN, else the service that called.
func cloudTrailPrincipal(v *fastjson.Value) string {
	id := v.Get("userIdentity")
	if id == nil {
		return ""
	}
	arn := text(id, "arn")
	switch {
	case text(id, "userName") != "":
		return text(id, "userName")
	case text(id, "sessionContext", "sessionIssuer", "userName") != "":
		name := text(id, "sessionContext", "sessionIssuer", "userName")
		if i := strings.LastIndexByte(arn, '/'); i >= 0 && arn[i+1:] != "" {
			return name + "/" + arn[i+1:]
		}
		return name
	case arn != "":
		return arn[strings.LastIndexAny(arn, ":/")+1:]
	case text(id, "type") == "Root":
		return "root"
	case text(id, "principalId") != "":
		return text(id, "principalId")
	}
	return text(id, "invokedBy")
}

// first is the first of some fields that holds text or a number.
func first(v *fastjson.Value, names ...string) string {
	for _, n := range names {
		if s := text(v, n); s != "" {
			return s
		}
	}
	return ""
}

// maxRead is how much of a field is read, in runes: the longest ARN.
const maxRead = 2048

func text(v *fastjson.Value, path ...string) string {
	return textOf(v.Get(path...))
}

func textOf(f *fastjson.Value) string {
	if f == nil {
		return ""
	}
	switch f.Type() {
	case fastjson.TypeString:
		return cut(strings.ToValidUTF8(string(f.GetStringBytes()), "\uFFFD"), maxRead)
	case fastjson.TypeNumber:
		return f.String()
	default:
		return ""
	}
}

func present(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
