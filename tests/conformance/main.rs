//! Does every destination keep every promise?

mod duckdb;
mod memory;
mod wrong;
