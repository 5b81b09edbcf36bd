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
type EntityReader struct{ parser fastjson.Parser }

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
	return &detectionv1.Entities{
		Principal: first(v, "user.name", "user.id", "userName", "username", "user", "principal", "actor", "User"),
		SourceIp:  first(v, "source.ip", "sourceIPAddress", "src_ip", "client_ip", "remote_ip", "ip", "SourceIp"),
		Account:   first(v, "cloud.account.id", "account_id", "accountId", "account"),
		Region:    first(v, "cloud.region", "region", "awsRegion"),
		Action:    first(v, "event.action", "action", "eventName", "operation", "EventID"),
		Outcome:   first(v, "event.outcome", "outcome", "result", "status"),
		Resources: present(first(v, "host.name", "host.hostname", "hostname", "host", "Computer")),
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

// first is the first of some fields that holds text or a number; a name is
// looked up as it stands, then by its dots.
func first(v *fastjson.Value, names ...string) string {
	for _, n := range names {
		if s := text(v, n); s != "" {
			return s
		}
		if strings.Contains(n, ".") {
			if s := text(v, strings.Split(n, ".")...); s != "" {
				return s
			}
		}
	}
	return ""
}

// maxRead is how much of a field is read, in runes: the longest ARN.
const maxRead = 2048

func text(v *fastjson.Value, path ...string) string {
	f := v.Get(path...)
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
