# Everything a newcomer needs: `make demo` and `make test`. `make help` lists the rest.

GO      ?= go
BIN     := bin/sealdesk
GOFLAGS += -buildvcs=false
export GOFLAGS

# The console's pages are embedded in the binary. Both stamps are files that the step itself writes, so a second make does nothing.
PAGES   := internal/console/dist/index.html
MODULES := console/node_modules/.package-lock.json

.PHONY: help build console demo test test-etcd interop check e2e image prerequisites docs fuzz soak clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: console ## build bin/sealdesk
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '-s -w' -o $(BIN) ./cmd/sealdesk

console: $(PAGES) ## build the pages of the management console and the portal

$(MODULES): console/package-lock.json console/package.json
	@command -v npm >/dev/null || { echo "the console needs Node.js 20 or newer, with npm (Debian 12: https://nodejs.org)" >&2; exit 1; }
	cd console && npm ci
	@touch $@

$(PAGES): $(MODULES) $(wildcard console/*.html console/*.ts console/*.json) $(shell find console/src console/public -type f)
	cd console && npm run build

prerequisites: ## install the Debian packages that running and testing need
	@scripts/prerequisites

image: prerequisites ## build the desktop image (cached)
	@images/build-desktop

demo: prerequisites build image ## the whole of MISSION: a launch to a desktop on screen, nine steps, termination
	@scripts/demo

interop: prerequisites ## the key service under the AWS CLI, boto3, the AWS SDK for JavaScript, the AWS Encryption SDK and sops; all of it under Terraform where that is installed
	@scripts/interop-clients
	$(GO) test -count=1 -v ./interop/clients

test: prerequisites build ## all tests but those that boot a desktop
	@scripts/interop-clients js
	@scripts/test

test-etcd: ## the suites of the state, the path and KMS on an external etcd whose members are killed
	@scripts/test --etcd

e2e: prerequisites build image ## the end-to-end tests with a real QEMU boot
	@scripts/test --e2e

check: console ## vet, staticcheck, govulncheck, race tests
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...
	$(GO) test -race -short ./...

docs: console ## regenerate docs/operations.md
	$(GO) run ./internal/app/gendocs > docs/operations.md

fuzz: console ## every parser of outside bytes, FUZZTIME each (default 30s)
	@grep -rl '^func Fuzz' --include=*_test.go internal | xargs grep -o '^func Fuzz[A-Za-z]*' | while IFS=: read -r f name; do \
		$(GO) test -run '^$$' -fuzz "^$${name#func }\$$" -fuzztime $${FUZZTIME:-30s} ./$$(dirname $$f) || exit 1; done

soak: ## thousands more crash states of the volume engine, and random operations against its model
	SEALDESK_SOAK_SEEDS=$${SEEDS:-300} $(GO) test -count=1 -timeout 4h -run CrashEverywhere ./internal/block
	$(GO) test -count=1 -timeout 4h -run 'Model|Lineage' ./internal/block -rapid.checks=20000

clean: ## remove what was built (not the data of a demo)
	rm -rf bin internal/console/dist/*
