package sigma_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

func TestReader(t *testing.T) {
	r := sigma.NewReader("product", "a.b", "missing", "product")
	cases := []struct {
		name, event string
		want        []string
	}{
		{"text", `{"product":"aws","a":{"b":"x"}}`, []string{"aws", "x", "", "aws"}},
		{"last duplicate", `{"product":"aws","product":"gcp"}`, []string{"gcp", "", "", "gcp"}},
		{"decoded", `{"product":"\u0061ws","a.b":5}`, []string{"aws", "5", "", "aws"}},
		{"null and arrays", `{"product":null,"a":{"b":[1]}}`, []string{"", "", "", ""}},
		{"object", `{"product":{ "x" : 1 }}`, []string{`{"x":1}`, "", "", `{"x":1}`}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := r.Read([]byte(c.event), nil)
			require.NoError(t, err)
			var texts []string
			for _, b := range got {
				texts = append(texts, string(b))
			}
			require.Equal(t, c.want, texts)
		})
	}
	_, err := r.Read([]byte(`[]`), nil)
	require.Error(t, err)
}
