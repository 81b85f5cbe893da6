//! How do rows become columns? From the bytes in which they arrived to Arrow, with no cell between.

mod arrow_schema;
mod column;
mod nested;
mod record_batch;
#[cfg(test)]
mod tests;
mod vectors;

pub use arrow_schema::{ArrowLimits, Calendar, Infinities, POSTGRES_TYPE, arrow_field};
#[cfg(any(feature = "clickhouse", feature = "duckdb"))]
pub(crate) use record_batch::stamps;
pub use record_batch::{ArrowTable, copied_pieces, pieces};
