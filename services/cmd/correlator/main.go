// Command correlator is Stormbell's correlator for a cluster on Kafka and Redis.
package main

import (
	"os"

	"github.com/stormbell/stormbell/services/cmd/internal/correlatorproc"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
)

func main() { os.Exit(process.Main(correlatorproc.Program())) }
