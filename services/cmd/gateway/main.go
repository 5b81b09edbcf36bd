// Command gateway is Stormbell's gateway for a cluster on Kafka.
package main

import (
	"os"

	"github.com/stormbell/stormbell/services/cmd/internal/gatewayproc"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
)

func main() { os.Exit(process.Main(gatewayproc.Program())) }
