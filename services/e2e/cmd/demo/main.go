// Command demo shows a whole Stormbell at work; `make demo` builds and runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/stormbell/stormbell/services/e2e/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var opts demo.Options
	var rules string
	var began int64
	flag.StringVar(&opts.Bin, "bin", "bin", "directory of Stormbell's programs")
	flag.StringVar(&opts.Rules, "pack", "services/rules", "directory of the rules that Stormbell brings")
	flag.StringVar(&rules, "rules", "", "directory of rules to use in their place")
	flag.StringVar(&opts.Data, "data", "", "folder of CloudTrail files to play instead of the story")
	flag.BoolVar(&opts.Cluster, "cluster", false, "play on a real Kafka and a real Redis")
	flag.Int64Var(&began, "began", time.Now().Unix(), "when the command was typed, in Unix seconds")
	flag.Parse()
	demo.Forget()
	opts.Began, opts.Shipped = time.Unix(began, 0), rules == ""
	if !opts.Shipped {
		opts.Rules = rules
	}
	if err := demo.Run(ctx, opts, os.Stdout, demo.Colourful(os.Stdout, os.Getenv)); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stopped above
	}
}
