package eventtime_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/stormbell/stormbell/services/formats/eventtime"
	"github.com/stormbell/stormbell/services/formats/jsonscan"
)

func TestValue(t *testing.T) {
	const none = -1
	for value, want := range map[string]int64{
		`"2023-07-10T12:11:15Z"`:             1688991075000,
		`"2023-07-10t12:11:15.9999z"`:        1688991075999,
		`"2023-07-10 14:11:15.5+02:00"`:      1688991075500,
		`"2023-07-10T05:41:15-06:30"`:        1688991075000,
		`"2016-12-31T23:59:60Z"`:             1483228800000,
		`"0000-01-01T00:00:00Z"`:             -62167219200000,
		`"9999-12-31T23:59:59Z"`:             253402300799000,
		`"1969-12-31T23:59:59.999Z"`:         -1 + 0, // not "none": see below
		`1688991075`:                         1688991075000,
		`1688991075.25`:                      1688991075250,
		`"1688991075"`:                       1688991075000,
		`1688991075123`:                      1688991075123,
		`1688991075123456`:                   1688991075123,
		`1688991075123456789`:                1688991075123,
		`1.688991075e9`:                      1688991075000,
		`1688991075123456789.5`:              1688991075123,
		`100000000`:                          100000000000,
		`99999999`:                           none,
		`0`:                                  none,
		`-1688991075`:                        none,
		`1e300`:                              none,
		`"1688991075."`:                      none,
		`"2023-02-29T00:00:00Z"`:             none,
		`"2023-13-01T00:00:00Z"`:             none,
		`"2023-07-10T24:00:00Z"`:             none,
		`"2023-07-10T12:11:15"`:              none,
		`"2023-07-10T12:11:15.Z"`:            none,
		`"2023-07-10T12:11:15+0200"`:         none,
		`"2023-07-10"`:                       none,
		`"yesterday"`:                        none,
		`""`:                                 none,
		`true`:                               none,
		`null`:                               none,
		`{}`:                                 none,
		`99999999999999999999999999999999`:   none,
		`"00000000000000000000000000000001"`: none,
	} {
		ms, ok := eventtime.Value([]byte(value))
		if value == `"1969-12-31T23:59:59.999Z"` {
			require.True(t, ok)
			require.EqualValues(t, -1, ms)
			continue
		}
		require.Equal(t, want != none, ok, value)
		if ok {
			require.Equal(t, want, ms, value)
		}
	}
}

func TestFind(t *testing.T) {
	for text, want := range map[string]int64{
		`{"time":1688991071,"eventTime":1688991072}`:              1688991072000,
		`{"time":1688991071,"eventTime":"never"}`:                 1688991071000,
		`{"time":1688991071,"time":1688991073}`:                   1688991073000,
		`{"event":{"created":1688991074}}`:                        1688991074000,
		`{"event":{"created":1},"event":{"created":1688991074}}`:  1688991074000,
		`{"event.created":1688991075}`:                            1688991075000,
		`{"event":"created","@timestamp":"2023-07-10T12:11:16Z"}`: 1688991076000,
		`{"event":["created"]}`:                                   0,
		`{"event.createdx":1688991075,"eventcreated":1688991075}`: 0,
		`{}`: 0,
	} {
		var s jsonscan.Scanner
		_, _, err := s.Value([]byte(text), 0)
		require.NoError(t, err)
		ms, ok := eventtime.Find(s.Members, eventtime.DefaultFields())
		require.Equal(t, want != 0, ok, text)
		require.Equal(t, want, ms, text)
	}
}

// FuzzRFC3339 holds the parser to the standard library, which knows neither
// lower case nor a space nor a leap second.
func FuzzRFC3339(f *testing.F) {
	for _, seed := range []string{"2023-07-10T12:11:15Z", "2024-02-29T23:59:59.999999999-23:59", "1900-02-29T00:00:00Z", "0000-02-29T00:00:00+23:59"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := eventtime.RFC3339([]byte(text))
		want, err := time.Parse(time.RFC3339, text)
		if err == nil && len(text) > 18 && text[13] == ':' && text[19] != ',' { // time.Parse takes "T1:" and "15,5"
			require.True(t, ok, text)
			require.Equal(t, want.UnixMilli(), got, text)
		}
	})
}

func FuzzEpoch(f *testing.F) {
	for _, seed := range []string{"1688991075", "1688991075.123", "1e17", "9223372036854775807"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if ms, ok := eventtime.Epoch([]byte(text)); ok {
			require.GreaterOrEqual(t, ms, int64(1e11))
			require.Less(t, ms, int64(1e14))
		}
	})
}

// TestIndex: what an index passes over is not there.
func TestIndex(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom([]string{"a", "b", "ab", "ba", "a.b", "a.b.a", "time", "mite", "event", "event.created", ""})
		var members []jsonscan.Member
		for range rapid.IntRange(0, 6).Draw(rt, "members") {
			value := rapid.SampledFrom([]string{`1`, `{"b":2}`, `{"b":{"a":3}}`, `{"created":4}`}).Draw(rt, "value")
			members = append(members, jsonscan.Member{Name: []byte(name.Draw(rt, "name")), Value: []byte(value)})
		}
		index := eventtime.NewIndex(members)
		for _, f := range []eventtime.Field{{"a"}, {"ab"}, {"a", "b"}, {"a", "b", "a"}, {"time"}, {"event", "created"}, {""}, {"", "a"}} {
			require.Equal(rt, eventtime.Lookup(members, f), index.Lookup(f), "%q", f)
		}
	})
}
