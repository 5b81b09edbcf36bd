package queue

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/stormbell/stormbell/services/internal/state"
)

var (
	//go:embed create.lua
	createLua string
	//go:embed claim.lua
	claimLua string
	//go:embed settle.lua
	settleLua string
	//go:embed trim.lua
	trimLua string
)

// client is what is needed of Redis. The library's own type for it is reached by
// a generic one: a thousand functions would be compiled anew into every package
// that sees a Redis.
type client interface {
	io.Closer
	redis.Scripter
	commands
}

// commands are those that are no scripts.
type commands interface {
	Ping(ctx context.Context) *redis.StatusCmd
	TxPipelined(ctx context.Context, fn func(redis.Pipeliner) error) ([]redis.Cmder, error)
	XRangeN(ctx context.Context, stream, start, stop string, count int64) *redis.XMessageSliceCmd
}

// Redis keeps queues in Redis 7 or newer. Its methods are safe for concurrent
// use. All keys of a shard share one hash tag, so that they live, and fail
// over, together; each call is one script, so that a tail that is lost leaves
// a state that once was.
type Redis struct {
	client                      client
	prefix                      string
	create, claim, settle, trim *redis.Script
}

// OpenRedis connects as state.Connect does. Close closes the connection.
func OpenRedis(ctx context.Context, cfg state.Config, log *slog.Logger) (*Redis, error) {
	client, err := state.Connect(ctx, cfg, log)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the setting
	}
	return NewRedis(client, cfg.Prefix), nil
}

// Close closes the client.
func (r *Redis) Close() error {
	if err := r.client.Close(); err != nil {
		return fmt.Errorf("close redis: %w", err)
	}
	return nil
}

// Ping asks whether the server answers: of a cluster, each that holds keys.
func (r *Redis) Ping(ctx context.Context) error {
	return state.Ping(ctx, r.client) //nolint:wrapcheck // it names the server
}

// NewRedis returns a store on a client, which Close closes. Prefix begins
// every key and holds no braces.
func NewRedis(client redis.UniversalClient, prefix string) *Redis {
	return &Redis{
		client: client, prefix: prefix,
		create: redis.NewScript(createLua), claim: redis.NewScript(claimLua),
		settle: redis.NewScript(settleLua), trim: redis.NewScript(trimLua),
	}
}

type shardKeys struct{ meta, bodies, left, open, ready, tasks, fences, outbox, queue string }

func (r *Redis) keys(partition int) shardKeys {
	tag := "{" + r.prefix + ":n:" + strconv.Itoa(partition) + "}:"
	return shardKeys{
		meta: tag + "meta", bodies: tag + "bodies", left: tag + "left", open: tag + "open", ready: tag + "ready",
		tasks: tag + "tasks", fences: tag + "fences", outbox: tag + "outbox", queue: tag + "q:",
	}
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// offset writes an applied offset; Nowhere is empty.
func offset(n int64) string {
	if n == Nowhere {
		return ""
	}
	return number(n)
}

func parseOffset(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return Nowhere
	}
	return n
}

// Acquire is Memory.Acquire.
func (r *Redis) Acquire(ctx context.Context, partition int, token string) (int64, error) {
	k := r.keys(partition)
	var applied *redis.StringCmd
	_, err := r.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.HSet(ctx, k.meta, "owner", token)
		applied = p.HGet(ctx, k.meta, "applied")
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return Nowhere, fmt.Errorf("acquire shard %d: %w", partition, err)
	}
	return parseOffset(applied.Val()), nil
}

// verdict turns a script's answer into an error.
func verdict(partition int, call string, reply []any, err error) error {
	if err != nil {
		return fmt.Errorf("%s in shard %d: %w", call, partition, err)
	}
	word, _ := reply[0].(string)
	var applied string
	if len(reply) > 1 {
		applied, _ = reply[1].(string)
	}
	switch word {
	case "ok":
		return nil
	case "stale":
		return ErrStale
	case "owner":
		return &RefusedError{Foreign: true, Applied: parseOffset(applied)}
	case "applied":
		return &RefusedError{Applied: parseOffset(applied)}
	}
	return fmt.Errorf("%s in shard %d: redis answered %q", call, partition, word)
}

// Create is Memory.Create.
func (r *Redis) Create(ctx context.Context, partition int, b *Batch) error {
	k := r.keys(partition)
	args := []any{b.Token, offset(b.Prev), offset(b.Next), k.queue, 0}
	keys := []string{k.meta, k.bodies, k.left, k.open, k.ready, k.tasks}
	messages, queues := 0, make(map[string]bool)
	for i := range b.Messages {
		m := &b.Messages[i]
		if len(m.Tasks) == 0 {
			continue
		}
		messages++
		args = append(args, m.Alert, m.Body, m.WrittenMS, len(m.Tasks))
		for _, t := range m.Tasks {
			args = append(args, t.Endpoint, t.DueMS, t.State)
			if !queues[t.Endpoint] {
				queues[t.Endpoint] = true
				keys = append(keys, k.queue+t.Endpoint)
			}
		}
	}
	args[4] = messages
	reply, err := r.create.Run(ctx, r.client, keys, args...).Slice()
	return verdict(partition, "create tasks", reply, err)
}

// Claim is Memory.Claim.
func (r *Redis) Claim(ctx context.Context, partition int, req *Request) (Claim, error) {
	k := r.keys(partition)
	args := make([]any, 0, 9+3*len(req.Rooms))
	args = append(args, req.Token, req.Applied, req.NowMS, req.LeaseMS, req.Fence, req.Limit, req.Default, k.queue, len(req.Rooms))
	for _, room := range req.Rooms {
		args = append(args, room.Endpoint, room.Max, room.NotBeforeMS)
	}
	reply, err := r.claim.Run(ctx, r.client, []string{k.meta, k.bodies, k.open, k.ready, k.tasks, k.fences}, args...).Slice()
	if err := verdict(partition, "claim tasks", reply, err); err != nil {
		return Claim{}, err
	}
	if len(reply) != 5 {
		return Claim{}, fmt.Errorf("claim tasks in shard %d: redis answered %d parts, not 5", partition, len(reply))
	}
	parts, _ := reply[4].([]any)
	out := Claim{NextMS: whole(reply[1]), OldestMS: whole(reply[2]), Depth: whole(reply[3]), Tasks: make([]Leased, 0, len(parts)/4)}
	for ; len(parts) >= 4; parts = parts[4:] {
		out.Tasks = append(out.Tasks, Leased{
			Endpoint: text(parts[0]), Alert: text(parts[1]), Fence: req.Fence,
			State: []byte(text(parts[2])), Body: []byte(text(parts[3])),
		})
	}
	return out, nil
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// whole reads a score, which Redis may write with an exponent.
func whole(v any) int64 {
	s := text(v)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	f, _ := strconv.ParseFloat(s, 64)
	return int64(f)
}

// Settle is Memory.Settle.
func (r *Redis) Settle(ctx context.Context, partition int, t *Settlement) error {
	k := r.keys(partition)
	reply, err := r.settle.Run(ctx, r.client, []string{k.meta, k.bodies, k.left, k.open, k.ready, k.tasks, k.fences, k.outbox, k.queue + t.Endpoint},
		t.Applied, t.Endpoint, t.Alert, t.Fence, t.DueMS, flag(t.State != nil), t.State, flag(t.Record != nil), t.Record, nonce()).Slice()
	return verdict(partition, "settle task", reply, err)
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// nonce makes the ids of entries differ that get the same number because the
// store lost the first of them.
func nonce() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return strconv.FormatUint(binary.BigEndian.Uint64(b[:])>>1, 10)
}

// Outbox is Memory.Outbox.
func (r *Redis) Outbox(ctx context.Context, partition, limit int) ([]Entry, error) {
	got, err := r.client.XRangeN(ctx, r.keys(partition).outbox, "-", "+", int64(limit)).Result()
	if err != nil {
		return nil, fmt.Errorf("read outbox of shard %d: %w", partition, err)
	}
	out := make([]Entry, len(got))
	for i, x := range got {
		out[i] = Entry{ID: x.ID, Alert: text(x.Values["a"]), Record: []byte(text(x.Values["r"]))}
	}
	return out, nil
}

// Trim is Memory.Trim.
func (r *Redis) Trim(ctx context.Context, partition int, token, id string) error {
	k := r.keys(partition)
	seq, _, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(seq, 10, 64)
	if err != nil {
		return fmt.Errorf("trim outbox of shard %d: id %q is not of this store", partition, id)
	}
	reply, err := r.trim.Run(ctx, r.client, []string{k.meta, k.outbox}, token, id, number(n+1)+"-0").Slice()
	return verdict(partition, "trim outbox", reply, err)
}
