// Command stormbell runs all of Stormbell in one process, and is the
// operator's tool for any Stormbell: it sends events, checks and pushes rules,
// and manages webhooks and keys over the public API. Only `up` touches data
// directly; everything else needs a key.
package main

import (
	"context"
	"os"

	"github.com/stormbell/stormbell/services/internal/run"
)

func main() {
	ctx, stop := run.Signals(context.Background())
	code := execute(ctx, systemEnv(), os.Args[1:])
	stop()
	os.Exit(code)
}
