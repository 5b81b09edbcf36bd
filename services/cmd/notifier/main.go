// Command notifier is Stormbell's notifier for a cluster on Kafka and Redis.
package main

import (
	"os"

	"github.com/stormbell/stormbell/services/cmd/internal/notifierproc"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
)

func main() { os.Exit(process.Main(notifierproc.Program())) }
