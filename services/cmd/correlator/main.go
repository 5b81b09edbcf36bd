// Command correlator is Stormbell's correlator for a cluster on Kafka and Redis.
package main

import (
	"os"

	"github.com/stormbell/stormbell/services/cmd/internal/process"
)

func main() { os.Exit(process.Main("correlator", process.Correlator)) }
