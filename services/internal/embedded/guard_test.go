package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// frame encodes a request with its length.
func frame(req kmsg.Request, version int16) []byte {
	req.SetVersion(version)
	var f kmsg.RequestFormatter
	return f.AppendRequest(nil, req, 1)
}

// header encodes a request without a body, claiming to be size bytes long.
func header(size uint32, key, version int16) []byte {
	raw := binary.BigEndian.AppendUint32(nil, size)
	raw = binary.BigEndian.AppendUint16(raw, uint16(key))
	raw = binary.BigEndian.AppendUint16(raw, uint16(version))
	return append(raw, 0, 0, 0, 1, 0xff, 0xff)
}

func hostileFrames() map[string][]byte {
	produce := kmsg.NewPtrProduceRequest()
	produce.Acks = 0
	transaction := "t"
	transactional := kmsg.NewPtrProduceRequest()
	transactional.Acks, transactional.TransactionID = -1, &transaction
	huge := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions = "t", 1<<30
	huge.Topics = append(huge.Topics, topic)
	return map[string][]byte{
		"HTTP":                       []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"zero length":                header(0, 18, 0),
		"length below a header":      header(4, 18, 0),
		"unknown key":                header(10, 9999, 0),
		"negative key":               header(10, -1, 0),
		"unknown version":            header(10, 3, 99),
		"negative version":           header(10, 3, -1),
		"four gigabytes":             header(0xffffffff, 0, 3),
		"metadata of ten megabytes":  header(10<<20, 3, 1),
		"broken body":                append(header(14, 3, 1), 0x7f, 0xff, 0xff, 0xff),
		"produce with a broken body": append(header(14, 0, 3), 0x7f, 0xff, 0xff, 0xff),
		"delete records":             frame(kmsg.NewPtrDeleteRecordsRequest(), 0),
		"delete topics":              frame(kmsg.NewPtrDeleteTopicsRequest(), 0),
		"alter configs":              frame(kmsg.NewPtrIncrementalAlterConfigsRequest(), 0),
		"end a transaction":          frame(kmsg.NewPtrEndTxnRequest(), 0),
		"produce without ack":        frame(produce, 7),
		"transactional produce":      frame(transactional, 7),
		"a billion partitions":       frame(huge, 2),
		"four billion tags, header":  append(header(15, 42, 2), 0xff, 0xff, 0xff, 0xff, 0x0f),
		"four billion tags, body":    append(header(17, 42, 2), 0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f),
	}
}

func TestGuardClosesOnHostileBytes(t *testing.T) {
	cfg := testConfig(t.TempDir())
	b := mustOpen(t, cfg, time.Now)
	c := client(t, b)
	createTopic(t, c, events, 1)
	for name, raw := range hostileFrames() {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", b.Addr())
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Write(raw)
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
			got, err := io.ReadAll(conn)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "left open")
			require.Empty(t, got)
		})
	}
	mustProduce(t, c, events, 0, []byte("still serving"))
	require.Equal(t, int64(len(hostileFrames())), b.Status().Refused)
}

// Tagged fields cost time by what a frame claims, not by what it holds.
func TestProtocolHasNoTaggedFields(t *testing.T) {
	versions := protocol()
	for key := range int16(256) {
		if !served(key) {
			continue
		}
		version, ok := versions.LookupMaxKeyVersion(key)
		if !ok { // refused
			continue
		}
		req := kmsg.RequestForKey(key)
		req.SetVersion(version)
		require.False(t, req.IsFlexible(), kmsg.NameForKey(key))
	}
}

func TestNewerClientIsToldTheVersions(t *testing.T) {
	b := mustOpen(t, testConfig(t.TempDir()), time.Now)
	opts := []kgo.Opt{kgo.SeedBrokers(b.Addr()), kgo.DisableIdempotentWrite(), kgo.DefaultProduceTopic(events)}
	cl, err := kgo.NewClient(opts...)
	require.NoError(t, err)
	defer cl.Close()
	createTopic(t, client(t, b), events, 1)
	require.NoError(t, cl.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr())
}

func TestGuardBoundsMemoryByBytesReceived(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.MaxFrameBytes = maxFrameBytes
	b := mustOpen(t, cfg, time.Now)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 50 { // 12.5 GiB claimed, 14 bytes each sent
		conn, err := net.Dial("tcp", b.Addr())
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Write(header(maxFrameBytes, 0, 3))
		require.NoError(t, err)
	}
	createTopic(t, client(t, b), events, 1) // still serving, and the heads were read
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
}

func TestGuardRefusesBeforeAuthentication(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Auth = true
	b := mustOpen(t, cfg, time.Now)
	for name, raw := range map[string][]byte{
		"metadata":               frame(kmsg.NewPtrMetadataRequest(), 1),
		"a frame of 8 KiB":       header(8<<10, 18, 0),
		"authenticate too early": nil,
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", b.Addr())
			require.NoError(t, err)
			defer conn.Close()
			if raw == nil {
				auth := kmsg.NewPtrSASLAuthenticateRequest()
				_, password := b.Credential()
				auth.SASLAuthBytes = []byte("\x00" + user + "\x00" + password)
				raw = append(frame(auth, 0), frame(kmsg.NewPtrMetadataRequest(), 1)...)
			}
			_, err = conn.Write(raw)
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
			got, err := io.ReadAll(conn)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "left open")
			require.LessOrEqual(t, len(got), 32, "an error at most")
		})
	}
}

func TestGuardCapsConnections(t *testing.T) {
	b := mustOpen(t, testConfig(t.TempDir()), time.Now)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range maxConns + 1 {
		conn, err := net.Dial("tcp", b.Addr())
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	require.Eventually(t, func() bool { return b.Status().Refused == 1 }, 5*time.Second, 5*time.Millisecond)
	conns[0].Close()
	requireServes(t, b)
}

func requireServes(t *testing.T, b *Broker) {
	t.Helper()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", b.Addr())
		if err != nil {
			return false
		}
		defer conn.Close()
		if _, err := conn.Write(frame(kmsg.NewPtrApiVersionsRequest(), 0)); err != nil {
			return false
		}
		_, err = io.ReadFull(conn, make([]byte, 4))
		return err == nil
	}, 5*time.Second, 10*time.Millisecond, "a slot is free again")
}

// FuzzInspect holds the guard's decoder to never panicking, and to letting
// pass only what it says it lets pass.
func FuzzInspect(f *testing.F) {
	for _, raw := range hostileFrames() {
		f.Add(raw[4:])
	}
	for key := range int16(70) {
		if req := kmsg.RequestForKey(key); req != nil {
			for version := range req.MaxVersion() + 1 {
				f.Add(frame(req, version)[4:])
			}
		}
	}
	versions := protocol()
	f.Fuzz(func(t *testing.T, raw []byte) {
		req, err := inspect(raw, versions)
		if err != nil {
			require.True(t, errors.Is(err, errFrame) || errors.Is(err, errNewer), err)
			return
		}
		require.True(t, served(req.key))
		require.NotNil(t, req.body)
	})
}

// FuzzBroker sends frames that the guard lets pass to the engine, which must
// keep serving.
func FuzzBroker(f *testing.F) {
	for key := range int16(70) {
		if req := kmsg.RequestForKey(key); req != nil && served(key) {
			f.Add(frame(req, min(2, req.MaxVersion()))[4:])
			f.Add(frame(req, req.MaxVersion())[4:])
		}
	}
	b := mustOpen(f, testConfig(f.TempDir()), time.Now)
	createTopic(f, client(f, b), events, 1)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := inspect(raw, b.guard.versions); err != nil {
			return
		}
		conn, err := net.Dial("tcp", b.Addr())
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...))
		require.NoError(t, err)
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		_, _ = io.Copy(io.Discard, conn) // an answer, an end, or a request that waits
		requireServes(t, b)
	})
}

// FuzzCheckSegment holds the reader of segments to never panicking and to
// never counting more than there is.
func FuzzCheckSegment(f *testing.F) {
	table := castagnoli()
	f.Add([]byte(nil), int64(0))
	f.Add(bytes.Repeat([]byte{2}, 200), int64(0))
	f.Add(batch(5, 3, []byte("records")), int64(5))
	f.Fuzz(func(t *testing.T, raw []byte, base int64) {
		c := checkSegment(raw, base, table)
		require.LessOrEqual(t, c.good, int64(len(raw)))
		require.GreaterOrEqual(t, c.next, base)
	})
}
