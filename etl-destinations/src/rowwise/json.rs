//! How is a row written as a line of JSON?

use etl::data::{RawValue, TableRow};
use etl::error::{ErrorKind, EtlResult, ResultExt};
use etl::schema::Kind;
use serde::Serialize;

use super::Stamp;
use crate::metadata_columns::ChangeType;
use crate::writer::TargetTable;

/// One object a line. `true` and `false`, whole numbers and finite floats are JSON's own; everything else, numerics
/// and JSON documents too, is a string exactly as Postgres writes the value, so that no reader rounds or reorders it.
/// What an update did not send because it did not change is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonLines;

impl JsonLines {
    /// Appends the row and a line break.
    ///
    /// # Errors
    /// `Value`, when a value cannot be decoded, and when one of a new row was not sent.
    pub fn write(&self, out: &mut Vec<u8>, table: &TargetTable, row: &TableRow, stamp: &Stamp) -> EtlResult<()> {
        out.push(b'{');
        let start = out.len();
        for (place, name) in table.columns.iter().enumerate() {
            if stamp.change_type == ChangeType::Update && row.raw(place) == RawValue::Unchanged {
                continue;
            }
            key(out, start, name)?;
            value(out, row, place)?;
        }
        if let Some(metadata) = &table.metadata {
            key(out, start, &metadata.change_type)?;
            json(out, stamp.change_type.as_str())?;
            key(out, start, &metadata.lsn)?;
            json(out, &stamp.position.commit.0)?;
            key(out, start, &metadata.ordinal)?;
            json(out, &stamp.position.ordinal)?;
            key(out, start, &metadata.timestamp)?;
            json(out, &stamp.time())?;
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}

fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> EtlResult<()> {
    serde_json::to_writer(out, value).or_etl(ErrorKind::Internal, "write JSON")
}

fn key(out: &mut Vec<u8>, start: usize, name: &str) -> EtlResult<()> {
    if out.len() > start {
        out.push(b',');
    }
    json(out, name)?;
    out.push(b':');
    Ok(())
}

/// Whole numbers and finite floats are numbers of JSON as Postgres writes them.
pub(crate) fn value(out: &mut Vec<u8>, row: &TableRow, place: usize) -> EtlResult<()> {
    let Some(text) = row.text(place)? else { return json(out, &()) };
    match (&row.schema().columns[place].kind, &*text) {
        (Kind::Bool, "t") => json(out, &true),
        (Kind::Bool, "f") => json(out, &false),
        (Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid | Kind::Float4 | Kind::Float8, number)
            if is_number(number) =>
        {
            out.extend_from_slice(number.as_bytes());
            Ok(())
        }
        (_, text) => json(out, text),
    }
}

/// Whether it is neither `NaN` nor an infinity, which JSON has no word for.
fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e'))
}
