//! How do changes become Parquet? A log of immutable files a table, and manifests that say which ones count.
//!
//! A unit's rows are files under their final names first. Then one manifest, written only where there is none of its
//! number, makes them count, together with the position or the token that they cover: a unit lands whole or not at all,
//! over all of its tables, and so do the units of a run that is shown at once. What no manifest knows after a crash is
//! removed before anything else is written.

#[cfg(feature = "parquet")]
mod compact;
mod config;
#[cfg(feature = "parquet")]
mod encoding;
#[cfg(feature = "parquet")]
mod fold;
#[cfg(feature = "parquet")]
mod kept_back;
#[cfg(feature = "parquet")]
mod keyless;
#[cfg(feature = "parquet")]
mod lake;
#[cfg(feature = "parquet")]
mod layout;
#[cfg(feature = "parquet")]
mod manifest;
#[cfg(feature = "parquet")]
mod merge;
#[cfg(feature = "parquet")]
mod normal;
#[cfg(feature = "parquet")]
mod retain;
#[cfg(feature = "parquet")]
mod spill;
#[cfg(feature = "parquet")]
mod staging;
#[cfg(feature = "parquet")]
mod state;
#[cfg(feature = "parquet")]
mod upkeep;
#[cfg(feature = "parquet")]
mod writer;

pub use config::{
    CompactConfig, ParquetCompression, ParquetConfig, ParquetInfinities, ParquetLayout, ParquetStatistics, RetainConfig,
};
#[cfg(feature = "parquet")]
pub use writer::Parquet;
