package ledger_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/stormbell/stormbell/tools/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClientSendsUntilAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	var n atomic.Int32
	keys := map[string]bool{}
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		before, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(before), `"intent":2`) || string(body) != "body" || r.Header.Get("Authorization") != "Bearer key" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		keys[r.Header.Get("Idempotency-Key")] = true
		switch n.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			panic(http.ErrAbortHandler)
		case 3:
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, `{"accepted":2,"ids":["x","y"]}`)
		}
	}))
	defer gateway.Close()
	c, err := ledger.NewClient(path, "key", gateway.URL)
	require.NoError(t, err)
	ids, err := c.Post(t.Context(), ledger.Batch{ContentType: "application/x-ndjson", Body: []byte("body"), Events: 2})
	require.NoError(t, err)
	require.Equal(t, []string{"x", "y"}, ids)
	require.Equal(t, []string{"x", "y"}, c.Accepted())
	require.Equal(t, map[int]int{0: 1, 202: 1, 429: 1, 503: 1}, c.Statuses())
	require.Len(t, keys, 1, "a retry is the same request")
	require.NoError(t, c.Close())
	_, err = ledger.NewClient(path, "key", gateway.URL)
	require.ErrorIs(t, err, os.ErrExist, "a ledger is never overwritten")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 5, strings.Count(string(text), "\n"))
	require.NotContains(t, string(text), "key")
}

func TestClientGivesUpWhatWillNotChange(t *testing.T) {
	for status, answer := range map[int]string{401: `{"detail":"unknown key"}`, 400: `{}`, 202: `{"accepted":1,"ids":["x"]}`} {
		gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
		}))
		c, err := ledger.NewClient(filepath.Join(t.TempDir(), "ledger"), "key", gateway.URL)
		require.NoError(t, err)
		_, err = c.Post(t.Context(), ledger.Batch{Events: 2})
		require.ErrorContains(t, err, fmt.Sprint(status))
		require.NoError(t, c.Close())
		gateway.Close()
	}
}

func TestClientStopsWithItsContext(t *testing.T) {
	c, err := ledger.NewClient(filepath.Join(t.TempDir(), "ledger"), "key", "http://127.0.0.1:1")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Post(ctx, ledger.Batch{Events: 2})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, c.Close())
}

// deliver returns the status of the answer.
func deliver(t *testing.T, r *ledger.Receiver, secret, webhookID, alertID, more string) int {
	t.Helper()
	body, err := json.Marshal(map[string]any{"type": "stormbell.alert.v1", "data": map[string]string{"id": alertID, "more": more}})
	require.NoError(t, err)
	webhook, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	now := time.Now()
	signed, err := webhook.Sign(webhookID, now, body)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL("/hook"), bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("webhook-id", webhookID)
	req.Header.Set("webhook-timestamp", fmt.Sprint(now.Unix()))
	req.Header.Set("webhook-signature", signed)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

func receiver(t *testing.T, how ledger.Behave) *ledger.Receiver {
	t.Helper()
	r, err := ledger.NewReceiver(t.Context(), ledger.NewSecret(), how)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func TestReceiverJudges(t *testing.T) {
	tests := []struct {
		name    string
		deliver func(t *testing.T, r *ledger.Receiver)
		want    []string
	}{
		{"all is well", func(t *testing.T, r *ledger.Receiver) {
			t.Helper()
			deliver(t, r, r.Secret(), "msg_1", "a1", "")
			deliver(t, r, r.Secret(), "msg_1", "a1", "")
			deliver(t, r, r.Secret(), "msg_2", "a2", "")
		}, []string{}},
		{"one is lost", func(t *testing.T, r *ledger.Receiver) {
			t.Helper()
			deliver(t, r, r.Secret(), "msg_1", "a1", "")
		}, []string{"lost: alert a2"}},
		{"one is too much", func(t *testing.T, r *ledger.Receiver) {
			t.Helper()
			for _, id := range []string{"1", "2", "3"} {
				deliver(t, r, r.Secret(), "msg_"+id, "a"+id, "")
			}
		}, []string{"spurious: alert a3"}},
		{"two ids", func(t *testing.T, r *ledger.Receiver) {
			t.Helper()
			deliver(t, r, r.Secret(), "msg_1", "a1", "")
			deliver(t, r, r.Secret(), "msg_3", "a1", "")
			deliver(t, r, r.Secret(), "msg_2", "a2", "")
		}, []string{"two webhook-ids: alert a1"}},
		{"two bodies", func(t *testing.T, r *ledger.Receiver) {
			t.Helper()
			deliver(t, r, r.Secret(), "msg_1", "a1", "")
			deliver(t, r, r.Secret(), "msg_1", "a1", "other")
			deliver(t, r, r.Secret(), "msg_2", "a2", "")
		}, []string{"two bodies: msg_1"}},
		{"another's signature", func(t *testing.T, r *ledger.Receiver) {
			t.Helper()
			require.Equal(t, http.StatusUnauthorized, deliver(t, r, ledger.NewSecret(), "msg_1", "a1", ""))
			deliver(t, r, r.Secret(), "msg_2", "a2", "")
		}, []string{"lost: alert a1", "unsigned: verify: unable to verify payload, err: no matching signature found"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := receiver(t, ledger.Behave{})
			tt.deliver(t, r)
			require.Equal(t, tt.want, ledger.Judge(r.Deliveries(), []string{"a2", "a1"}))
		})
	}
}

func TestReceiverRefusesAtFirst(t *testing.T) {
	r := receiver(t, ledger.Behave{Answer: func(n int, _ *ledger.Delivery) int {
		if n == 1 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	}})
	require.Equal(t, http.StatusInternalServerError, deliver(t, r, r.Secret(), "msg_1", "a1", ""))
	require.Equal(t, []string{"lost: alert a1"}, ledger.Judge(r.Deliveries(), []string{"a1"}))
	require.Equal(t, http.StatusOK, deliver(t, r, r.Secret(), "msg_1", "a1", ""))
	require.NoError(t, r.Await(t.Context(), func(d []ledger.Delivery) bool { return len(d) == 2 }))
	require.Empty(t, ledger.Judge(r.Deliveries(), []string{"a1"}))
}

func TestReceiverHangs(t *testing.T) {
	r := receiver(t, ledger.Behave{Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL("/"), strings.NewReader("{}"))
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	done := make(chan error, 1)
	go func() {
		resp, err := client.Do(req)
		if err == nil {
			err = resp.Body.Close()
		}
		done <- err
	}()
	require.NoError(t, r.Await(t.Context(), func(d []ledger.Delivery) bool { return len(d) == 1 }))
	require.Empty(t, done, "it was answered")
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}
