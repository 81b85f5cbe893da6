//! What moves? Rows, cells and events; a row is a view of the bytes in which it arrived.

mod cell;
mod convert;
mod copied_rows;
pub mod decode;
mod event;
#[cfg(test)]
pub(crate) mod mutation;
#[cfg(any(test, feature = "conformance"))]
pub mod recorded;
#[cfg(test)]
mod round_trip;
mod row;
mod row_builder;

pub use cell::{ArrayCell, Cell};
pub use convert::{converted, nearest_number};
pub use copied_rows::{CopiedRows, RowRun};
pub use event::{Change, Event, OldRow, Op};
pub(crate) use row::UNCHANGED;
pub use row::{RawValue, RowBuffer, RowFormat, RowSpans, TableRow};
pub use row_builder::RowBuilder;
