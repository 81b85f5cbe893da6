//! Does every destination keep every promise?

mod duckdb;
mod duckdb_modes;
mod memory;
mod wrong;
