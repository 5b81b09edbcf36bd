module github.com/stormbell/stormbell/tools

go 1.26.0

require github.com/stormbell/stormbell/proto v0.0.0

require (
	github.com/gofrs/flock v0.13.2 // indirect
	github.com/klauspost/compress v1.15.9 // indirect
	github.com/pierrec/lz4/v4 v4.1.15 // indirect
	github.com/segmentio/kafka-go v0.4.51 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	golang.org/x/sync v0.25.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/stormbell/stormbell/proto => ../proto
