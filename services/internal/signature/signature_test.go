package signature_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/signature"
)

// The published test vector.
const (
	vectorSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID     = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTime   = 1614265330
	vectorBody   = `{"test": 2432232314}`
	vectorSigned = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func key(t testing.TB, secret string) signature.Key {
	t.Helper()
	k, err := signature.ParseSecret(secret)
	require.NoError(t, err)
	return k
}

func TestVector(t *testing.T) {
	at := time.Unix(vectorTime, 0)
	require.Equal(t, vectorSigned, signature.Sign(vectorID, at, []byte(vectorBody), key(t, vectorSecret), nil))
	require.NoError(t, signature.Verify(key(t, vectorSecret), vectorID, fmt.Sprint(vectorTime), vectorSigned, []byte(vectorBody), at))
}

// What we sign, the reference library verifies, and the other way round.
func TestAgainstReference(t *testing.T) {
	for range 50 {
		secret, previous := signature.NewSecret(), signature.NewSecret()
		now := time.Now()
		body := []byte(`{"a":"` + strings.Repeat("é<&>", 100) + `"}`)
		header := http.Header{}
		header.Set(signature.HeaderID, "msg_1")
		header.Set(signature.HeaderTimestamp, fmt.Sprint(now.Unix()))
		header.Set(signature.HeaderSignature, signature.Sign("msg_1", now, body, key(t, secret), key(t, previous)))
		for _, s := range []string{secret, previous} {
			reference, err := webhooks.NewWebhook(s)
			require.NoError(t, err)
			require.NoError(t, reference.Verify(body, header))
			theirs, err := reference.Sign("msg_1", now, body)
			require.NoError(t, err)
			require.NoError(t, signature.Verify(key(t, s), "msg_1", fmt.Sprint(now.Unix()), theirs, body, now))
		}
		stranger, err := webhooks.NewWebhook(signature.NewSecret())
		require.NoError(t, err)
		require.Error(t, stranger.Verify(body, header))
	}
}

// A receiver that reads only the last entry must find the current secret's.
func TestCurrentStandsLast(t *testing.T) {
	current, previous := key(t, signature.NewSecret()), key(t, signature.NewSecret())
	at := time.Unix(vectorTime, 0)
	both := strings.Fields(signature.Sign("m", at, nil, current, previous))
	require.Equal(t, []string{signature.Sign("m", at, nil, previous, nil), signature.Sign("m", at, nil, current, nil)}, both)
}

func TestParseSecret(t *testing.T) {
	encode := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	cases := []struct{ name, secret, want string }{
		{"least", encode(24), ""},
		{"padded", encode(25), ""},
		{"most", encode(64), ""},
		{"short", encode(23), "signing secret has 23 bytes: use 24 to 64"},
		{"long", encode(65), "signing secret has 65 bytes: use 24 to 64"},
		{"bare", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "signing secret does not begin with whsec_"},
		{"with version", "v1," + vectorSecret, `signing secret begins with "v1,": leave that out, a secret begins with whsec_`},
		{"not base64", "whsec_!!!!", "signing secret is not base64 behind whsec_, padding included"},
		{"unpadded", strings.TrimRight(encode(25), "="), "signing secret is not base64 behind whsec_, padding included"},
		{"empty", "", "signing secret does not begin with whsec_"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			k, err := signature.ParseSecret(tc.secret)
			if tc.want != "" {
				require.EqualError(t, err, tc.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "[redacted] [redacted]", fmt.Sprintf("%v %s", k, k))
		})
	}
	require.Len(t, key(t, signature.NewSecret()), 24)
	other := signature.NewSecret()
	require.NotEqual(t, other, signature.NewSecret())
}

func TestVerifyRefuses(t *testing.T) {
	at := time.Unix(vectorTime, 0)
	k, stamp := key(t, vectorSecret), fmt.Sprint(vectorTime)
	cases := []struct {
		name, id, stamp, signed, body string
		now                           time.Time
		want                          string
	}{
		{"good", vectorID, stamp, vectorSigned, vectorBody, at, ""},
		{"among others", vectorID, stamp, "v1a,AAAA v1,AAAA " + vectorSigned + " v2,x", vectorBody, at, ""},
		{"at the edge", vectorID, stamp, vectorSigned, vectorBody, at.Add(signature.Tolerance), ""},
		{"no id", "", stamp, vectorSigned, vectorBody, at, "webhook headers are missing"},
		{"no time", vectorID, "", vectorSigned, vectorBody, at, "webhook headers are missing"},
		{"no signature", vectorID, stamp, "", vectorBody, at, "webhook headers are missing"},
		{"no number", vectorID, "now", vectorSigned, vectorBody, at, "webhook-timestamp is not in Unix seconds"},
		{"replayed", vectorID, stamp, vectorSigned, vectorBody, at.Add(signature.Tolerance + time.Second), "more than five minutes"},
		{"from the future", vectorID, stamp, vectorSigned, vectorBody, at.Add(-signature.Tolerance - time.Second), "more than five minutes"},
		{"other id", vectorID + "x", stamp, vectorSigned, vectorBody, at, "no signature is this secret's"},
		{"other time", vectorID, fmt.Sprint(vectorTime + 1), vectorSigned, vectorBody, at, "no signature is this secret's"},
		{"time spelt otherwise", vectorID, "0" + stamp, vectorSigned, vectorBody, at, "no signature is this secret's"},
		{"other body", vectorID, stamp, vectorSigned, vectorBody + " ", at, "no signature is this secret's"},
		{"too many entries", vectorID, stamp, strings.Repeat("v1,AAAA ", 16) + vectorSigned, vectorBody, at, "no signature is this secret's"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			err := signature.Verify(k, tc.id, tc.stamp, tc.signed, []byte(tc.body), tc.now)
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
		})
	}
}

// Every byte of what is signed counts.
func TestFlippedBytes(t *testing.T) {
	at := time.Unix(vectorTime, 0)
	k := key(t, vectorSecret)
	flip := func(s string, i int) string {
		b := []byte(s)
		b[i] ^= 1
		return string(b)
	}
	for i := range vectorBody {
		require.Error(t, signature.Verify(k, vectorID, fmt.Sprint(vectorTime), vectorSigned, []byte(flip(vectorBody, i)), at))
	}
	for i := range vectorSigned {
		require.Error(t, signature.Verify(k, vectorID, fmt.Sprint(vectorTime), flip(vectorSigned, i), []byte(vectorBody), at))
	}
	for i := range vectorID {
		require.Error(t, signature.Verify(k, flip(vectorID, i), fmt.Sprint(vectorTime), vectorSigned, []byte(vectorBody), at))
	}
}

// Whatever a stranger sends, only the one message that was ever signed passes.
func FuzzVerify(f *testing.F) {
	f.Add(vectorID, fmt.Sprint(vectorTime), vectorSigned, []byte(vectorBody))
	f.Add("a.b", "+1614265330", "v1, v1,= \t v1a,x", []byte(nil))
	f.Add("", "", "", []byte{0xff})
	k := key(f, vectorSecret)
	f.Fuzz(func(t *testing.T, id, stamp, signed string, body []byte) {
		if signature.Verify(k, id, stamp, signed, body, time.Unix(vectorTime, 0)) != nil {
			return
		}
		require.Equal(t, vectorID+"."+fmt.Sprint(vectorTime)+"."+vectorBody, id+"."+stamp+"."+string(body))
		require.Contains(t, strings.Fields(signed), vectorSigned)
	})
}
