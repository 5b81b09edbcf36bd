package history_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/history"
)

// BenchmarkHistory looks back into 100,000 alerts of about 2.3 kB on the embedded
// broker, compressed as by default.
func BenchmarkHistory(b *testing.B) {
	const alerts = 100_000
	w := newCompressed(b)
	var oldest, newest string
	for n := 0; n < alerts; n += 500 {
		msgs := make([]bus.Message, 0, 500)
		for range 500 {
			a := w.alert(func(a *alertv1.Alert) { a.Events[0].Event = rawEvent() })
			if newest = a.GetId(); oldest == "" {
				oldest = newest
			}
			msgs = append(msgs, message(b, "stormbell.alert.v1.Alert", "acme", a.GetId(), a))
		}
		require.NoError(b, w.bus.ProduceKeyed(b.Context(), bus.TopicAlerts, msgs))
	}
	list := func(b *testing.B, f history.Filter, limit int) {
		b.Helper()
		h := w.history()
		for b.Loop() {
			for cursor := ""; ; {
				page, err := h.Alerts(b.Context(), "acme", f, limit, cursor)
				require.NoError(b, err)
				if cursor = page.Next; cursor == "" || len(page.Items) == limit {
					break
				}
			}
		}
	}
	b.Run("first page of 50", func(b *testing.B) { list(b, history.Filter{}, 50) })
	b.Run("first page of 1000", func(b *testing.B) { list(b, history.Filter{}, 1000) })
	b.Run("filter that none passes, all pages", func(b *testing.B) { list(b, history.Filter{Title: "nothing is called so"}, 50) })
	find := func(b *testing.B, h *history.History, id string) {
		b.Helper()
		err := history.ErrUnfinished
		for err == history.ErrUnfinished { //nolint:errorlint // as it is
			_, _, err = h.Alert(b.Context(), "acme", id)
		}
		require.NoError(b, err)
	}
	b.Run("newest by id, first", func(b *testing.B) {
		for b.Loop() {
			find(b, w.history(), newest)
		}
	})
	b.Run("oldest by id, first", func(b *testing.B) {
		for b.Loop() {
			find(b, w.history(), oldest)
		}
	})
	b.Run("oldest by id, again", func(b *testing.B) {
		h := w.history()
		find(b, h, oldest)
		for b.Loop() {
			find(b, h, oldest)
		}
	})
}

// rawEvent compresses about as well as events do.
func rawEvent() []byte {
	b := []byte(`{"eventName":"GetSecretValue"`)
	for n := range 30 {
		b = fmt.Appendf(b, `,"requestParameters%d":"arn:aws:%x"`, n, rand.Uint64())
	}
	return append(b, '}')
}
