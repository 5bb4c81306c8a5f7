# Everything here needs Go, make and gcc (for the race detector), and nothing else: the linters are Go tools of this
# module, pinned by go.mod and go.sum.

GO      ?= go
VERSION ?=
# Rounds of the long crash test, seconds for each fuzz target, and flags for the benchmark.
ROUNDS     ?= 60
FUZZTIME   ?= 20s
BENCHFLAGS ?=

LDFLAGS := -s -w $(if $(VERSION),-X main.buildVersion=$(VERSION))

.DEFAULT_GOAL := help
.PHONY: help test test-npm lint fmt tidy build bench test-crash schema fuzz clean

help: ## list what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

test: ## all tests, with the race detector
	$(GO) test -race -timeout 10m ./...

test-npm: ## our signatures against verifiers written for Node, our JSONPath against the public suite; needs node and npm
	$(GO) test -tags npm -run '^TestNPM' -count=1 ./relay/sign ./relay/match

lint: ## gofmt, go vet, staticcheck, and nothing of the testing package in the program
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "not formatted by gofmt:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@if $(GO) list -deps ./cmd/postern | grep -x testing; then echo "cmd/postern links the testing package"; exit 1; fi

fmt: ## format the source
	gofmt -w .

tidy: ## bring go.mod and go.sum up to date
	$(GO) mod tidy

build: ## the static binary, bin/postern; VERSION=1.2.3 stamps a release
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '$(LDFLAGS)' -o bin/postern ./cmd/postern

bench: ## figures beside their bounds; binds port 443 of a loopback address
	$(GO) run ./cmd/postern-bench $(BENCHFLAGS)

test-crash: build ## the crash test with the real binary, ROUNDS=60 times kill -9; binds port 443 of a loopback address
	CRASH_ROUNDS=$(ROUNDS) CRASH_BINARY=$(CURDIR)/bin/postern $(GO) test ./cmd/postern -run '^TestCrash$$' -count=1 -v -timeout 30m

schema: ## write the JSON Schema of the config anew
	$(GO) test ./config -run Schema -count=1 -args -update

fuzz: ## each fuzz target for FUZZTIME=20s
	@set -e; for pkg in $$($(GO) list ./...); do \
		listed=$$($(GO) test -list '^Fuzz' $$pkg); \
		for target in $$(echo "$$listed" | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

clean: ## remove what make build made
	rm -rf bin
