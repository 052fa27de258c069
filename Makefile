# Runnerward. `make demo` runs it, `make test` tests it; both need Go only.
export GOTOOLCHAIN := local
# The same flags for building, vetting and testing share one build cache.
export GOFLAGS := $(GOFLAGS) -trimpath -buildvcs=false
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
BINARIES := runnerward runnerward-agent runnerward-demo

# What test/kube/build.sh linked; its tests are skipped without the folder.
KUBE_BIN := $(CURDIR)/bin/kube

.PHONY: help build build-fips test test-fips test-faults test-s3 test-aws-live test-api test-node test-kind kind-image test-all race fuzz bench demo verify lint clean

help: ## show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 10

build: ## build the binaries into bin/
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./cmd/,$(BINARIES))

# The frozen module that Go's makers had validated; GOROOT/lib/fips140 has it.
FIPS_MODULE := v1.0.0

build-fips: ## build the binaries with Go's validated FIPS 140-3 module into bin/fips/
	@mkdir -p bin/fips
	GOFIPS140=$(FIPS_MODULE) go build -ldflags '$(LDFLAGS)' -o bin/fips/ $(addprefix ./cmd/,$(BINARIES))
	bin/fips/runnerward version | grep -qx 'FIPS 140-3 module $(FIPS_MODULE).*, on'

test-fips: ## sign, rotate and verify with the validated module, other algorithms refused
	GOFIPS140=$(FIPS_MODULE) go test -run FIPS -v ./pkg/ledger

# The longest begin first, and one of them mostly waits.
test: ## every test that needs Go only: unit, transcripts, fuzz seeds, simulators, crashes
	go test -timeout 1200s -p 3 ./test/endtoend ./test/leader ./...
	cd test/conformance/v010 && go test -timeout 120s ./...

FAULTS ?= all
test-faults: ## every fault of the simulated GitHub, a crash and a takeover, at every step of deploys (minutes; FAULTS=3/8 is a part)
	@mkdir -p bin
	@ENDTOEND_FAULTS=$(FAULTS) go test -timeout 1200s -run 'TestEveryFaultAtEveryStep|TestCrashAtEvery|TestADaemonThatIsOvertakenDoesNoHarm' -v ./test/endtoend > bin/faults.log; \
	  failed=$$?; grep -v '^=== \|--- PASS' bin/faults.log; exit $$failed

test-s3: ## the ledger against a whole S3 server with Object Lock, and a benchmark (the server is built first: minutes)
	cd test/s3 && go vet ./... && go mod tidy -diff
	cd test/s3 && go test -timeout 1200s ./... && go test -run '^$$' -bench . -benchtime 50x ./...


test-node: build ## the agent and the daemon with real kubelets: jobs, refusals, kills, lost hosts (Linux, root; minutes the first time)
	test/kube/build.sh node
	cd test/kube/tools && go vet ./mkimage && go test ./mkimage
	go test -c -o $(KUBE_BIN)/node.test ./test/kube/node
	cd test/kube/node && RUNNERWARD_KUBE=$(KUBE_BIN) RUNNERWARD_KEEP=$(KUBE_BIN)/node-logs ../sandbox.sh $(KUBE_BIN)/node.test -test.v -test.timeout 15m

test-aws-live: ## real AWS, in a sandbox account of yours: a dry run unless you say otherwise (docs/aws-live.md)
	go test -count=1 -v -timeout 3h ./test/awslive -run Live

test-api: ## the chart, its rights, tokens and 500 hosts against a real API server (built from source first; docs/testing.md)
	test/kube/build.sh api
	PATH=$(KUBE_BIN):$$PATH go test ./helm
	go test -c -o $(KUBE_BIN)/api.test ./test/kube/api
	test/kube/api/run.sh $(KUBE_BIN)

kind-image: ## the node image of test-kind, made from source and Debian packages, and how long that took (Linux, root)
	@began=$$(date +%s); test/kube/build.sh kind && \
	  ls -lL $(KUBE_BIN)/node.tar.zst && echo "$$(($$(date +%s) - began)) s"

test-kind: ## the chart in a kind cluster: install, deploys, refusals, eviction, lost host, upgrade, uninstall (Linux, root; KIND_IMAGE takes yours and docker)
	test/kube/build.sh kind
	cd test/kube/tools && go vet ./runc-clamp && go test ./runc-clamp
	test/kube/kind/run.sh

test-all: test ## every tier: test, then test-api, test-node and test-kind side by side, each timed (Linux, root; docs/testing.md)
	test/kube/all.sh

race: ## the same under the race detector (slower)
	go test -race -timeout 900s ./...

fuzz: ## each fuzz target for FUZZTIME (default 20s)
	@for p in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(or $(FUZZTIME),20s) $$p || exit 1; done; done

bench: ## benchmarks
	go test -run '^$$' -bench . -benchmem ./pkg/ledger ./pkg/evidence ./pkg/policy ./pkg/supervisor

demo: build ## run one deploy after another against simulators on loopback, then verify the evidence
	bin/runnerward-demo

verify: ## formatting, vet, tidy go.mod
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	go mod tidy -diff
	cd test/conformance/v010 && go vet ./... && go mod tidy -diff
	cd test/kube/tools && go vet ./... && go mod tidy -diff

lint: verify

clean: ## remove what was built
	rm -rf bin
