package story

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Where the company lives. The account number, the networks and the names are
// those that are set aside for documentation.
const (
	account = "111122223333"
	region  = "eu-central-1"
)

// record is a CloudTrail record, in the order in which AWS writes its members.
type record struct {
	EventVersion       string         `json:"eventVersion"`
	UserIdentity       identity       `json:"userIdentity"`
	EventTime          string         `json:"eventTime"`
	EventSource        string         `json:"eventSource"`
	EventName          string         `json:"eventName"`
	AWSRegion          string         `json:"awsRegion"`
	SourceIPAddress    string         `json:"sourceIPAddress"`
	UserAgent          string         `json:"userAgent"`
	ErrorCode          string         `json:"errorCode,omitempty"`
	ErrorMessage       string         `json:"errorMessage,omitempty"`
	RequestParameters  map[string]any `json:"requestParameters"`
	ResponseElements   map[string]any `json:"responseElements"`
	AdditionalData     map[string]any `json:"additionalEventData,omitempty"`
	RequestID          string         `json:"requestID,omitempty"`
	EventID            string         `json:"eventID"`
	ReadOnly           bool           `json:"readOnly"`
	Resources          []resource     `json:"resources,omitempty"`
	EventType          string         `json:"eventType"`
	ManagementEvent    bool           `json:"managementEvent"`
	RecipientAccountID string         `json:"recipientAccountId"`
	SharedEventID      string         `json:"sharedEventID,omitempty"`
	EventCategory      string         `json:"eventCategory"`
	TLSDetails         *tlsDetails    `json:"tlsDetails,omitempty"`
}

type identity struct {
	Type           string          `json:"type"`
	PrincipalID    string          `json:"principalId,omitempty"`
	ARN            string          `json:"arn,omitempty"`
	AccountID      string          `json:"accountId,omitempty"`
	AccessKeyID    string          `json:"accessKeyId,omitempty"`
	UserName       string          `json:"userName,omitempty"`
	SessionContext *sessionContext `json:"sessionContext,omitempty"`
	InvokedBy      string          `json:"invokedBy,omitempty"`
}

type sessionContext struct {
	SessionIssuer *issuer           `json:"sessionIssuer,omitempty"`
	Attributes    map[string]string `json:"attributes"`
}

type issuer struct {
	Type        string `json:"type"`
	PrincipalID string `json:"principalId"`
	ARN         string `json:"arn"`
	AccountID   string `json:"accountId"`
	UserName    string `json:"userName"`
}

type resource struct {
	AccountID string `json:"accountId"`
	Type      string `json:"type"`
	ARN       string `json:"ARN"`
}

type tlsDetails struct {
	Version string `json:"tlsVersion"`
	Cipher  string `json:"cipherSuite"`
	Host    string `json:"clientProvidedHostHeader"`
}

// An actor is somebody, or something, that makes calls.
type actor struct {
	name, address, agent string
	// kind is user, role, web (a role taken by a token from elsewhere) or
	// service (of AWS).
	kind string
	// session is the name of a role's session.
	session string
	// mfa is true if the session was opened with a second factor.
	mfa bool
}

// identity is what CloudTrail says of the actor; since is when its session began.
func (a *actor) identity(r *rand.Rand, since time.Time) identity {
	switch a.kind {
	case "service":
		return identity{Type: "AWSService", InvokedBy: a.address}
	case "web":
		return identity{Type: "WebIdentityUser", PrincipalID: a.session, UserName: a.session}
	case "user":
		who := identity{
			Type: "IAMUser", PrincipalID: "AIDA" + stable(a.name), ARN: "arn:aws:iam::" + account + ":user/" + a.name,
			AccountID: account, AccessKeyID: "ASIA" + stable(a.name+since.Format(time.Kitchen)), UserName: a.name,
		}
		who.SessionContext = &sessionContext{Attributes: map[string]string{
			"creationDate": stamp(since), "mfaAuthenticated": fmt.Sprint(a.mfa),
		}}
		return who
	}
	role := "AROA" + stable(a.name)
	return identity{
		Type: "AssumedRole", PrincipalID: role + ":" + a.session,
		ARN:       "arn:aws:sts::" + account + ":assumed-role/" + a.name + "/" + a.session,
		AccountID: account, AccessKeyID: "ASIA" + keyID(r),
		SessionContext: &sessionContext{
			SessionIssuer: &issuer{Type: "Role", PrincipalID: role, ARN: "arn:aws:iam::" + account + ":role/" + a.name, AccountID: account, UserName: a.name},
			Attributes:    map[string]string{"creationDate": stamp(since), "mfaAuthenticated": "false"},
		},
	}
}

// encode fills in what all records have in common.
func (rec *record) encode(r *rand.Rand, at time.Time) Event {
	service, _, _ := strings.Cut(rec.EventSource, ".")
	rec.EventVersion, rec.EventTime, rec.AWSRegion = "1.11", stamp(at), region
	rec.EventID, rec.RecipientAccountID = uuid(r), account
	if rec.EventType == "" {
		rec.EventType, rec.RequestID = "AwsApiCall", uuid(r)
	}
	rec.EventCategory = "Management"
	if !rec.ManagementEvent {
		rec.EventCategory = "Data"
	}
	if rec.UserIdentity.Type != "AWSService" {
		rec.TLSDetails = &tlsDetails{"TLSv1.3", "TLS_AES_128_GCM_SHA256", service + "." + region + ".amazonaws.com"}
	}
	text, err := json.Marshal(rec)
	if err != nil {
		panic(err) // a record holds texts, truths and maps of them: it has no value that JSON lacks
	}
	return Event{At: at, Name: rec.EventName, JSON: text}
}

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339) }

// uuid is a random id in the usual notation.
func uuid(r *rand.Rand) string {
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", r.Uint32(), r.Uint32()&0xffff, r.Uint32()&0xfff, 0x8000|r.Uint32()&0x3fff, r.Uint64()&0xffff_ffff_ffff)
}

const keyLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// keyID is the changing part of an access key's id.
func keyID(r *rand.Rand) string {
	b := make([]byte, 16)
	for i := range b {
		b[i] = keyLetters[r.IntN(len(keyLetters))]
	}
	return string(b)
}

// stable is the changing part of an id that belongs to a name for good.
func stable(name string) string {
	var seed [32]byte
	copy(seed[:], name)
	return keyID(rand.New(rand.NewChaCha8(seed))) //nolint:gosec // an id, not a secret
}
