package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/stormbell/stormbell/services/internal/follow"
)

// Config says where Redis is.
type Config struct {
	// Addrs are host:port: a server, or nodes of a Redis Cluster, of which one is
	// enough to find the others.
	Addrs []string
	// Username and Password belong to an ACL user; without a Username the
	// password is the default user's.
	Username, Password string
	// TLS encrypts connections and verifies the server.
	TLS bool
	// CAFile holds the PEM certificates to trust instead of the system's.
	CAFile string
	// PasswordFile holds the password in place of Password.
	PasswordFile string
	// Files has CAFile and PasswordFile followed; nil reads them once.
	Files *follow.Watch
	// Timeout bounds one call, connecting included.
	Timeout time.Duration
	// Prefix begins every key. It must not contain braces.
	Prefix string
}

// DefaultConfig returns a Redis on this machine.
func DefaultConfig() Config {
	return Config{Addrs: []string{"127.0.0.1:6379"}, Timeout: 5 * time.Second, Prefix: "sb"}
}

// Validate reports the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case len(c.Addrs) == 0 || slices.Contains(c.Addrs, ""):
		return errors.New("redis: no address: set redis.addrs to host:port")
	case c.Timeout <= 0:
		return fmt.Errorf("redis: timeout of %s: use more than 0", c.Timeout)
	case c.Prefix == "" || strings.ContainsAny(c.Prefix, "{}"):
		return fmt.Errorf("redis: prefix %q: use a short name without braces", c.Prefix)
	case c.CAFile != "" && !c.TLS:
		return errors.New("redis: ca_file without tls: set tls, or remove ca_file")
	}
	return nil
}

// LogValue shows the settings without the password.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("addrs", c.Addrs), slog.String("username", c.Username), slog.Bool("tls", c.TLS))
}

// ErrNoAnswer is returned by Connect where there is no server, or not yet.
var ErrNoAnswer = errors.New("does not answer")

// OpenRedis returns a store behind a client that Connect made.
func OpenRedis(ctx context.Context, cfg Config, log *slog.Logger) (*Redis, error) {
	client, err := Connect(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	return NewRedis(client, cfg.Prefix), nil
}

// Connect connects, to a cluster as to one server, and checks that each server
// is new enough and never evicts keys. It reports what would survive a restart
// of the server. An error names the server and the setting to change. The caller
// closes the client.
func Connect(ctx context.Context, cfg Config, log *slog.Logger) (redis.UniversalClient, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	opts := &redis.UniversalOptions{
		Addrs:       cfg.Addrs,
		DialTimeout: cfg.Timeout, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout,
		// Deadlines of contexts reach the socket only with this.
		ContextTimeoutEnabled: true,
		// A call whose reply was lost is repeated: Commit recognises it.
		MaxRetries: 3, MinRetryBackoff: 10 * time.Millisecond, MaxRetryBackoff: 250 * time.Millisecond,
		DisableIdentity: true,
	}
	if err := secure(cfg, opts); err != nil {
		return nil, err
	}
	redis.SetLogger(clientLog{log}) // it has one for all clients, and writes lines of its own form without
	if len(cfg.Addrs) == 1 {
		client := redis.NewUniversalClient(opts)
		s := &server{addr: cfg.Addrs[0]}
		s.ask(ctx, client, cfg)
		if s.err != nil || s.info["redis_mode"] != "cluster" {
			return closedUnless(client, accept([]*server{s}, cfg, log))
		}
		if err := client.Close(); err != nil {
			return nil, fmt.Errorf("redis at %s: %w", s.addr, err)
		}
	}
	opts.IsClusterMode = true
	client := redis.NewClusterClient(opts.Cluster())
	return closedUnless(client, checkCluster(ctx, client, cfg, log))
}

func closedUnless(client redis.UniversalClient, err error) (redis.UniversalClient, error) {
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

// clientLog takes what the client says of its connections.
type clientLog struct{ log *slog.Logger }

// Printf implements the client's logger.
func (l clientLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.WarnContext(ctx, "redis client", "said", fmt.Sprintf(format, args...))
}

// Ping asks whether the server answers: of a cluster, each that holds keys.
func Ping(ctx context.Context, client interface {
	Ping(ctx context.Context) *redis.StatusCmd
},
) error {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		if err := client.Ping(ctx).Err(); err != nil {
			return fmt.Errorf("redis: %w", err)
		}
		return nil
	}
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		if err := node.Ping(ctx).Err(); err != nil {
			return fmt.Errorf("redis at %s: %w", node.Options().Addr, err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("redis cluster: %w", err)
	}
	return nil
}

const minRedisMajor = 7

// server is what one says of itself.
type server struct {
	addr    string
	replica bool
	info    map[string]string
	err     error
}

// asker is a server, or any of several.
type asker interface {
	Info(ctx context.Context, sections ...string) *redis.StringCmd
}

func (s *server) ask(ctx context.Context, client asker, cfg Config) {
	text, err := client.Info(ctx).Result()
	s.info, s.err = parseInfo(text), explain(err, s.addr, cfg)
}

// explain says of an error what to change.
func explain(err error, where string, cfg Config) error {
	switch {
	case err == nil:
		return nil
	case isAuth(err):
		return fmt.Errorf("redis at %s refuses the credentials of user %q: check redis.username and redis.password", where, cmpOr(cfg.Username, "default"))
	case strings.HasPrefix(err.Error(), "NOPERM"):
		return fmt.Errorf("redis at %s: user %q lacks rights: give it the commands that docs/operations.md lists, on keys ~{%s:*: %w", where, cfg.Username, cfg.Prefix, err)
	case strings.Contains(err.Error(), "cluster support disabled"):
		return fmt.Errorf("redis at %s is no cluster: name one server in redis.addrs, or nodes of one cluster", where)
	}
	return fmt.Errorf("redis at %s %w: check redis.addrs and redis.tls: %w", where, ErrNoAnswer, err)
}

// check reports what of a server cannot work.
func (s *server) check() error {
	if s.err != nil {
		return s.err
	}
	major, _, _ := strings.Cut(s.info["redis_version"], ".")
	if n, err := strconv.Atoi(major); err != nil || n < minRedisMajor {
		return fmt.Errorf("redis at %s is version %q: use %d or newer", s.addr, s.info["redis_version"], minRedisMajor)
	}
	if policy := s.info["maxmemory_policy"]; policy != "noeviction" {
		return fmt.Errorf("redis at %s has maxmemory-policy %q, which drops open windows: set it to noeviction", s.addr, policy)
	}
	return nil
}

// checkCluster checks each server that holds keys, or would after a failover.
func checkCluster(ctx context.Context, cluster *redis.ClusterClient, cfg Config, log *slog.Logger) error {
	var mu sync.Mutex
	var servers []*server
	look := func(replica bool) func(context.Context, *redis.Client) error {
		return func(ctx context.Context, node *redis.Client) error {
			s := &server{addr: node.Options().Addr, replica: replica}
			if replica { // one that does not answer is not waited for
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, cfg.Timeout)
				defer cancel()
			}
			s.ask(ctx, node, cfg)
			mu.Lock()
			defer mu.Unlock()
			servers = append(servers, s)
			return nil
		}
	}
	where := strings.Join(cfg.Addrs, ",")
	if err := cluster.ForEachMaster(ctx, look(false)); err != nil {
		return explain(err, where, cfg)
	}
	if err := cluster.ForEachSlave(ctx, look(true)); err != nil {
		return explain(err, where, cfg)
	}
	if len(servers) == 0 {
		return fmt.Errorf("redis at %s %w: it is a cluster in which no server holds slots", where, ErrNoAnswer)
	}
	slices.SortFunc(servers, func(a, b *server) int { return strings.Compare(a.addr, b.addr) })
	return accept(servers, cfg, log)
}

// accept returns the first error that waiting does not mend, or one that it may.
// A replica that does not answer is none: it holds up nothing.
func accept(servers []*server, cfg Config, log *slog.Logger) error {
	var wait error
	for _, s := range servers {
		switch err := s.check(); {
		case err == nil:
		case !errors.Is(err, ErrNoAnswer):
			return err
		case s.replica:
			log.Warn("a replica of redis could not be asked for its version and maxmemory-policy", "addr", s.addr, "error", err)
		case wait == nil:
			wait = err
		}
	}
	if wait != nil {
		return wait
	}
	persists := true
	for _, s := range servers {
		if s.err != nil || s.replica {
			continue
		}
		aof := s.info["aof_enabled"] == "1"
		persists = persists && aof
		log.Info("redis is ready", "redis", cfg, "addr", s.addr, "version", s.info["redis_version"], "appendonly", aof,
			"last_snapshot", s.info["rdb_last_save_time"], "maxmemory", s.info["maxmemory"])
	}
	if !persists {
		log.Warn("redis does not persist with appendonly: its restart causes a rebuild from the log")
	}
	return nil
}

func isAuth(err error) bool {
	msg := err.Error()
	return strings.Contains(msg, "WRONGPASS") || strings.Contains(msg, "NOAUTH") || strings.Contains(msg, "invalid username-password")
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func parseInfo(text string) map[string]string {
	info := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}
