# All that continuous integration does is a target here and runs on a laptop with
# Go, make and a shell. `make help` lists the targets.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# The modules of the workspace, in the order of their dependence.
MODULES := proto services tools services/e2e

# Tools are pinned in tools/pins, a module of its own outside the workspace, and
# compiled into .bin by the first target that needs them.
BIN := $(CURDIR)/.bin

# Where Python keeps the engine that Sigma matching is compared with.
ORACLE := $(BIN)/oracle

# The race detector needs a C compiler; make setup says so where there is none.
RACE = $$(command -v gcc >/dev/null 2>&1 && echo -race)

# What `make generate` writes; nothing else may differ after it.
GENERATED := ':(glob)proto/**/*.pb.go' docs/reference deployments/prometheus deployments/grafana/dashboards \
	deployments/kubernetes/components/monitoring/prometheusrule.yaml

# Settings of single targets, for the command line.
FUZZTIME ?= 30s
BENCH ?= .
COUNT ?= 1
BASE ?= main
TILT ?= tilt
VULNDB ?=
REGISTRY ?= stormbell
TAG ?= dev
PLATFORMS ?= linux/amd64,linux/arm64
PROGRAMS ?=
DOCKER ?= docker
TEST_TIMEOUT ?= 20m
MODEL_DEPTH ?= 8
MODEL_CHECKS ?= 20000
EVENTS ?= 100000

##@ Run

# DATA is a folder of CloudTrail files to play instead of the story.
DEMO = began=$$(date +%s); tools/demo/build.sh $(CURDIR)/bin $(1) && exec ./bin/demo -began $$began $(if $(DATA),-data '$(DATA)') $(ARGS)

.PHONY: demo
demo: ## build, play a story that ends in verified alerts, show how they came; DATA=DIR plays your CloudTrail files
	@$(call DEMO,./cmd/stormbell)

.PHONY: demo-cluster
demo-cluster: setup ## the same on a real Kafka and a real Redis, with a process for each service
	@$(call DEMO,./cmd/...) -cluster

.PHONY: build
build: ## compile all programs into ./bin
	@mkdir -p bin
	GOWORK=off go -C services build -o $(CURDIR)/bin/ ./cmd/...

.PHONY: up
up: build ## build and serve everything in one process on the embedded default
	./bin/stormbell up $(ARGS)

##@ Deploy

# Images say which commit they are of, and are of its time: made again they have
# the same digest. PROGRAMS and PLATFORMS make some of them, which is faster.
IMAGES_OUT = deployments/docker/out
IMAGES = go run ./tools/cmd/images -out $(IMAGES_OUT) -registry '$(REGISTRY)' -tag '$(TAG)' -platforms '$(PLATFORMS)' \
	-version "$$(git describe --tags --match 'v[0-9]*' --always --dirty --abbrev=12 2>/dev/null || echo devel)" \
	-revision "$$(git rev-parse HEAD 2>/dev/null)" -created "$$(git log -1 --format=%ct 2>/dev/null || echo 0)"

.PHONY: images
images: ## make the container images REGISTRY/NAME:TAG without a container engine; PROGRAMS, PLATFORMS
	@$(IMAGES) $(PROGRAMS)

.PHONY: images-push
images-push: ## the same, and push them to REGISTRY
	@$(IMAGES) -push $(PROGRAMS)

.PHONY: images-load
images-load: PLATFORMS = linux/$(shell go env GOARCH)
images-load: images ## the same for this machine alone, and load them into DOCKER
	@for file in $(if $(PROGRAMS),$(PROGRAMS:%=$(IMAGES_OUT)/%-$(PLATFORMS:linux/%=%).tar),$(IMAGES_OUT)/*-$(PLATFORMS:linux/%=%).tar); do \
		$(DOCKER) load -q -i $$file || exit 1; done

##@ Test

.PHONY: setup
setup: ## install what the tests need, or say what is missing
	@tools/setup/setup.sh
	@if command -v java >/dev/null 2>&1 && command -v mvn >/dev/null 2>&1; then \
		go run ./tools/cmd/kafka -fetch || [ "$$STORMBELL_REQUIRE_REAL" != 1 ]; fi
	@if python3 -c 'import ensurepip' >/dev/null 2>&1; then \
		$(MAKE) --no-print-directory $(ORACLE)/ready || [ "$$STORMBELL_REQUIRE_REAL" != 1 ]; fi

# Services are tested as they ship, without the workspace, and once more as they
# are developed. The workspace may pick other versions of libraries, which is
# what the second run is for; it leaves out the long tests, which have had their
# turn. All runs have the race detector: then most is compiled once. Scenarios
# wait more than they work, so that others are tested beside them.
.PHONY: test
test: setup test-alone test-work ## set up and run every test, on both runners

.PHONY: test-alone
test-alone: ## test the services as they ship, without the workspace
	GOWORK=off go -C services test $(RACE) -timeout $(TEST_TIMEOUT) ./...

.PHONY: test-work
test-work: ## test the other modules in the workspace, and type-check the services with the versions it chooses
	go test $(RACE) -timeout $(TEST_TIMEOUT) ./services/e2e/... ./proto/... ./tools/...
	go vet ./services/...

.PHONY: test-cluster
test-cluster: setup ## run the end-to-end scenarios on real Kafka and Redis only
	STORMBELL_REQUIRE_REAL=1 STORMBELL_RUNNERS=cluster go test $(RACE) -count=1 -timeout $(TEST_TIMEOUT) ./services/e2e/...

.PHONY: test-crash
test-crash: setup ## run the crash scenario at its full size on both runners
	STORMBELL_CRASH=full go test -count=1 -timeout 60m -v -run '/^Crash$$' ./services/e2e

# FAULT names one row of the table.
.PHONY: faults
faults: setup ## bear every fault in full on both runners and print a table; FAULT=name runs one
	STORMBELL_FAULTS=full STORMBELL_FAULT=$(FAULT) STORMBELL_REQUIRE_REAL=1 \
		go test -count=1 -timeout 12h -v -run '^TestFaults$$' ./services/e2e

# PREVIOUS is the version before: the last tag, or, as long as there is none, the
# commit of main that formats must stay compatible with.
PREVIOUS ?= $(or $(shell git describe --tags --abbrev=0 --match 'v[0-9]*' HEAD^ 2>/dev/null),a15b751fab7f)
DAYTWO ?= keys,restore,upgrade,brokers

.PHONY: test-daytwo
test-daytwo: setup ## upgrade and downgrade (PREVIOUS), replace brokers, rotate keys, restore, under load; DAYTWO=name runs one
	STORMBELL_DAYTWO='$(DAYTWO)' STORMBELL_PREVIOUS='$(PREVIOUS)' STORMBELL_REQUIRE_REAL=1 \
		go test -count=1 -v -timeout 60m -run '^TestDayTwo$$' ./services/e2e

.PHONY: model
model: ## try a million schedules of the correlate protocol, MODEL_CHECKS (20000) drawn ones, and 100,000 groups that one tick decides
	GOGC=1000 STORMBELL_MODEL_DEPTH=$(MODEL_DEPTH) GOWORK=off go -C services test -count=1 -v -timeout 8h -run '^TestEverySchedule' ./correlator/
	[ '$(MODEL_CHECKS)' = 0 ] || GOWORK=off go -C services test -count=1 -v -timeout 8h -run '^TestModel' ./correlator/ -rapid.checks=$(MODEL_CHECKS)
	[ '$(MODEL_CHECKS)' = 0 ] || STORMBELL_MODEL_GROUPS=100000 GOWORK=off go -C services test -count=1 -v -timeout 1h -run '^TestOneTick' ./correlator/

# KUBECONFIG names the cluster; its nodes pull REGISTRY/NAME:TAG, or have them.
.PHONY: test-kubernetes
test-kubernetes: ## run the dev overlay on the cluster of KUBECONFIG, with images of REGISTRY and TAG, and do to it what clusters do
	STORMBELL_KUBERNETES='$(REGISTRY)' STORMBELL_KUBERNETES_TAG='$(TAG)' \
		go test -count=1 -v -timeout 90m -run '^TestKubernetes$$' ./services/e2e

.PHONY: test-readme
test-readme: ## type what README.md and the guides say, compare what comes out
	go test -count=1 -timeout $(TEST_TIMEOUT) ./tools/readme

# On Prometheus' own engine, from a module of its own: nothing else needs it.
.PHONY: test-rules
test-rules: ## run the unit tests of alert rules, parse what dashboards ask
	GOWORK=off go -C tools/promrules test ./...

# A module of its own too, and not part of .ci/run: what it needs of Kubernetes
# takes minutes to compile.
.PHONY: kube-score
kube-score: ## have kube-score judge what deployments/kubernetes renders to; criticals fail, waivers are in tools/kubescore
	GOWORK=off go -C tools/kubescore test -count=1 ./...

.PHONY: test-images
test-images: ## make all images twice, compare digests, run them where a Docker daemon answers
	STORMBELL_IMAGES=1 go test -count=1 -v -timeout 60m -run "^TestStormbell$$" ./tools/images

.PHONY: test-compose
test-compose: ## start deployments/compose with Docker and play the journey; KAFKA_IMAGE, REDIS_IMAGE
	STORMBELL_COMPOSE=1 go test -count=1 -v -timeout 60m -run '^TestUp' ./tools/compose

# The cluster of KUBECONFIG is used if a registry is named on the command line.
TILT_REGISTRY = $(if $(filter command line environment,$(origin REGISTRY)),$(REGISTRY))

.PHONY: test-tilt
test-tilt: ## run `tilt ci` in both modes with the Tilt that TILT names; KUBECONFIG and REGISTRY: in a cluster too
	@if command -v $(TILT) >/dev/null 2>&1; then \
		STORMBELL_TILT=$(TILT) STORMBELL_TILT_REGISTRY='$(TILT_REGISTRY)' go test -count=1 -v -timeout 60m -run '^TestTilt' ./tools/tiltfile; \
	else echo "test-tilt: skipped, $(TILT) is not installed (https://docs.tilt.dev/install.html, or TILT=FILE)"; fi

.PHONY: test-short
test-short: ## run the tests that take milliseconds
	go test -short $(MODULES:%=./%/...)

# pySigma runs the same rules in SQLite: an engine that shares nothing with ours.
$(ORACLE)/ready: services/sigma/oracle/requirements.txt
	python3 -m venv $(ORACLE)
	$(ORACLE)/bin/pip install -q --disable-pip-version-check -r $<
	@touch $@

.PHONY: test-oracle
test-oracle: $(ORACLE)/ready ## compare Sigma matching with pySigma and SQLite (needs python3)
	STORMBELL_ORACLE_PYTHON=$(ORACLE)/bin/python GOWORK=off go -C services test -count=1 -v ./sigma/oracle/

.PHONY: fuzz-short
fuzz-short: ## fuzz every decoder for FUZZTIME (30s) each
	@for module in $(MODULES); do \
		grep -rlE --include='*_test.go' '^func Fuzz' $$module | while read -r file; do \
			[ $$module = services ] && case $$file in services/e2e/*) continue ;; esac; \
			for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' $$file); do \
				echo "fuzz $$(dirname $$file) $$name"; \
				tools/fuzz/fuzz.sh ./$$(dirname $$file) $$name $(FUZZTIME) || exit 1; \
			done; \
		done || exit 1; \
	done

# Two at a time, on a processor each; the first line compiles for both.
.PHONY: fuzz-sigma
fuzz-sigma: ## fuzz parser, conditions, matcher and JSON view of Sigma for FUZZTIME each
	@GOWORK=off go -C services test -c -fuzz . -o /dev/null ./sigma
	@printf '%s\n' FuzzParse FuzzCondition FuzzMatch FuzzView | xargs -P 2 -I NAME \
		sh -c 'cd services && GOWORK=off exec ../tools/fuzz/fuzz.sh ./sigma NAME $(FUZZTIME) -parallel 1'

.PHONY: bench
bench: ## run benchmarks: BENCH is a pattern, COUNT a number of runs
	go -C services test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) ./...

.PHONY: bench-sigma
bench-sigma: ## measure Sigma matching on one core by lanes, beside rsigma (on PATH or named by RSIGMA)
	STORMBELL_BENCH_SIGMA=1 GOWORK=off go -C services test -count=1 -v -timeout 60m ./sigma/bench/
	GOWORK=off go -C services test -run '^$$' -bench '^BenchmarkEval$$' -benchtime 3x ./cmd/stormbell/

.PHONY: bench-correlation
bench-correlation: build ## measure correlations beside rsigma, and the fold on Redis; BENCH_SECONDS (10) each
	STORMBELL_BENCH_CORRELATION=$(CURDIR)/bin/stormbell GOWORK=off go -C services test -count=1 -v -timeout 60m -run '^TestBenchCorrelation$$' ./sigma/bench/
	GOWORK=off go -C services test -run '^$$' -bench '^BenchmarkFold$$' -benchtime $(or $(BENCH_SECONDS),10)s -timeout 60m ./correlator/

.PHONY: bench-compare
bench-compare: $(BIN)/benchstat ## compare two files of benchmark results, OLD and NEW
	$(BIN)/benchstat $(OLD) $(NEW)

.PHONY: bench-journey
bench-journey: ## measure the whole journey on the embedded default; BENCH_SECONDS (10) each
	go test -run '^$$' -bench '^BenchmarkJourney$$' -benchtime 1x -timeout 30m ./services/e2e/

.PHONY: bench-rebuild
bench-rebuild: ## measure how long correlators take to rebuild BENCH_DETECTIONS (1000000) after Redis has lost everything
	go test -run '^$$' -bench '^BenchmarkRebuild$$' -benchtime 3x -timeout 60m ./services/e2e/

.PHONY: bench-tilt
bench-tilt: ## measure how soon the edit of a Go file is served under `tilt up` (TILT; KUBECONFIG and REGISTRY)
	STORMBELL_TILT=$(TILT) STORMBELL_TILT_REGISTRY='$(TILT_REGISTRY)' go test -run '^$$' -bench '^BenchmarkEdit$$' -benchtime 1x -timeout 60m ./tools/tiltfile

.PHONY: bench-gateway
bench-gateway: setup ## measure the gateway against a real Kafka; BENCH_SECONDS (10)
	go test -run '^$$' -bench '^BenchmarkGateway$$' -benchtime 1x -timeout 30m ./services/e2e/

.PHONY: bench-capacity
bench-capacity: setup ## measure CPU per event, Redis per group, Kafka per record on real servers; EVENTS (100000)
	STORMBELL_DAYTWO=capacity STORMBELL_CAPACITY_EVENTS='$(EVENTS)' STORMBELL_REQUIRE_REAL=1 \
		go test -count=1 -v -timeout 60m -run '^TestDayTwo$$' ./services/e2e

##@ Check

.PHONY: lint
lint: lint-proto lint-go ## lint contracts and code

# golangci-lint knows no workspace: it runs in each module that has packages.
.PHONY: lint-go
lint-go: $(BIN)/golangci-lint
	@failed=; for module in $(MODULES); do \
		[ -n "$$(go -C $$module list ./... 2>/dev/null)" ] || continue; \
		echo "lint $$module"; \
		(cd $$module && $(BIN)/golangci-lint run ./...) || failed=1; \
	done; [ -z "$$failed" ]

.PHONY: lint-proto
lint-proto: $(BIN)/buf
	$(BIN)/buf lint

.PHONY: proto-breaking
proto-breaking: $(BIN)/buf ## compare the contracts with those on BASE (main)
	$(BIN)/buf breaking --against '.git#branch=$(BASE)'

.PHONY: verify
verify: verify-generate verify-tidy lint vuln ## check what is generated, go.mod, lint and vulnerabilities

.PHONY: verify-generate
verify-generate: generate ## fail if generated files are not what their sources make
	git diff --exit-code -- $(GENERATED)
	@new=$$(git ls-files --others --exclude-standard -- $(GENERATED)); \
		[ -z "$$new" ] || { echo "generated but not committed: $$new" >&2; exit 1; }

.PHONY: verify-tidy
verify-tidy: ## fail if a go.mod or go.sum is not tidy
	@failed=; for module in $(MODULES) tools/promrules tools/kubescore; do \
		echo "tidy $$module"; \
		GOWORK=off go -C $$module mod tidy -diff || failed=1; \
	done; [ -z "$$failed" ]

# Not part of .ci/run: it needs the vulnerability database. VULNDB names a copy,
# for instance file:///srv/vulndb.
.PHONY: vuln
vuln: $(BIN)/govulncheck ## look for known vulnerabilities in what ships
	@GOWORK=off $(BIN)/govulncheck -C services $(if $(VULNDB),-db $(VULNDB)) ./... || { code=$$?; \
		echo "vuln: failed. Findings stand above (exit 3); if the database could not be reached, name a copy with VULNDB=file:///DIR" >&2; exit $$code; }

##@ Change

.PHONY: generate
generate: $(BIN)/buf $(BIN)/protoc-gen-go ## write Go from contracts, and references from code
	$(BIN)/buf generate
	go -C services generate ./...
	go -C tools generate ./observability

.PHONY: fmt
fmt: $(BIN)/golangci-lint $(BIN)/buf ## format code and contracts
	$(BIN)/buf format --write
	@for module in $(MODULES); do (cd $$module && $(BIN)/golangci-lint fmt ./...) || exit 1; done

.PHONY: fix
fix: $(BIN)/golangci-lint ## let the linters repair what they can
	@for module in $(MODULES); do \
		[ -n "$$(go -C $$module list ./... 2>/dev/null)" ] || continue; \
		(cd $$module && $(BIN)/golangci-lint run --fix ./...); \
	done

.PHONY: clean
clean: ## remove what was built here, pinned tools included
	rm -rf bin .bin

##@ Help

.PHONY: help
help: ## show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.bin/%: $(BIN)/%
	@:

# A pinned tool is built again when its version may have changed.
define pin
$(BIN)/$(notdir $(1)): tools/pins/go.mod
	@echo "compile $(notdir $(1))"
	@GOBIN=$(BIN) GOWORK=off go -C tools/pins install $(1)
	@touch $$@
endef
$(eval $(call pin,github.com/bufbuild/buf/cmd/buf))
$(eval $(call pin,google.golang.org/protobuf/cmd/protoc-gen-go))
$(eval $(call pin,golang.org/x/vuln/cmd/govulncheck))
$(eval $(call pin,golang.org/x/perf/cmd/benchstat))
$(eval $(call pin,mvdan.cc/gofumpt))
$(eval $(call pin,github.com/golangci/golangci-lint/v2/cmd/golangci-lint))
