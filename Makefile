# Everything here needs Go, make and gcc (for the race detector); the tests need Chromium too, which make test installs
# if it can. The linters are Go tools of this module, pinned by go.mod and go.sum.

GO      ?= go
VERSION ?=
# Time for each fuzz target and how many at a time, and flags for the benchmark and for the fault tests, such as -only=kill,power.
FUZZTIME   ?= 20s
JOBS       ?= 1
BENCHFLAGS ?=
FAULTFLAGS ?=

# Where make release puts its files, and what it builds. Windows is not among them: locks and sockets are those of Unix.
OUT       ?= build/release
PLATFORMS ?= linux/amd64 linux/arm64 linux/arm/v7 darwin/amd64 darwin/arm64

LDFLAGS := -s -w $(if $(VERSION),-X main.buildVersion=$(VERSION))

# The packages whose tests take longest begin first, so that none of them is left to run alone at the end.
LONGEST := ./store/badgerstore ./cmd/postern-faults ./relay/admin/dashboard ./cmd/postern

.DEFAULT_GOAL := help
.PHONY: help test chromium dashboard screenshots test-npm lint fmt tidy build release test-release interpreters bench test-faults faulttools schema fuzz clean

help: ## list what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

test: chromium interpreters ## all tests, with the race detector; the browser tests need Chromium, those of the examples some interpreters
	@# What could not be installed is named: its programs are not run, and the tests fail for anything else that is missing.
	POSTERN_WITHOUT=$$(for i in python3 node ruby; do command -v $$i >/dev/null || printf '%s,' $$i; done) \
		$(GO) test -race -timeout 20m $(LONGEST) ./...

interpreters: ## install Python, Node and Ruby by apt-get, for the tests of examples/clients, where they are missing
	@for i in python3:python3 node:nodejs ruby:ruby; do \
		command -v $${i%%:*} >/dev/null && continue; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $${i#*:}; } || \
		echo "== $${i%%:*} is not installed: examples/clients is NOT run with it; as root: apt-get install $${i#*:}"; \
	done

chromium: ## install Chromium by apt-get, for the browser tests, if there is none
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-roboto-unhinted fonts-liberation; } || \
		{ echo "the tests need Chromium; as root: apt-get install chromium"; exit 1; }

dashboard: ## build the dashboard anew from relay/admin/dashboard/ui; needs node and npm
	cd relay/admin/dashboard/ui && npm ci --ignore-scripts --no-audit --no-fund && npm run --silent check && npm run --silent build

screenshots: chromium ## write each page of the dashboard, in light and dark, to build/screenshots
	rm -rf build/screenshots
	POSTERN_SCREENSHOTS=$(CURDIR)/build/screenshots $(GO) test -count=1 -run '^TestPages$$' ./relay/admin/dashboard

test-npm: ## our signatures and JSONPath against what Node has, the dashboard's build against its source; needs node and npm
	$(GO) test -tags npm -run '^TestNPM' -count=1 ./relay/sign ./relay/match ./relay/admin/dashboard

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

release: ## for each of PLATFORMS the static binary and its SBOM (CycloneDX), with checksums, in OUT=build/release; needs VERSION=1.2.3
	@test -n "$(VERSION)" || { echo "say which release: make release VERSION=1.2.3"; exit 1; }
	@mkdir -p "$(OUT)" && rm -f "$(OUT)"/postern_* "$(OUT)"/SHA256SUMS
	@set -e; for platform in $(PLATFORMS); do \
		os=$${platform%%/*}; arch=$${platform#*/}; arm=; \
		case $$arch in */v*) arm=$${arch##*/v}; arch=$${arch%%/*};; esac; \
		name=postern_$(VERSION)_$${os}_$$arch$${arm:+v$$arm}; \
		echo "$$name"; \
		CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch GOARM=$$arm \
			$(GO) build -trimpath -buildvcs=auto -ldflags '$(LDFLAGS)' -o "$(OUT)/$$name" ./cmd/postern; \
		$(GO) run ./cmd/postern-sbom -version $(VERSION) "$(OUT)/$$name" > "$(OUT)/$$name.cdx.json"; \
	done
	@cd "$(OUT)" && { command -v sha256sum >/dev/null && sha256sum postern_* || shasum -a 256 postern_*; } > SHA256SUMS

test-release: ## what make release and the Dockerfile make: reproducible, static, at home in a read-only root; needs root
	$(GO) test -tags release -run '^TestRelease' -count=1 -v -timeout 40m .

bench: ## all figures beside their bounds, which takes 45 minutes and 20 GB of disk; needs root; BENCHFLAGS='-only accepts,drain -quick' for less
	$(GO) run ./cmd/postern-bench $(BENCHFLAGS)
	$(GO) test ./store/badgerstore -run '^$$' -bench '^BenchmarkDeliveries$$' -benchtime 100x -timeout 30m

test-faults: faulttools ## the fault tests in full, and a table of what was run; takes hours, needs root; FAULTFLAGS='-only=kill,power -fuzztime=10m'
	$(GO) run ./cmd/postern-faults $(FAULTFLAGS)

faulttools: ## install strace, xfsprogs and e2fsprogs by apt-get, for the fault tests, where they are missing
	@for i in strace:strace mkfs.xfs:xfsprogs mkfs.ext4:e2fsprogs; do \
		PATH="$$PATH:/usr/sbin:/sbin" command -v $${i%%:*} >/dev/null && continue; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $${i#*:}; } || \
		{ echo "the fault tests need $${i%%:*}; as root: apt-get install $${i#*:}"; exit 1; }; \
	done

schema: ## write the JSON Schema of the config anew
	$(GO) test ./config -run Schema -count=1 -args -update

fuzz: ## each fuzz target for FUZZTIME=20s, JOBS=1 of them at a time, and a line for each
	$(GO) run ./cmd/postern-faults -only fuzz -run '^$$' -fuzztime $(FUZZTIME) -jobs $(JOBS)

clean: ## remove what was made here
	rm -rf bin build relay/admin/dashboard/ui/node_modules
