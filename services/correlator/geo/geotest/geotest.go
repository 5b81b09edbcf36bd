// Package geotest makes databases of places for tests.
package geotest

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/stretchr/testify/require"
)

// Database writes an MMDB file as its owner would have it: 198.51.100.0/24 is in
// Oslo, 2001:db8::/32 in Tokyo, and other networks lack this and that.
func Database(t *testing.T) string {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-City", IncludeReservedNetworks: true})
	require.NoError(t, err)
	put := func(network string, v mmdbtype.Map) {
		_, n, err := net.ParseCIDR(network)
		require.NoError(t, err)
		require.NoError(t, w.Insert(n, v))
	}
	at := func(lat, lon float64) mmdbtype.Map {
		return mmdbtype.Map{"latitude": mmdbtype.Float64(lat), "longitude": mmdbtype.Float64(lon)}
	}
	put("198.51.100.0/24", mmdbtype.Map{
		"city": mmdbtype.Map{"names": mmdbtype.Map{"en": mmdbtype.String("Oslo")}}, "country": mmdbtype.Map{"iso_code": mmdbtype.String("NO")},
		"location": at(59.91, 10.75), "autonomous_system_number": mmdbtype.Uint32(64500),
	})
	put("2001:db8::/32", mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("JP")}, "location": at(35.68, 139.69)})
	put("192.0.2.0/24", mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("DE")}})
	put("203.0.113.0/24", mmdbtype.Map{"location": at(1000, 0)})
	file := filepath.Join(t.TempDir(), "places.mmdb")
	f, err := os.Create(file)
	require.NoError(t, err)
	_, err = w.WriteTo(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return file
}
