package control_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/control/controltest"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
)

// fullLog takes so many appends.
type fullLog struct {
	control.Log
	room int
}

func (l *fullLog) Append(ctx context.Context, records ...control.Record) error {
	if l.room--; l.room < 0 {
		return errors.New("full")
	}
	return l.Log.Append(ctx, records...)
}

// written is a control topic with something of everything, and its backup.
func written(t *testing.T) (first []byte, text string) {
	t.Helper()
	addr := embeddedtest.Start(t).Addr()
	v := controltest.Open(t, addr)
	_, record := newKey(t, control.NewKey{Tenant: "acme"})
	require.NoError(t, v.Put(t.Context(), key(record), subscription("acme", "one", "r1"), subscription("acme", "two", "r1"),
		&controlv1.Control{Object: &controlv1.Control_TenantKey{TenantKey: &controlv1.TenantKey{Tenant: "acme", Version: 7, RootId: "abc"}}}))
	require.NoError(t, v.Put(t.Context(), subscription("acme", "one", "r2")))
	require.NoError(t, v.Delete(t.Context(), control.SubscriptionKey("acme", "two")))
	first, err := v.PushRules(t.Context(), "", docs("a: 1", strings.Repeat("b", 400_000), strings.Repeat("c", 400_000)))
	require.NoError(t, err)
	_, err = v.PushRules(t.Context(), "", docs("c: 1"))
	require.NoError(t, err)
	_, err = v.PushRules(t.Context(), "", docs("a: 1", strings.Repeat("b", 400_000), strings.Repeat("c", 400_000))) // in force again, so the last
	require.NoError(t, err)
	records, err := control.Snapshot(t.Context(), controltest.NewLog(t, addr))
	require.NoError(t, err)
	require.Equal(t, []string{"abc"}, control.RootIDs(records))
	var out bytes.Buffer
	require.NoError(t, control.WriteBackup(&out, records))
	return first, out.String()
}

func TestRestoredControlIsTheSame(t *testing.T) {
	first, text := written(t)
	records, err := control.ReadBackup(strings.NewReader(text))
	require.NoError(t, err)
	addr := embeddedtest.Start(t).Addr()
	log := controltest.NewLog(t, addr)
	quiet := func(int, int) {}
	n, err := control.Restore(t.Context(), &fullLog{log, 1}, records, quiet)
	require.ErrorContains(t, err, "full")
	require.Positive(t, n)
	told := 0
	more, err := control.Restore(t.Context(), log, records, func(written, of int) { told = written; require.LessOrEqual(t, written, of) })
	require.NoError(t, err, "what was interrupted goes on")
	require.Equal(t, len(records), n+more)
	require.Equal(t, more, told)
	again, err := control.Restore(t.Context(), log, records, quiet)
	require.NoError(t, err)
	require.Zero(t, again)

	v := controltest.Open(t, addr)
	all, _ := v.Manifests("acme")
	require.Equal(t, first, all, "the manifest in force is the last one")
	one, ok := v.Subscription("acme", "one")
	require.True(t, ok)
	require.Equal(t, "r2", one.GetRevision())
	require.Len(t, v.Subscriptions("acme"), 1)
	require.Len(t, v.Keys("acme"), 1)
	require.Len(t, v.TenantKeys(), 1)

	require.NoError(t, v.Put(t.Context(), subscription("acme", "one", "r3")))
	_, err = control.Restore(t.Context(), log, records, quiet)
	require.ErrorIs(t, err, control.ErrNotEmpty)
	require.NoError(t, v.Put(t.Context(), subscription("acme", "three", "r1")))
	_, err = control.Restore(t.Context(), log, records, quiet)
	require.ErrorIs(t, err, control.ErrNotEmpty)
}

func TestBackupsThatAreNotWholeAreRefused(t *testing.T) {
	_, text := written(t)
	lines := strings.SplitAfter(text, "\n")
	tests := map[string]string{
		"empty":            "",
		"something else":   "{}\n" + text,
		"a later version":  strings.Replace(text, `"version":1`, `"version":2`, 1),
		"cut at a line":    strings.Join(lines[:3], ""),
		"cut in a line":    text[:len(text)-20],
		"without a line":   lines[0] + strings.Join(lines[2:], ""),
		"lines swapped":    lines[0] + lines[2] + lines[1] + strings.Join(lines[3:], ""),
		"more behind it":   text + lines[1],
		"another key":      strings.Replace(text, "subscription/acme", "subscription/evil", 1),
		"a line without":   lines[0] + "{}\n" + strings.Join(lines[1:], ""),
		"a line too long":  lines[0] + `{"key":"` + strings.Repeat("x", 3<<20),
		"no JSON":          lines[0] + "x\n",
		"a foot by itself": lines[len(lines)-2],
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := control.ReadBackup(strings.NewReader(text))
			require.ErrorIs(t, err, control.ErrBackup)
		})
	}
}

func FuzzReadBackup(f *testing.F) {
	var out bytes.Buffer
	require.NoError(f, control.WriteBackup(&out, nil))
	f.Add(out.String())
	f.Add("{\"format\":\"stormbell-control\",\"version\":1}\n{\"key\":\"x\"}\n")
	f.Fuzz(func(t *testing.T, text string) {
		records, err := control.ReadBackup(strings.NewReader(text))
		if err != nil {
			require.ErrorIs(t, err, control.ErrBackup)
			return
		}
		var out bytes.Buffer
		require.NoError(t, control.WriteBackup(&out, records))
		again, err := control.ReadBackup(&out)
		require.NoError(t, err)
		require.Equal(t, records, again)
	})
}
