//! Does every destination keep every promise?

mod duckdb;
mod duckdb_modes;
mod file;
mod file_modes;
mod log;
mod memory;
mod small_table;
mod wrong;
