package correlator

import (
	"encoding/binary"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
)

// filled sets every field that is not set to something that is not zero, so
// that a field which an encoding forgets is found.
func filled(v reflect.Value, next *int64) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range v.Fields() {
			filled(f, next)
		}
	case reflect.Array:
		for i := range v.Len() {
			filled(v.Index(i), next)
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		*next++
		v.SetString(string(rune('a' + *next)))
	case reflect.Uint8, reflect.Uint32:
		*next++
		v.SetUint(uint64(*next))
	case reflect.Int, reflect.Int64:
		*next++
		v.SetInt(*next)
	default:
		panic("add a case for " + v.Kind().String())
	}
}

// TestIdentityHoldsTheWholeSpec writes and reads every field that a spec has.
func TestIdentityHoldsTheWholeSpec(t *testing.T) {
	var want, got window.Spec
	next := int64(0)
	filled(reflect.ValueOf(&want).Elem(), &next)
	d := &detectionv1.Detection{Tenant: "t", CorrelationId: "c", CorrelationRevision: "r", Group: []string{"g", ""}}
	b := identity(&want, d)
	require.EqualValues(t, identityVersion, b[0])
	var name groupName
	require.NoError(t, parseTagged(b[1:], &got, &name))
	require.Equal(t, want, got)
	require.Equal(t, groupName{"t", "c", "r", []string{"g", ""}}, name)
	require.ErrorContains(t, parseTagged(appendText(b[1:], 29, "new"), &got, &name), "field 29 of its identity is not known")
}

// TestIdentityOfVersion1IsRead reads what an older correlator has stored.
func TestIdentityOfVersion1IsRead(t *testing.T) {
	want := window.Spec{Kind: window.TemporalOrdered, Timespan: 60_000, Lateness: 7, Min: 2, Rules: 3, StrictTies: true, Suppress: 120_000}
	b := []byte{1}
	for _, v := range []int64{int64(want.Kind), want.Timespan, want.Lateness, int64(want.Min), int64(want.Rules), 1, want.Suppress} {
		b = binary.AppendVarint(b, v)
	}
	for _, v := range []string{"t", "c", "r", "g", ""} {
		b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
	}
	got, name, err := parseIdentity(b)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, groupName{"t", "c", "r", []string{"g", ""}}, name)
}
