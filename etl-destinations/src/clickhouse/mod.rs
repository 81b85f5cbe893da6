//! How do tables live in ClickHouse? As versions of rows by key, or as a log; each block of rows whole or not at all.
//!
//! There is no transaction over several tables, so nothing is `atomic`. A table with a key is a `ReplacingMergeTree`
//! whose version is made of `_LSN` and `_ORDINAL`: what comes again is the same version. A log, and a table without a key,
//! hold every change as a row, and say themselves how far they have come.

#[cfg(feature = "clickhouse")]
mod arrow_rows;
mod config;
#[cfg(feature = "clickhouse")]
mod ddl;
#[cfg(feature = "clickhouse")]
mod error;
#[cfg(feature = "clickhouse")]
mod gates;
#[cfg(feature = "clickhouse")]
mod keyed;
#[cfg(feature = "clickhouse")]
mod places;
#[cfg(feature = "clickhouse")]
mod server;
#[cfg(feature = "clickhouse")]
mod sql;
#[cfg(feature = "clickhouse")]
mod unit;
#[cfg(feature = "clickhouse")]
mod view;
#[cfg(feature = "clickhouse")]
mod writer;

pub use config::ClickHouseConfig;
#[cfg(feature = "clickhouse")]
pub use writer::ClickHouse;
