//! Does every destination keep every promise?

mod duckdb;
mod duckdb_values;
mod file;
mod file_modes;
mod log;
mod memory;
mod modes;
mod postgres;
mod small_table;
mod wrong;
