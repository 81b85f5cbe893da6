//! How is a row written as a record of CSV?

use etl::data::TableRow;
use etl::error::{ErrorKind, EtlError, EtlResult};

use super::Stamp;
use crate::writer::TargetTable;

/// Records as RFC 4180 has them, with a header; each value exactly as Postgres writes it.
///
/// Null is the marker without quotes. A value that reads like the marker, and an empty one, stands in quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvFormat {
    delimiter: u8,
    null: Box<str>,
}

impl CsvFormat {
    /// With this delimiter and this marker for null.
    ///
    /// # Errors
    /// `Config`, where they cannot be told from values.
    pub fn new(delimiter: char, null: &str) -> EtlResult<Self> {
        let bad = |what: &str, hint: &str| Err(EtlError::new(ErrorKind::Config, what).hint(hint));
        let Ok(byte) = u8::try_from(delimiter) else {
            return bad("the delimiter of CSV is not one byte", "Such as `,` or `;`");
        };
        if !byte.is_ascii() || matches!(byte, b'"' | b'\r' | b'\n' | 0) {
            return bad("the delimiter of CSV cannot be told from quotes or line breaks", "Such as `,` or `;`");
        }
        if null.contains(['"', '\r', '\n', delimiter]) {
            return bad("the null marker of CSV would have to stand in quotes", "Such as `\\N`, or an empty text");
        }
        Ok(Self { delimiter: byte, null: null.into() })
    }

    /// The header of a table's files.
    pub fn header(&self, table: &TargetTable) -> Vec<u8> {
        let mut out = Vec::new();
        let metadata = table.metadata.iter().flat_map(|metadata| metadata.names());
        for (place, name) in table.columns.iter().map(|name| &**name).chain(metadata).enumerate() {
            self.separate(&mut out, place);
            self.field(&mut out, name);
        }
        out.push(b'\n');
        out
    }

    /// Appends the row and a line break.
    ///
    /// # Errors
    /// `Value`, when a value cannot be decoded, and when one was not sent: a record has no place for that.
    pub fn write(&self, out: &mut Vec<u8>, table: &TargetTable, row: &TableRow, stamp: &Stamp) -> EtlResult<()> {
        self.values(out, table, row)?;
        if table.metadata.is_some() {
            let (lsn, ordinal) = (stamp.position.commit.0.to_string(), stamp.position.ordinal.to_string());
            let fields = [stamp.change_type.as_str(), &lsn, &ordinal, &stamp.time()];
            for (place, field) in fields.into_iter().enumerate() {
                self.separate(out, table.columns.len() + place);
                self.field(out, field);
            }
        }
        out.push(b'\n');
        Ok(())
    }

    /// Appends the row's own values, and no line break.
    ///
    /// # Errors
    /// As of [`write`](Self::write).
    pub(crate) fn values(&self, out: &mut Vec<u8>, table: &TargetTable, row: &TableRow) -> EtlResult<()> {
        for place in 0..table.columns.len() {
            self.separate(out, place);
            match row.text(place)? {
                Some(text) => self.field(out, &text),
                None => out.extend_from_slice(self.null.as_bytes()),
            }
        }
        Ok(())
    }

    /// The names of a table's own columns, as a header has them.
    #[cfg(feature = "profile")]
    pub(crate) fn names(&self, table: &TargetTable) -> Vec<u8> {
        let mut out = Vec::new();
        for (place, name) in table.columns.iter().enumerate() {
            self.separate(&mut out, place);
            self.field(&mut out, name);
        }
        out
    }

    fn separate(&self, out: &mut Vec<u8>, place: usize) {
        if place > 0 {
            out.push(self.delimiter);
        }
    }

    fn field(&self, out: &mut Vec<u8>, text: &str) {
        let special = |byte: u8| byte == self.delimiter || matches!(byte, b'"' | b'\r' | b'\n');
        if !text.is_empty() && *text != *self.null && !text.bytes().any(special) {
            out.extend_from_slice(text.as_bytes());
            return;
        }
        out.push(b'"');
        for byte in text.bytes() {
            if byte == b'"' {
                out.push(b'"');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
}
