// Package story tells one working day of a small company, and how it ends: what
// its AWS account logged about its people, its deployments and its
// applications; then a stranger who signs in with the password of somebody on
// leave.
//
// It is a pure function of the time at which the day ends: the same people do
// the same things at the same distance from it. Nobody in it exists, and no
// record was taken from anywhere.
package story

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// Benign is how many events the day has without the stranger.
	Benign = 2000
	// Secrets is how many secrets the stranger reads.
	Secrets = 60
	// Stranger is where the stranger comes from.
	Stranger = "203.0.113.77"
	// Victim is whose password it was.
	Victim = "dana"
	// Length is how long the day is.
	Length = 9 * time.Hour

	seed = 20260302
	// slot is the piece of the clock within which all secrets are read. Windows
	// are counted in buckets that divide the hour: none has its edge within.
	slot = 5 * time.Minute
	// rest is how long before the day's end the trail is stopped, at least.
	rest = 30 * time.Second
)

// An Event is one record as it is posted.
type Event struct {
	At   time.Time
	Name string
	JSON []byte
}

// A Day is all that happened, each part in the order of time.
type Day struct {
	// Routine are the CloudTrail records of everybody who belongs there.
	Routine []Event
	// Attack are those of the stranger: ConsoleLogin without a second factor,
	// CreateAccessKey, GetSecretValue many times, StopLogging.
	Attack []Event
	// Host is what a server says of the same stranger, for the source "agent".
	Host Event
}

// Ending tells the day that ends at a time, or some minutes before it.
func Ending(now time.Time) *Day {
	edge := now.Add(-rest).Truncate(slot)
	ids := rand.New(rand.NewPCG(seed, uint64(edge.Unix()))) //nolint:gosec // ids, not secrets; the time is after 1970
	return &Day{Routine: routine(edge.Add(-Length), ids), Attack: attack(edge, ids), Host: host(edge.Add(20 * time.Second))}
}

// attack ends shortly after edge.
func attack(edge time.Time, ids *rand.Rand) []Event {
	who := &actor{name: Victim, kind: "user", address: Stranger, agent: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}
	in := edge.Add(-slot - 80*time.Second)
	day := []Event{signIn(who, false, "Success").encode(ids, in)}

	key := "AKIA" + keyID(ids)
	made := who.call(ids, "iam", "CreateAccessKey", in)
	made.ManagementEvent = true
	made.RequestParameters = map[string]any{"userName": Victim}
	made.ResponseElements = map[string]any{"accessKey": map[string]any{
		"accessKeyId": key, "status": "Active", "userName": Victim, "createDate": in.Add(45 * time.Second).UTC().Format("Jan 2, 2006 3:04:05 PM"),
	}}
	day = append(day, made.encode(ids, in.Add(45*time.Second)))

	who.agent = "aws-cli/2.17.9 md/awscrt#0.20.11 ua/2.0 os/linux#6.8.0 lang/python#3.12.3 md/installer#exe"
	long := func(rec *record) *record { // the key of one's own has no session
		rec.UserIdentity.AccessKeyID, rec.UserIdentity.SessionContext = key, nil
		rec.ManagementEvent = true
		return rec
	}
	for i := range Secrets {
		read := long(who.call(ids, "secretsmanager", "GetSecretValue", in))
		read.ReadOnly = true
		read.RequestParameters = map[string]any{"secretId": secret(i)}
		day = append(day, read.encode(ids, edge.Add(-slot+time.Duration(2000+i*4900)*time.Millisecond).Truncate(time.Second)))
	}
	stop := long(who.call(ids, "cloudtrail", "StopLogging", in))
	stop.RequestParameters = map[string]any{"name": "arn:aws:cloudtrail:" + region + ":" + account + ":trail/management-events"}
	return append(day, stop.encode(ids, edge.Add(5*time.Second)))
}

// secret is the name of the nth secret that the company keeps.
func secret(n int) string {
	rooms := []string{"shop", "billing", "reports", "newsletter", "warehouse", "support"}
	things := []string{"database", "mail", "payment-provider", "search", "session-key", "carrier", "webhook", "storage", "tax-service", "analytics"}
	return "prod/" + rooms[n%len(rooms)] + "/" + things[n/len(rooms)%len(things)]
}

// host is what the agent on a server says about a login.
func host(at time.Time) Event {
	text, err := json.Marshal(struct {
		Time     string `json:"time"`
		Product  string `json:"product"`
		Category string `json:"category"`
		Hostname string
		User     string
		Type     string `json:"EventType"`
		Outcome  string
		SourceIP string `json:"SourceIp"`
	}{stamp(at), "linux", "authentication", "bastion-1", Victim, "login", "success", Stranger})
	if err != nil {
		panic(err) // texts only
	}
	return Event{At: at, Name: "login on bastion-1", JSON: text}
}

// signIn is a login to the console.
func signIn(who *actor, mfa bool, result string) *record {
	used := "No"
	if mfa {
		used = "Yes"
	}
	rec := &record{
		UserIdentity: identity{
			Type: "IAMUser", PrincipalID: "AIDA" + stable(who.name), ARN: "arn:aws:iam::" + account + ":user/" + who.name, AccountID: account, UserName: who.name,
		},
		EventSource: "signin.amazonaws.com", EventName: "ConsoleLogin", EventType: "AwsConsoleSignIn", ManagementEvent: true,
		SourceIPAddress: who.address, UserAgent: who.agent,
		ResponseElements: map[string]any{"ConsoleLogin": result},
		AdditionalData:   map[string]any{"LoginTo": "https://console.aws.amazon.com/console/home?region=" + region, "MobileVersion": "No", "MFAUsed": used},
	}
	if mfa {
		rec.AdditionalData["MFAIdentifier"] = "arn:aws:iam::" + account + ":mfa/" + who.name
	}
	if result != "Success" {
		rec.ErrorMessage = "Failed authentication"
	}
	return rec
}

// call is a call without its own details.
func (a *actor) call(r *rand.Rand, service, name string, since time.Time) *record {
	return &record{
		UserIdentity: a.identity(r, since), EventSource: service + ".amazonaws.com", EventName: name,
		SourceIPAddress: a.address, UserAgent: a.agent,
	}
}

// inOrder sorts by time; equal times keep the order in which they were told.
func inOrder(events []Event) []Event {
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	return events
}

// File makes of CloudTrail records what AWS delivers: a compressed log file.
func File(events []Event) ([]byte, error) {
	records := make([]json.RawMessage, len(events))
	for i := range events {
		records[i] = events[i].JSON
	}
	text, err := json.Marshal(map[string]any{"Records": records})
	if err != nil {
		return nil, fmt.Errorf("build CloudTrail file: %w", err)
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	_, err = zip.Write(text)
	if err = errors.Join(err, zip.Close()); err != nil {
		return nil, fmt.Errorf("compress CloudTrail file: %w", err)
	}
	return packed.Bytes(), nil
}
