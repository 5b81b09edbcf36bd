// Command kafka starts a real Apache Kafka and stops it when interrupted.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/stormbell/stormbell/tools/kafka"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kafka:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var opts kafka.Options
	flag.IntVar(&opts.Nodes, "nodes", 1, "1 or 3")
	flag.IntVar(&opts.Port, "port", 0, "port on loopback of the one node (default: a free one)")
	flag.StringVar(&opts.Dir, "dir", "", "data directory (default: a temporary one)")
	fetch := flag.Bool("fetch", false, "fetch what is needed and exit")
	flag.Parse()
	if *fetch {
		_, err := kafka.Fetch(ctx)
		return err
	}
	c, err := kafka.Start(ctx, opts)
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(c.Brokers(), ","))
	<-ctx.Done()
	return c.Stop()
}
