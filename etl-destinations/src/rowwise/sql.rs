//! How is a row written as a statement of SQL?

use etl::data::TableRow;
use etl::error::EtlResult;

use super::Stamp;
use crate::writer::TargetTable;

/// An `INSERT` a row, as `pg_dump --column-inserts` writes them: each value a literal that Postgres reads as exactly that
/// value, whatever the session's settings are but for `standard_conforming_strings`, which has to be on (its default).
#[derive(Debug, Clone, Copy, Default)]
pub struct SqlInserts;

impl SqlInserts {
    /// Appends the statement and a line break.
    ///
    /// # Errors
    /// `Value`, when a value cannot be decoded, and when one was not sent: an insert would make it null.
    pub fn write(&self, out: &mut Vec<u8>, table: &TargetTable, row: &TableRow, stamp: &Stamp) -> EtlResult<()> {
        out.extend_from_slice(b"INSERT INTO ");
        identifier(out, &table.name.schema);
        out.push(b'.');
        identifier(out, &table.name.name);
        let metadata = table.metadata.iter().flat_map(|metadata| metadata.names());
        for (place, name) in table.columns.iter().map(|name| &**name).chain(metadata).enumerate() {
            out.extend_from_slice(if place == 0 { b" (" } else { b", " });
            identifier(out, name);
        }
        let mut values = Values { out, is_first: true };
        for place in 0..table.columns.len() {
            values.push(row.text(place)?.as_deref());
        }
        if table.metadata.is_some() {
            values.push(Some(stamp.change_type.as_str()));
            values.push(Some(&stamp.position.commit.0.to_string()));
            values.push(Some(&stamp.position.ordinal.to_string()));
            values.push(Some(&stamp.time()));
        }
        let end: &[u8] = if values.is_first { b" DEFAULT VALUES;\n" } else { b");\n" };
        out.extend_from_slice(end);
        Ok(())
    }
}

struct Values<'o> {
    out: &'o mut Vec<u8>,
    is_first: bool,
}

impl Values<'_> {
    /// A quoted literal takes the type of its column, as the text of the value does when it is read.
    fn push(&mut self, value: Option<&str>) {
        let before: &[u8] = if self.is_first { b") VALUES (" } else { b", " };
        self.out.extend_from_slice(before);
        self.is_first = false;
        match value {
            Some(text) => quoted(self.out, text, b'\''),
            None => self.out.extend_from_slice(b"NULL"),
        }
    }
}

fn identifier(out: &mut Vec<u8>, name: &str) {
    quoted(out, name, b'"');
}

fn quoted(out: &mut Vec<u8>, text: &str, quote: u8) {
    out.push(quote);
    for byte in text.bytes() {
        if byte == quote {
            out.push(quote);
        }
        out.push(byte);
    }
    out.push(quote);
}
