//! How do tables live in a DuckDB file? Appended, replaced by key, and positioned, a transaction a unit.
//!
//! Positions, tokens of copied chunks, and the names of the tables that were made here are in the schema `_etl`,
//! and change in the same transaction as the rows: everything arrives exactly once.

mod config;
#[cfg(feature = "duckdb")]
mod connections;
#[cfg(feature = "duckdb")]
mod ddl;
#[cfg(feature = "duckdb")]
mod error;
#[cfg(feature = "duckdb")]
mod fills;
#[cfg(feature = "duckdb")]
mod keyed;
#[cfg(feature = "duckdb")]
mod keyless;
#[cfg(feature = "duckdb")]
mod ledger;
#[cfg(feature = "duckdb")]
mod places;
#[cfg(feature = "duckdb")]
mod rows;
#[cfg(feature = "duckdb")]
mod staging;
#[cfg(feature = "duckdb")]
mod unit;
#[cfg(feature = "duckdb")]
mod writer;

pub use config::DuckDbConfig;
#[cfg(feature = "duckdb")]
pub use connections::Connections;
#[cfg(feature = "duckdb")]
pub use writer::DuckDb;
