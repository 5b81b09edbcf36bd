module github.com/stormbell/stormbell/services/e2e

go 1.26

replace (
	github.com/stormbell/stormbell/proto => ../../proto
	github.com/stormbell/stormbell/services => ../
	github.com/stormbell/stormbell/tools => ../../tools
)
