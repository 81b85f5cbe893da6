//! What do the metadata columns of a row say? Its change type, position and time.

use etl::Position;
use etl::clock::Timestamp;
use etl::data::{TableRow, decode};
use etl::error::{ErrorKind, EtlError, EtlResult};

use crate::metadata_columns::ChangeType;
use crate::writer::BatchRows;

/// What the metadata columns say about a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// `_CHANGE_TYPE`
    pub change_type: ChangeType,
    /// `_LSN` and `_ORDINAL`
    pub position: Position,
    /// `_TIMESTAMP`
    pub at: Timestamp,
}

impl Stamp {
    /// The time as Postgres writes it, in UTC.
    pub fn time(&self) -> String {
        let mut text = String::new();
        decode::write_timestamptz(self.at.to_postgres(), &mut text);
        text
    }
}

/// The rows of a change log with their stamps.
///
/// # Errors
/// `DestinationUnsupported` where the rows are those of another write mode than `append`.
pub fn stamped_rows<'b>(rows: &'b BatchRows) -> EtlResult<Box<dyn Iterator<Item = (&'b TableRow, Stamp)> + 'b>> {
    match rows {
        BatchRows::Copied { rows, position, at } => {
            let stamp = Stamp { change_type: ChangeType::Upsert, position: *position, at: *at };
            Ok(Box::new(rows.iter().map(move |row| (row, stamp))))
        }
        BatchRows::Log(rows) => Ok(Box::new(rows.iter().map(|stamped| {
            let stamp = Stamp { change_type: stamped.change_type, position: stamped.position, at: stamped.at };
            (&stamped.row, stamp)
        }))),
        BatchRows::Keyed(_) | BatchRows::Keyless(_) => {
            Err(EtlError::new(ErrorKind::DestinationUnsupported, "a log cannot hold the current state of a table")
                .hint("Set `write_mode: append`"))
        }
    }
}
