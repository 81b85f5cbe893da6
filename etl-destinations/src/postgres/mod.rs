//! How do tables live in another Postgres? Copied in by COPY, merged by key, and positioned, a transaction a unit.
//!
//! Positions, tokens of copied chunks, and the names of the tables that were made here are in the schema `_etl`,
//! and change in the same transaction as the rows: everything arrives exactly once.

#[cfg(feature = "postgres")]
mod adopted;
mod config;
#[cfg(feature = "postgres")]
mod copy_in;
#[cfg(feature = "postgres")]
mod ddl;
#[cfg(feature = "postgres")]
mod error;
#[cfg(feature = "postgres")]
mod extras;
#[cfg(feature = "postgres")]
mod keyed;
#[cfg(feature = "postgres")]
mod keyless;
#[cfg(feature = "postgres")]
mod ledger;
#[cfg(feature = "postgres")]
mod lines;
#[cfg(feature = "postgres")]
mod link;
#[cfg(feature = "postgres")]
mod origin;
#[cfg(feature = "postgres")]
mod staging;
#[cfg(feature = "postgres")]
mod types;
#[cfg(feature = "postgres")]
mod unit;
#[cfg(feature = "postgres")]
mod writer;

pub use config::{Atomic, Create, PostgresTargetConfig};
#[cfg(feature = "postgres")]
pub use writer::Postgres;
