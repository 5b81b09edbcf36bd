// Command loadgen posts CloudTrail-like events to a gateway at a fixed rate and
// prints what it measured.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/stormbell/stormbell/tools/loadgen"
)

const keyEnv = "STORMBELL_API_KEY"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var cfg loadgen.Config
	urls := flag.String("url", "http://127.0.0.1:8080", "gateways, separated by commas")
	keyFile := flag.String("key-file", "", "file that holds the API key (else "+keyEnv+")")
	seed := flag.Uint64("seed", 1, "of the events: the same seed makes the same ids")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Float64Var(&cfg.Rate, "rate", 1000, "events a second; 0 is as fast as answers come")
	flag.IntVar(&cfg.Batch, "batch", 1, "events per request")
	flag.BoolVar(&cfg.Gzip, "gzip", false, "compress bodies")
	flag.DurationVar(&cfg.Duration, "duration", 10*time.Second, "how long to send; 0 is until count")
	flag.IntVar(&cfg.Count, "count", 0, "how many events to send at most; 0 is until duration")
	flag.IntVar(&cfg.Concurrency, "concurrency", 64, "most requests under way")
	flag.BoolVar(&cfg.AllowRemote, "allow-remote", false, "permit gateways on other machines")
	flag.Parse()
	cfg.URLs, cfg.Event = strings.Split(*urls, ","), loadgen.CloudTrail(*seed)
	var err error
	if cfg.Key, err = key(*keyFile); err != nil {
		return err
	}
	result, err := loadgen.Run(ctx, cfg)
	if result == nil {
		return err
	}
	if *asJSON {
		return errors.Join(err, json.NewEncoder(os.Stdout).Encode(result.Summary()))
	}
	fmt.Print(result.Summary())
	return err
}

// key is never an argument: others on the machine see those.
func key(path string) (string, error) {
	if path == "" {
		if k := strings.TrimSpace(os.Getenv(keyEnv)); k != "" {
			return k, nil
		}
		return "", errors.New("no API key: use --key-file or " + keyEnv)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read API key: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
