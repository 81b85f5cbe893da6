//! How does a row become text? One line a row, each value as Postgres writes it.

mod csv;
mod json;
mod sql;
mod stamp;

pub use csv::CsvFormat;
pub use json::JsonLines;
#[cfg(feature = "profile")]
pub(crate) use json::value as json_value;
pub use sql::SqlInserts;
pub use stamp::{Stamp, stamped_rows};
