//! Does every destination keep every promise?

mod bulk;
mod bulk_limits;
mod clickhouse;
mod duckdb;
mod duckdb_values;
mod file;
mod file_csv;
mod file_modes;
mod log;
mod log_lines;
mod memory;
mod modes;
mod names;
mod network;
mod null;
mod parquet;
mod parquet_beside;
mod parquet_modes;
mod parquet_page;
mod parquet_retain;
mod parquet_s3;
mod postgres;
mod rules;
mod small_table;
mod table;
mod wrong;
