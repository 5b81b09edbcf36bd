package geo_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/correlator/geo"
	"github.com/stormbell/stormbell/services/correlator/geo/geotest"
)

func TestLocate(t *testing.T) {
	withFile, err := geo.Open(geotest.Database(t))
	require.NoError(t, err)
	without, err := geo.Open("")
	require.NoError(t, err)
	const s3 = "s3.amazonaws.com"
	for name, tc := range map[string]struct {
		l    *geo.Locator
		from geo.Source
		want string
	}{
		"by address":                              {withFile, geo.Source{"198.51.100.7", "us-east-2", s3}, "Oslo, NO, AS64500"},
		"by an address of IPv6":                   {withFile, geo.Source{"2001:db8::1", "us-east-2", s3}, "JP"},
		"IPv4 in IPv6":                            {withFile, geo.Source{"::ffff:198.51.100.7", "", ""}, "Oslo, NO, AS64500"},
		"an address that the file does not know":  {withFile, geo.Source{"10.1.2.3", "us-east-2", s3}, ""},
		"an address without a point":              {withFile, geo.Source{"192.0.2.1", "us-east-2", s3}, ""},
		"a point that is not on the Earth":        {withFile, geo.Source{"203.0.113.1", "us-east-2", s3}, ""},
		"no address":                              {withFile, geo.Source{"somewhere", "us-east-2", s3}, ""},
		"AWS itself, with a file":                 {withFile, geo.Source{"cloudtrail.amazonaws.com", "us-east-2", s3}, ""},
		"the field is a region":                   {withFile, geo.Source{"eu-north-1", "us-east-2", s3}, "Stockholm (eu-north-1)"},
		"by the event's region":                   {without, geo.Source{"198.51.100.7", "eu-north-1", s3}, "Stockholm (eu-north-1)"},
		"an unknown region":                       {without, geo.Source{"198.51.100.7", "moon-1", s3}, ""},
		"AWS itself":                              {without, geo.Source{"cloudtrail.amazonaws.com", "eu-north-1", s3}, ""},
		"AWS inside":                              {without, geo.Source{"AWS Internal", "eu-north-1", s3}, ""},
		"nothing":                                 {without, geo.Source{"", "eu-north-1", s3}, ""},
		"a service of all regions says nothing":   {without, geo.Source{"198.51.100.7", "us-east-1", "iam.amazonaws.com"}, ""},
		"one that is global elsewhere":            {without, geo.Source{"198.51.100.7", "us-west-2", "globalaccelerator.amazonaws.com"}, ""},
		"a service of one region there":           {without, geo.Source{"198.51.100.7", "us-east-1", s3}, "Northern Virginia (us-east-1)"},
		"a service of all regions in another one": {without, geo.Source{"198.51.100.7", "eu-west-1", "sts.amazonaws.com"}, "Dublin (eu-west-1)"},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := tc.l.Locate(tc.from)
			require.Equal(t, tc.want != "", ok)
			require.Equal(t, tc.want, got.Name)
		})
	}
	p, _ := withFile.Locate(geo.Source{Value: "198.51.100.7"})
	require.InDelta(t, 59.91, p.Lat, 1e-9)
	require.InDelta(t, 10.75, p.Lon, 1e-9)
}

func TestOpen(t *testing.T) {
	_, err := geo.Open(filepath.Join(t.TempDir(), "none.mmdb"))
	require.ErrorIs(t, err, os.ErrNotExist)
	file := filepath.Join(t.TempDir(), "text.mmdb")
	require.NoError(t, os.WriteFile(file, []byte("no database"), 0o600))
	_, err = geo.Open(file)
	require.ErrorContains(t, err, "is no MMDB file")
}
