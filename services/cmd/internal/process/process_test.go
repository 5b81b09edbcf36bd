package process_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/stormbell/stormbell/services/cmd/internal/correlatorproc"
	"github.com/stormbell/stormbell/services/cmd/internal/gatewayproc"
	"github.com/stormbell/stormbell/services/cmd/internal/notifierproc"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/cmd/stormbell/up"
	"github.com/stormbell/stormbell/services/internal/config"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/embedded"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
	"github.com/stormbell/stormbell/services/internal/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a condition may take to come true on a busy machine.
const patience = 60 * time.Second

// check is that of a kind's own settings.
func check(kind string) func(*process.Settings) error {
	return map[string]func(*process.Settings) error{
		"up": up.Check, "gateway": gatewayproc.CheckAlone, "correlator": correlatorproc.CheckAlone, "notifier": notifierproc.CheckAlone,
	}[kind]
}

func TestDefaultsAreValid(t *testing.T) {
	up, cluster := process.UpDefaults(), process.Defaults()
	require.NoError(t, up.Validate("up", check("up")))
	require.NoError(t, cluster.Validate("correlator", check("correlator")))
	cluster.Seal.RootKeyFile = "root-key"
	require.NoError(t, cluster.Validate("gateway", check("gateway")))
	require.NoError(t, cluster.Validate("notifier", check("notifier")))
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		kind, file, want string
	}{
		"no root key":          {"gateway", "", "seal.root_key_file"},
		"no root key, either":  {"notifier", "", "seal.root_key_file"},
		"topics":               {"up", "topics: {partitions: 0}", "topics.partitions"},
		"brokers":              {"correlator", "kafka: {brokers: []}", "kafka.brokers"},
		"redis":                {"correlator", "redis: {addrs: []}", "redis.addrs"},
		"stages":               {"correlator", "correlator: {stages: all}", "stages"},
		"rules look too far":   {"up", "correlator: {retention: 200h}", "correlator.retention"},
		"notifier looks too":   {"up", "topics: {retention: 120h}\ncorrelator: {retention: 100h}", "notifier.retention"},
		"gateway is patient":   {"up", "gateway: {lateness: 1h}", "gateway.lateness"},
		"broker of a cluster":  {"up", "kafka: {brokers: ['k:9092']}", "brings its own broker"},
		"redis of a cluster":   {"up", "redis: {addrs: ['r:6379']}", "keeps its state in memory"},
		"listener for others":  {"up", "gateway: {listen: '0.0.0.0:80'}", "insecure"},
		"webhooks":             {"up", "egress: {allow: [everything]}", "everything"},
		"log level":            {"up", "telemetry: {log_level: loud}", "log_level"},
		"source without worth": {"up", "gateway: {sources: [{name: 'a b'}]}", "a b"},
	} {
		t.Run(name, func(t *testing.T) {
			s := process.Defaults()
			if tc.kind == "up" {
				s = process.UpDefaults()
			}
			require.NoError(t, s.Load(write(t, tc.file), nil))
			require.ErrorContains(t, s.Validate(tc.kind, check(tc.kind)), tc.want)
		})
	}
	s := process.Defaults()
	s.Correlator.Stages, s.Redis.Addrs = "detect", nil
	require.NoError(t, s.Validate("correlator", check("correlator")), "stage detect needs no Redis")
}

func TestSourcesAreMadeKnown(t *testing.T) {
	s := process.Defaults()
	require.NoError(t, s.Load(write(t, `
gateway:
  sources:
    - {name: access, product: aws, service: s3, category: log, lateness: 24h}
    - {name: push, product: app, lateness: 1m}
`), nil))
	require.Len(t, s.Correlator.Sources, 1)
	require.Equal(t, "s3", s.Correlator.Sources[0].Service)
	require.Equal(t, 24*time.Hour, s.Correlator.Sources[0].Lateness)
}

func TestNarrowEgress(t *testing.T) {
	for listen, loopback := range map[string]bool{
		"127.0.0.1:8080": true, "localhost:80": true, "[::1]:0": true, "127.9.9.9:1": true,
		"0.0.0.0:8080": false, ":8080": false, "[::]:1": false, "10.0.0.1:80": false, "stormbell.example:80": false, "": false,
	} {
		s := process.UpDefaults()
		s.Gateway.Listen = listen
		s.NarrowEgress()
		require.Equal(t, loopback, s.Egress.AllowHTTP, listen)
		require.Equal(t, loopback, len(s.Egress.Allow) > 0, listen)
	}
	s := process.UpDefaults()
	require.NoError(t, s.Load(write(t, "gateway: {listen: '0.0.0.0:80'}\negress: {allow: [10.0.0.0/8], allow_http: true}"), nil))
	s.NarrowEgress()
	require.True(t, s.Egress.AllowHTTP, "what someone set stays")
}

func TestSecretsComeOneWay(t *testing.T) {
	s := process.Defaults()
	require.NoError(t, s.Load("", []string{"STORMBELL_REDIS_PASSWORD=canary", "STORMBELL_SEAL_ROOT_KEY=canary"}))
	s.Redis.PasswordFile = "f"
	require.ErrorContains(t, s.Validate("correlator", check("correlator")), "not both")
	s = process.Defaults()
	require.NoError(t, s.Load("", []string{"STORMBELL_SEAL_ROOT_KEY=canary"}))
	_, err := s.Seal.Root()
	require.ErrorContains(t, err, "STORMBELL_SEAL_ROOT_KEY")
	require.NotContains(t, err.Error(), "canary")
}

func TestExecute(t *testing.T) {
	for name, tc := range map[string]struct {
		args     []string
		code     int
		out, err string
	}{
		"version":     {[]string{"--version"}, 0, "gateway ", ""},
		"help":        {[]string{"--help"}, 0, "--listen", ""},
		"flag":        {[]string{"--stages", "both"}, 2, "", "unknown flag: --stages"},
		"probe":       {[]string{"--probe", "alive"}, 1, "", `probe "alive": use live or ready`},
		"no port":     {[]string{"--probe", "live", "--config", write(t, "telemetry: {admin: ''}")}, 1, "", "telemetry.admin"},
		"argument":    {[]string{"now"}, 2, "", `unexpected argument "now"`},
		"file":        {[]string{"--config", "/no/such/file"}, 1, "", "/no/such/file"},
		"not enough":  {nil, 1, "", "seal.root_key_file"},
		"wrong value": {[]string{"--config", write(t, "seal: {root_key_file: x}\nkafka: {brokers: [x]}")}, 1, "", "kafka.brokers"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			world := process.World{Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
			require.Equal(t, tc.code, process.Execute(t.Context(), gatewayproc.Program(), world, tc.args))
			require.Contains(t, out.String(), tc.out)
			require.Contains(t, errs.String(), tc.err)
			if tc.code > 0 {
				require.True(t, strings.HasPrefix(errs.String(), "gateway: "))
			}
		})
	}
}

// TestStartsBehindTheAdminPort holds that a process that waits can be asked
// what for, and that it ends when it is told to.
func TestStartsBehindTheAdminPort(t *testing.T) {
	s := process.Defaults()
	s.Telemetry.Admin = "127.0.0.1:0"
	p, out, errs := newProcess(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	proceed := make(chan struct{})
	go func() {
		ended <- p.Run(ctx, func(context.Context) error {
			<-proceed
			return p.AnnounceReady(&process.RuleCount{OK: 1, Rejected: 2})
		})
	}()
	require.Equal(t, http.StatusServiceUnavailable, readyz(t, p))
	require.NoError(t, process.Probe(t.Context(), p.Admin(), "live"))
	require.ErrorContains(t, process.Probe(t.Context(), p.Admin(), "ready"), "not ready: {")
	close(proceed)
	require.Eventually(t, func() bool { return readyz(t, p) == http.StatusOK }, patience, 5*time.Millisecond)
	_, port, err := net.SplitHostPort(p.Admin())
	require.NoError(t, err)
	for _, addr := range []string{p.Admin(), ":" + port, "0.0.0.0:" + port, "[::]:" + port, "localhost:" + port} {
		require.NoError(t, process.Probe(t.Context(), addr, "ready"), addr)
	}
	cancel()
	require.NoError(t, <-ended, errs.String())
	require.ErrorContains(t, process.Probe(t.Context(), p.Admin(), "live"), "not live: ")
	var line struct {
		Msg, Admin string
		Rules      process.RuleCount
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	require.Equal(t, "ready", line.Msg)
	require.Equal(t, p.Admin(), line.Admin)
	require.Equal(t, process.RuleCount{OK: 1, Rejected: 2}, line.Rules)
}

func TestMistypedVariableIsTold(t *testing.T) {
	s := process.Defaults()
	s.Telemetry.Admin = ""
	var errs bytes.Buffer
	p, err := process.New(t.Context(), "gateway", s, process.World{
		Stdout: io.Discard, Stderr: &errs, Getenv: func(string) string { return "" },
		Environ: []string{"STORMBELL_KAFKA_BROKER=canary:9092", "STORMBELL_KAFKA_CLIENT_ID=x", "STORMBELL_CONFIG=x", "HOME=/"},
	})
	require.NoError(t, err)
	require.Error(t, p.Run(t.Context(), func(context.Context) error { return errors.New("enough") }))
	require.Equal(t, 1, strings.Count(errs.String(), "is no setting"), errs.String())
	require.Contains(t, errs.String(), "STORMBELL_KAFKA_BROKER")
	require.NotContains(t, errs.String(), "canary")
}

// TestNoSettingIsUnknown: what the reference names, nobody is warned of.
func TestNoSettingIsUnknown(t *testing.T) {
	s := process.Defaults()
	environ := []string{"STORMBELL_KAFKA_SASL_PASSWORD=x", "STORMBELL_URL=x"}
	for _, one := range config.Settings(s) {
		if one.Env != "" {
			environ = append(environ, one.Env+"=x")
		}
	}
	require.Greater(t, len(environ), 50)
	unknown, err := s.Unknown(environ)
	require.NoError(t, err)
	require.Empty(t, unknown)
}

func TestFailedStart(t *testing.T) {
	s := process.Defaults()
	s.Telemetry.Admin = ""
	p, _, _ := newProcess(t, s)
	boom := errors.New("boom")
	require.Equal(t, boom.Error(), p.Run(t.Context(), func(context.Context) error { return boom }).Error())
}

// TestMintKey makes a first key on a real broker and finds it with a second
// process.
func TestMintKey(t *testing.T) {
	broker := embeddedtest.Start(t)
	path := filepath.Join(t.TempDir(), "key")
	var plain string
	connected(t, broker, func(ctx context.Context, p *process.Process) (err error) {
		plain, err = p.MintKey(ctx, "acme", "first", path)
		return err
	})
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, plain+"\n", string(text))
	connected(t, broker, func(ctx context.Context, p *process.Process) error {
		id, err := p.Control.Authenticate(ctx, plain)
		require.NoError(t, err)
		require.Equal(t, "acme", id.Tenant)
		require.True(t, id.Has("manage") && id.Has("read") && id.Has("ingest"))
		_, ok := p.Control.Tenant("acme")
		require.True(t, ok)
		_, err = p.MintKey(ctx, "acme", "second", path)
		require.ErrorIs(t, err, os.ErrExist, "a key is never overwritten")
		return nil
	})
}

// TestRegisterKey makes a key known that was made without a broker, and again.
func TestRegisterKey(t *testing.T) {
	plain := seal.NewSecret(control.MintKey())
	connected(t, embeddedtest.Start(t), func(ctx context.Context, p *process.Process) error {
		id, added, err := p.RegisterKey(ctx, "acme", "first", plain)
		require.NoError(t, err)
		require.True(t, added)
		again, added, err := p.RegisterKey(ctx, "acme", "first", plain)
		require.NoError(t, err)
		require.False(t, added)
		require.Equal(t, id, again)
		known, err := p.Control.Authenticate(ctx, plain.Reveal())
		require.NoError(t, err)
		require.Equal(t, "acme", known.Tenant)
		require.True(t, known.Has("manage"))

		_, _, err = p.RegisterKey(ctx, "other", "first", plain)
		require.ErrorContains(t, err, `belongs to tenant "acme"`)
		_, _, err = p.RegisterKey(ctx, "acme", "first", seal.NewSecret("canary"))
		require.ErrorContains(t, err, "stormbell keys mint")
		require.NotContains(t, err.Error(), "canary")
		return nil
	})
}

// TestWatch holds that a server that stops answering makes the process not
// ready, does not end it, and is noticed when it is back.
func TestWatch(t *testing.T) {
	s := process.Defaults()
	s.Telemetry.Admin = "127.0.0.1:0"
	p, _, errs := newProcess(t, s)
	var down atomic.Bool
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- p.Run(ctx, func(context.Context) error {
			p.Watch("redis", func(context.Context) error {
				if down.Load() {
					return errors.New("no answer")
				}
				return nil
			})
			return nil
		})
	}()
	for _, want := range []int{http.StatusOK, http.StatusServiceUnavailable, http.StatusOK} {
		down.Store(want != http.StatusOK)
		require.Eventually(t, func() bool { return readyz(t, p) == want }, patience, 5*time.Millisecond)
	}
	cancel()
	require.NoError(t, <-ended, errs.String())
}

// connected runs f in a process on the broker and ends it.
func connected(t *testing.T, broker *embedded.Broker, f func(context.Context, *process.Process) error) {
	t.Helper()
	s := process.Defaults()
	s.Telemetry.Admin, s.Kafka.Brokers = "", []string{broker.Addr()}
	s.Topics.Partitions, s.Topics.ReplicationFactor = 1, 1
	p, _, errs := newProcess(t, s)
	ctx, done := context.WithCancel(t.Context())
	defer done()
	require.NoError(t, p.Run(ctx, func(ctx context.Context) error {
		if err := p.Connect(ctx); err != nil {
			return err
		}
		if err := f(ctx, p); err != nil {
			return err
		}
		done()
		return nil
	}), errs.String())
}

func newProcess(t *testing.T, s process.Settings) (p *process.Process, out, errs *bytes.Buffer) {
	t.Helper()
	out, errs = new(bytes.Buffer), new(bytes.Buffer)
	p, err := process.New(t.Context(), "test", s, process.World{Stdout: out, Stderr: errs, Getenv: func(string) string { return "" }})
	require.NoError(t, err)
	return p, out, errs
}

func readyz(t *testing.T, p *process.Process) int {
	t.Helper()
	transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.Admin()+"/readyz", nil)
	require.NoError(t, err)
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// write returns a file with settings.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}
