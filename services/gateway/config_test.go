package gateway_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/gateway"
)

func TestConfig(t *testing.T) {
	require.NoError(t, gateway.DefaultConfig().Validate())
	for name, c := range map[string]struct {
		change func(*gateway.Config)
		says   string // empty: nothing is wrong
	}{
		"all interfaces":           {func(c *gateway.Config) { c.Listen = ":8080" }, "insecure: true"},
		"another machine's view":   {func(c *gateway.Config) { c.Listen = "192.0.2.1:8080" }, "insecure: true"},
		"a name":                   {func(c *gateway.Config) { c.Listen = "example.com:8080" }, "insecure: true"},
		"unspecified":              {func(c *gateway.Config) { c.Listen = "[::]:8080" }, "insecure: true"},
		"insecure on purpose":      {func(c *gateway.Config) { c.Listen, c.Insecure = ":8080", true }, ""},
		"with TLS":                 {func(c *gateway.Config) { c.Listen, c.TLS = ":8443", gateway.TLS{CertFile: "c", KeyFile: "k"} }, ""},
		"loopback":                 {func(c *gateway.Config) { c.Listen = "127.8.9.1:0" }, ""},
		"loopback, version 6":      {func(c *gateway.Config) { c.Listen = "[::1]:0" }, ""},
		"loopback, mapped":         {func(c *gateway.Config) { c.Listen = "[::ffff:127.0.0.1]:0" }, ""},
		"localhost":                {func(c *gateway.Config) { c.Listen = "localhost:0" }, ""},
		"no port":                  {func(c *gateway.Config) { c.Listen = "127.0.0.1" }, "HOST:PORT"},
		"certificate without key":  {func(c *gateway.Config) { c.TLS.CertFile = "c" }, "key_file"},
		"key without certificate":  {func(c *gateway.Config) { c.TLS.KeyFile = "k" }, "cert_file"},
		"body above all bodies":    {func(c *gateway.Config) { c.MaxInflightBytes = c.MaxBodyBytes - 1 }, "max_inflight_bytes"},
		"no records":               {func(c *gateway.Config) { c.MaxRecords = 0 }, "max_records"},
		"record above a produce":   {func(c *gateway.Config) { c.MaxRecordBytes = 1 << 20 }, "max_record_bytes"},
		"depth":                    {func(c *gateway.Config) { c.MaxDepth = 1001 }, "max_depth"},
		"produce beyond margin":    {func(c *gateway.Config) { c.ProduceTimeout = 31 * time.Second }, "produce_timeout"},
		"no lateness":              {func(c *gateway.Config) { c.Lateness = 0 }, "lateness"},
		"no drain":                 {func(c *gateway.Config) { c.DrainTimeout = 0 }, "drain_timeout"},
		"no connections":           {func(c *gateway.Config) { c.MaxConnections = 0 }, "max_connections"},
		"no readers":               {func(c *gateway.Config) { c.MaxReaders = 0 }, "max_readers"},
		"negative partitions":      {func(c *gateway.Config) { c.TenantPartitions = -1 }, "tenant_partitions"},
		"source without name":      {func(c *gateway.Config) { c.Sources = []gateway.Source{{}} }, "letters"},
		"source twice":             {func(c *gateway.Config) { c.Sources = []gateway.Source{{Name: "a"}, {Name: "a"}} }, "twice"},
		"source of unknown format": {func(c *gateway.Config) { c.Sources = []gateway.Source{{Name: "a", Format: "xml"}} }, "cloudtrail, agent, json"},
		"fields of another format": {func(c *gateway.Config) {
			c.Sources = []gateway.Source{{Name: "a", Format: "elb", Fields: []string{"end"}}}
		}, `source "a": fields are for format vpcflow`},
		"field twice": {func(c *gateway.Config) {
			c.Sources = []gateway.Source{{Name: "a", Format: "vpcflow", Fields: []string{"end", "end"}}}
		}, `source "a": field "end" is there twice`},
		"source without time":     {func(c *gateway.Config) { c.Sources = []gateway.Source{{Name: "a", TimeFields: []string{""}}} }, "time field"},
		"source later than known": {func(c *gateway.Config) { c.Sources = []gateway.Source{{Name: "a", Lateness: 1000 * time.Hour}} }, "lateness"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := gateway.DefaultConfig()
			c.change(&cfg)
			err := cfg.Validate()
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
			_, err = gateway.New(cfg, gateway.Deps{Partitions: 4, Log: slog.New(slog.DiscardHandler)})
			require.ErrorContains(t, err, c.says, "it does not start")
		})
	}
}
