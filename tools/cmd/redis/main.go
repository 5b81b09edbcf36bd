// Command redis starts a real redis-server and stops it when interrupted.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/stormbell/stormbell/tools/redis"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "redis:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opts := redis.Options{AppendOnly: true}
	flag.StringVar(&opts.Dir, "dir", "", "data directory (default: a temporary one)")
	flag.IntVar(&opts.Port, "port", 0, "port on loopback (default: a free one)")
	flag.StringVar(&opts.Fsync, "fsync", "everysec", "always, everysec or no")
	flag.Parse()
	s, err := redis.Start(ctx, opts)
	if err != nil {
		return err
	}
	fmt.Println(s.Addr())
	<-ctx.Done()
	return s.Stop()
}
