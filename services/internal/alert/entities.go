package alert

import (
	"strings"

	"github.com/valyala/fastjson"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
)

// Entities reads who, from where, what and how from an event: CloudTrail's
// fields, those of host events, else the names that other JSON uses for them,
// ECS first. A field of
// another type than expected is left out; what is no JSON object gives nothing.
func Entities(raw []byte) *detectionv1.Entities { return new(EntityReader).Read(raw) }

// EntityReader reads entities of one event after the other. It is not safe for
// concurrent use.
type EntityReader struct {
	parser  fastjson.Parser
	members map[string]*member // of the object that is read, by the names that may be asked for
	found   []*member          // those that are there
	begins  [256]uint64        // by the first byte of a name, a bit for its length
	usual   [][]usualName      // of each entity
}

// Read is Entities.
func (r *EntityReader) Read(raw []byte) *detectionv1.Entities {
	v, err := r.parser.ParseBytes(raw)
	if err != nil || v.Type() != fastjson.TypeObject {
		return &detectionv1.Entities{}
	}
	if v.Exists("eventSource") && v.Exists("eventName") {
		return cloudTrail(v)
	}
	if v.Exists("Hostname") && v.Exists("category") && v.Exists("product") {
		return hostEvent(v)
	}
	r.look(v)
	return &detectionv1.Entities{
		Principal: r.first(0), SourceIp: r.first(1), Account: r.first(2), Region: r.first(3),
		Action: r.first(4), Outcome: r.first(5), Resources: present(r.first(6)),
	}
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

// member is one of the object that is read; nil where it has none.
type member struct{ value *fastjson.Value }

func (r *EntityReader) prepare() {
	r.members = make(map[string]*member)
	of := func(name string) *member {
		if r.members[name] == nil {
			r.members[name] = new(member)
			r.begins[name[0]] |= lengthBit(len(name))
		}
		return r.members[name]
	}
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

// look finds the members that have usual names in one pass; of equal names the
// first counts.
func (r *EntityReader) look(v *fastjson.Value) {
	if r.members == nil {
		r.prepare()
	}
	for _, m := range r.found {
		m.value = nil
	}
	r.found = r.found[:0]
	v.GetObject().Visit(func(key []byte, v *fastjson.Value) {
		if len(key) == 0 || r.begins[key[0]]&lengthBit(len(key)) == 0 {
			return // no name is like it
		}
		if m := r.members[string(key)]; m != nil && m.value == nil {
			m.value = v
			r.found = append(r.found, m)
		}
	})
}

func lengthBit(n int) uint64 { return 1 << min(n, 63) }

// first is the first of the names of an entity that holds text or a number.
func (r *EntityReader) first(entity int) string {
	for _, u := range r.usual[entity] {
		if s := textOf(u.whole.value); s != "" {
			return s
		}
		if u.outer != nil && u.outer.value != nil {
			if s := text(u.outer.value, u.rest...); s != "" {
				return s
			}
		}
	}
	return ""
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
