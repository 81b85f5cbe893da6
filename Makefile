# What one does here. Every target works in a fresh clone with git, make and Rust.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help setup demo test check reference bench soak

help:
	@echo "make setup   fetch libduckdb and DuckDB's reader into the cache"
	@echo "make demo    a throwaway Postgres, live in a DuckDB file"
	@echo "make test    every test that takes minutes"
	@echo "make check   format, lints, documentation, every destination feature alone"
	@echo "make reference  write the pages that are made from the code"
	@echo "make bench   copy and drain against their limits"
	@echo "make soak    what takes longer: kill storms, chaos, duckdb-bundled"

setup:
	@tests/setup/libduckdb
	@tests/setup/duckdb-reader

demo: setup
	cargo run --quiet --release -p etl-cli --bin etl -- demo

# The binaries first: the tests that kill `etl` start it from the target directory.
test: setup
	cargo build --workspace --bins
	cargo test --workspace --no-fail-fast

# clippy and test see the same features, those of the workspace, so that dependencies are built once for each.
check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --lib --no-deps --document-private-items
	tests/setup/each-destination

reference: setup
	ETL_WRITE_REFERENCE=1 cargo test -p etl-tests --test reference

bench: setup
	cargo bench -p etl-tests --bench bench

soak: setup
	cargo build --workspace --bins
	ETL_SOAK=1 tests/setup/record soak cargo test --workspace -- --include-ignored
	tests/setup/record mutants tests/setup/mutants
	cargo build -p etl-cli --no-default-features --features duckdb-bundled
