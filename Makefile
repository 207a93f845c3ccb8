# Common tasks. `make` alone lists them.

RIDES ?=
BROKER ?= embedded
# Seconds that each fuzz target runs.
FUZZ_SECONDS ?= 60
# The chaos run: how many faults in each mode, a round of snapshots for each twenty of them, and the
# seed of an earlier run to see it again.
FAULTS ?= 200
SEED ?=

demo_args := --broker $(BROKER) $(if $(RIDES),--rides $(RIDES))
demo_setup := $(if $(filter kafka,$(BROKER)),demo-kafka,demo)

.PHONY: help demo build test chaos bench bench-debezium test-compose fuzz fmt clippy doc clean

help: ## List these targets
	@sed -n 's/^\([a-z-]*\): ## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

demo: ## Watch taxi rides go from Postgres to Kafka (RIDES=N ends by itself, BROKER=embedded|kafka)
	scripts/setup $(demo_setup)
	cargo build --locked
	target/debug/rowcast demo $(demo_args)

build: ## Compile the release binary, target/release/rowcast
	scripts/setup build
	cargo build --locked --release

test: ## Run all tests, on real Postgres and Kafka servers
	scripts/setup test
	scripts/test

chaos: ## Break everything around the bridge, and prove that nothing is lost (FAULTS=200 a mode, SEED=N)
	scripts/setup test
	CHAOS_FAULTS=$(FAULTS) $(if $(SEED),CHAOS_SEED=$(SEED)) \
	cargo test --locked --no-fail-fast --test chaos --test snapshots -- --nocapture

bench: ## Measure throughput, memory and latency
	scripts/setup test
	cargo bench --locked --bench peers

bench-debezium: ## Measure a snapshot next to Debezium's
	scripts/setup test
	scripts/fetch-debezium
	ONLY=snapshot DEBEZIUM=1 cargo bench --locked --bench peers

test-compose: ## Drive docker-compose.yml end to end
	tests/compose/run

fuzz: ## Feed arbitrary bytes to all that reads them (FUZZ_SECONDS=60 each; best with cargo-fuzz)
	scripts/setup build
	scripts/fuzz $(FUZZ_SECONDS)

fmt: ## Format the sources
	cargo fmt --all

clippy: ## Lint, warnings are errors
	scripts/setup build
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc: ## Build the crate's documentation
	scripts/setup build
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

clean: ## Remove what was built (fetched servers stay: see scripts/cache-dir)
	cargo clean
