package state

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed commit.lua
	commitLua string
	//go:embed acquire.lua
	acquireLua string
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
	Pipeline() redis.Pipeliner
	XRangeN(ctx context.Context, stream, start, stop string, count int64) *redis.XMessageSliceCmd
}

// Redis keeps state in Redis 7 or newer. Its methods are safe for concurrent
// use. All keys of a partition share one hash tag, so that they live, and fail
// over, together.
type Redis struct {
	client  client
	prefix  string
	commit  *redis.Script
	acquire *redis.Script
	trim    *redis.Script
}

// NewRedis returns a store behind a client that the caller has configured; it
// checks nothing. OpenRedis is for everyone else. Close closes the client.
func NewRedis(client redis.UniversalClient, prefix string) *Redis {
	return &Redis{
		client: client, prefix: prefix,
		commit: redis.NewScript(commitLua), acquire: redis.NewScript(acquireLua), trim: redis.NewScript(trimLua),
	}
}

// Ping asks whether the server answers: of a cluster, each that holds keys.
func (r *Redis) Ping(ctx context.Context) error { return Ping(ctx, r.client) }

// Close ends all connections.
func (r *Redis) Close() error {
	if err := r.client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return fmt.Errorf("close redis: %w", err)
	}
	return nil
}

// keys names the keys of a partition.
type keys struct{ owner, meta, outbox, due, group string }

func (r *Redis) keys(partition int32) keys {
	tag := "{" + r.prefix + ":c:" + strconv.Itoa(int(partition)) + "}:"
	return keys{owner: tag + "owner", meta: tag + "meta", outbox: tag + "outbox", due: tag + "due", group: tag + "g:"}
}

// Acquire makes token the only one whose writes to the partition are taken,
// and returns what is there.
func (r *Redis) Acquire(ctx context.Context, partition int32, token string) (Partition, error) {
	k := r.keys(partition)
	got, err := r.acquire.Run(ctx, r.client, []string{k.owner, k.meta, k.due, k.outbox}, token).StringSlice()
	if err != nil {
		return Partition{}, fmt.Errorf("acquire partition %d: %w", partition, err)
	}
	if len(got) != 5 {
		return Partition{}, fmt.Errorf("acquire partition %d: reply has %d parts", partition, len(got))
	}
	p := Partition{Meta: []byte(got[2])}
	if p.Applied, err = parsePosition(got[0]); err != nil {
		return Partition{}, fmt.Errorf("acquire partition %d: %w", partition, err)
	}
	if p.Seq, err = strconv.ParseInt(got[1], 10, 64); err != nil {
		return Partition{}, fmt.Errorf("acquire partition %d: sequence: %w", partition, err)
	}
	if p.Due, err = parseDue(got[3]); err != nil {
		return Partition{}, fmt.Errorf("acquire partition %d: %w", partition, err)
	}
	p.First = p.Seq + 1
	if seq, _, _ := strings.Cut(got[4], "-"); seq != "" {
		if p.First, err = strconv.ParseInt(seq, 10, 64); err != nil {
			return Partition{}, fmt.Errorf("acquire partition %d: first of the outbox: %w", partition, err)
		}
	}
	return p, nil
}

// Commit applies a batch whole, or fails with a RefusedError. A batch that
// was applied already, and whose reply was lost, succeeds. After any other
// error the outcome is unknown.
func (r *Redis) Commit(ctx context.Context, partition int32, b *Batch) error {
	if err := b.check(); err != nil {
		return err
	}
	k := r.keys(partition)
	names := make([]string, 0, 4+len(b.Changes))
	names = append(names, k.owner, k.meta, k.outbox, k.due)
	args := make([]any, 9, 16+2*len(b.Outbox)+8*len(b.Changes))
	var first int64
	for i, e := range b.Outbox {
		if i == 0 {
			first = e.Seq
		}
		args = append(args, e.Offset, e.Body)
	}
	pairs, removals := 0, 0
	for i := range b.Changes {
		if c := &b.Changes[i]; !c.Drop && !c.SameDue && c.Due != Never {
			args = append(args, score(c.Level, c.Due), &c.Key)
			pairs++
		}
	}
	for i := range b.Changes {
		if c := &b.Changes[i]; c.Drop || !c.SameDue && c.Due == Never {
			args = append(args, &c.Key)
			removals++
		}
	}
	counts := make([]byte, 0, countBytes*len(b.Changes))
	for i := range b.Changes {
		names = append(names, k.group+b.Changes[i].Key)
		args, counts = appendFields(args, counts, &b.Changes[i])
	}
	copy(args, []any{b.Token, formatPosition(b.Prev), formatPosition(b.Next), b.Meta, len(b.Outbox), first, pairs, removals, counts})
	return reply(r.commit.Run(ctx, r.client, names, args...).Slice())
}

// Of each group the script is told how many fields it sets, or that it drops the
// group, and how many it removes: in one argument for all groups, since each takes
// its time.
const (
	countBytes = 4
	dropGroup  = math.MaxUint16
)

func appendFields(args []any, counts []byte, c *Change) ([]any, []byte) {
	if c.Drop {
		counts = binary.BigEndian.AppendUint16(counts, dropGroup)
		return args, binary.BigEndian.AppendUint16(counts, 0)
	}
	var set, del uint16 // as many as check lets pass
	for i := range c.Fields {
		if f := &c.Fields[i]; f.Value != nil {
			args = append(args, &f.Name, (*fieldValue)(f))
			set++
		}
	}
	for i := range c.Fields {
		if f := &c.Fields[i]; f.Value == nil {
			args = append(args, &f.Name)
			del++
		}
	}
	return args, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(counts, set), del)
}

// fieldValue is the value of a field as an argument that takes no memory of its own.
type fieldValue Field

// MarshalBinary implements encoding.BinaryMarshaler.
func (f *fieldValue) MarshalBinary() ([]byte, error) { return f.Value, nil }

// reply turns what a script returned into nil or a RefusedError.
func reply(got []any, err error) error {
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if len(got) == 0 {
		return errors.New("write state: empty reply")
	}
	reason, _ := got[0].(string)
	if reason == "ok" {
		return nil
	}
	refused := &RefusedError{Reason: reason, Applied: Nowhere}
	if len(got) == 3 {
		if at, ok := got[1].(string); ok {
			if refused.Applied, err = parsePosition(at); err != nil {
				return fmt.Errorf("write state: %w", err)
			}
		}
		foreign, _ := got[2].(int64)
		refused.Foreign = foreign == 1
	}
	return refused
}

// Load returns the fields of groups, by their keys, each sorted by name; a
// group that does not exist has none.
func (r *Redis) Load(ctx context.Context, partition int32, groups []string) ([][]Field, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	k := r.keys(partition)
	pipe := r.client.Pipeline()
	replies := make([]*redis.MapStringStringCmd, len(groups))
	for i, g := range groups {
		replies[i] = pipe.HGetAll(ctx, k.group+g)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("load %d groups of partition %d: %w", len(groups), partition, err)
	}
	out := make([][]Field, len(groups))
	for i, reply := range replies {
		got, size := reply.Val(), 0
		if len(got) == 0 {
			continue
		}
		for _, value := range got {
			size += len(value)
		}
		// What is small shares memory, so that there are fewer pieces of it.
		all := make([]byte, 0, min(size, sharedBytes))
		out[i] = make([]Field, 0, len(got))
		for name, value := range got {
			if len(value) > cap(all)-len(all) {
				out[i] = append(out[i], Field{Name: name, Value: []byte(value)})
				continue
			}
			at := len(all)
			all = append(all, value...)
			out[i] = append(out[i], Field{Name: name, Value: all[at:len(all):len(all)]})
		}
		slices.SortFunc(out[i], func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	}
	return out, nil
}

// sharedBytes is how much of a group's fields shares memory at most.
const sharedBytes = 4 << 10

// A score of the due index orders all levels, one behind the other: doubles are
// exact up to 2⁵³.
const (
	levelWidth = 1 << 48
	maxDue     = 1<<47 - 1
)

func score(level uint32, due int64) int64 {
	return int64(level)*levelWidth + min(max(due, -maxDue), maxDue)
}

// Due returns at most limit keys of groups of a level whose due time is at most
// watermark, in order of (due, key), and the least due time of the level.
func (r *Redis) Due(ctx context.Context, partition int32, level uint32, watermark int64, limit int) (groups []string, least int64, err error) {
	k := r.keys(partition)
	pipe := r.client.Pipeline()
	from := strconv.FormatInt(score(level, math.MinInt64), 10)
	head := pipe.ZRangeByScoreWithScores(ctx, k.due, &redis.ZRangeBy{Min: from, Max: strconv.FormatInt(score(level, math.MaxInt64), 10), Count: 1})
	due := pipe.ZRangeByScore(ctx, k.due, &redis.ZRangeBy{Min: from, Max: strconv.FormatInt(score(level, watermark), 10), Count: int64(limit)})
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, 0, fmt.Errorf("ask for groups that are due in partition %d: %w", partition, err)
	}
	least = Never
	if h := head.Val(); len(h) > 0 {
		least = int64(h[0].Score) - int64(level)*levelWidth
	}
	return due.Val(), least, nil
}

// Outbox returns at most limit entries behind a sequence number, in order.
func (r *Redis) Outbox(ctx context.Context, partition int32, after int64, limit int) ([]Entry, error) {
	k := r.keys(partition)
	got, err := r.client.XRangeN(ctx, k.outbox, strconv.FormatInt(after+1, 10)+"-0", "+", int64(limit)).Result()
	if err != nil {
		return nil, fmt.Errorf("read outbox of partition %d: %w", partition, err)
	}
	out := make([]Entry, len(got))
	for i, m := range got {
		seq, _, _ := strings.Cut(m.ID, "-")
		offset, _ := m.Values["o"].(string)
		body, _ := m.Values["b"].(string)
		if out[i].Seq, err = strconv.ParseInt(seq, 10, 64); err != nil {
			return nil, fmt.Errorf("read outbox of partition %d: sequence: %w", partition, err)
		}
		if out[i].Offset, err = strconv.ParseInt(offset, 10, 64); err != nil {
			return nil, fmt.Errorf("read outbox of partition %d: entry %d: offset: %w", partition, out[i].Seq, err)
		}
		out[i].Body = []byte(body)
	}
	return out, nil
}

// Trim removes the outbox entries up to and including a sequence number, or
// fails with a RefusedError if token is not the owner's.
func (r *Redis) Trim(ctx context.Context, partition int32, token string, upTo int64) error {
	k := r.keys(partition)
	return reply(r.trim.Run(ctx, r.client, []string{k.owner, k.meta, k.outbox}, token, upTo).Slice())
}

func formatPosition(p Position) string {
	if p == Nowhere {
		return ""
	}
	return p.String()
}

func parsePosition(s string) (Position, error) {
	if s == "" {
		return Nowhere, nil
	}
	offset, step, ok := strings.Cut(s, ":")
	o, err1 := strconv.ParseInt(offset, 10, 64)
	n, err2 := strconv.ParseInt(step, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return Nowhere, fmt.Errorf("position %q is not OFFSET:STEP", s)
	}
	return Position{o, n}, nil
}

// parseDue reads a score of the due index, as Redis prints it.
func parseDue(s string) (int64, error) {
	if s == "" {
		return Never, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.Abs(v) > 1<<53 {
		return 0, fmt.Errorf("due time %q is not a time", s)
	}
	if v > maxDue {
		return Never, nil // of another level
	}
	return int64(v), nil
}
