// Package geo says where on the Earth an event came from: by the address in
// it, where there is a database of addresses, else by the AWS region.
package geo

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"
)

// MaxFile is how large a database may be: it is held in memory, so that one
// that is replaced meanwhile does no harm.
const MaxFile = 512 << 20

// Place is a point, in degrees, and what people call it.
type Place struct {
	Lat, Lon float64
	Name     string
}

// Locator finds places. The zero value goes by region.
type Locator struct {
	db *maxminddb.Reader
}

// Open reads a database in MaxMind's format; without a file, places are those of
// regions.
func Open(file string) (*Locator, error) {
	if file == "" {
		return &Locator{}, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("places of addresses: %w", err)
	}
	if info.Size() > MaxFile {
		return nil, fmt.Errorf("places of addresses: %s has %d bytes: at most %d are read", file, info.Size(), MaxFile)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("places of addresses: %w", err)
	}
	db, err := maxminddb.OpenBytes(b)
	if err != nil {
		return nil, fmt.Errorf("places of addresses: %s is no MMDB file: %w", file, err)
	}
	return &Locator{db: db}, nil
}

// Source is what an event says of where it came from.
type Source struct {
	// Value is that of the rule's location field: an address, or a region.
	Value string
	// Region and Service served the event, for example eu-central-1 and
	// s3.amazonaws.com.
	Region, Service string
}

// Locate finds the place of an event. With a database, an address that it does
// not know has none: places by address and by region are not compared.
func (l *Locator) Locate(s Source) (Place, bool) {
	if p, ok := region(s.Value); ok {
		return p, true
	}
	if internal(s.Value) {
		return Place{}, false
	}
	if l == nil || l.db == nil {
		if global(s.Service, s.Region) {
			return Place{}, false
		}
		return region(s.Region)
	}
	addr, err := netip.ParseAddr(s.Value)
	if err != nil {
		return Place{}, false
	}
	var found struct {
		City struct {
			Names struct {
				English string `maxminddb:"en"`
			} `maxminddb:"names"`
		} `maxminddb:"city"`
		Country struct {
			Code string `maxminddb:"iso_code"`
		} `maxminddb:"country"`
		Location struct {
			Latitude  *float64 `maxminddb:"latitude"`
			Longitude *float64 `maxminddb:"longitude"`
		} `maxminddb:"location"`
		Number uint `maxminddb:"autonomous_system_number"`
	}
	at := &found.Location
	if err := l.db.Lookup(addr.Unmap()).Decode(&found); err != nil || at.Latitude == nil || at.Longitude == nil {
		return Place{}, false
	}
	if !(math.Abs(*at.Latitude) <= 90 && math.Abs(*at.Longitude) <= 180) {
		return Place{}, false
	}
	name := join(found.City.Names.English, found.Country.Code)
	if found.Number > 0 {
		name = join(name, fmt.Sprintf("AS%d", found.Number))
	}
	return Place{*at.Latitude, *at.Longitude, name}, true
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}

// internal reports whether AWS itself made the call: the address is a name then.
func internal(address string) bool {
	return address == "" || address == "AWS Internal" || strings.HasSuffix(address, ".amazonaws.com")
}

// global reports whether a service records all of its calls in one region,
// which so says nothing.
func global(service, region string) bool {
	name, ok := strings.CutSuffix(service, ".amazonaws.com")
	switch {
	case !ok:
		return false
	case region == "us-west-2":
		return name == "globalaccelerator"
	case region != "us-east-1":
		return false
	}
	switch name {
	case "iam", "sts", "signin", "organizations", "account", "cloudfront", "route53", "route53domains", "support", "trustedadvisor",
		"health", "waf", "shield", "budgets", "ce", "billing", "importexport", "ecr-public", "artifact", "chatbot", "sso-directory":
		return true
	default:
		return false
	}
}
