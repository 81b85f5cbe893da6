//! How do rows look to `COPY ... FROM STDIN`? In its binary form where the values came so, else in its text form.

use bytes::{BufMut, Bytes, BytesMut};
use etl::clock::Timestamp;
use etl::data::{RawValue, TableRow};
use etl::error::EtlResult;
use etl::schema::TableSchema;

use super::types::has_same_binary;

/// The signature, no flags, no extension (the manual, COPY, binary format).
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The form of all rows of one COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Each value as it came.
    Binary,
    /// Each as the source would have written it.
    Text,
}

impl Form {
    /// The form in which these rows can go: what came as text cannot be sent as binary.
    pub(super) fn of<'r>(schema: &TableSchema, rows: impl IntoIterator<Item = &'r TableRow>) -> Self {
        let is_binary =
            |row: &TableRow| (0..schema.columns.len()).all(|place| !matches!(row.raw(place), RawValue::Text(_)));
        if schema.columns.iter().all(has_same_binary) && rows.into_iter().all(is_binary) {
            Self::Binary
        } else {
            Self::Text
        }
    }

    /// As an option of COPY.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Text => "text",
        }
    }
}

/// Writes rows, field by field.
#[derive(Debug)]
pub(super) struct Lines {
    form: Form,
    fields: i16,
    /// Of the row that was begun.
    written: i16,
    out: BytesMut,
}

impl Lines {
    /// Rows of so many fields.
    pub(super) fn new(form: Form, fields: usize) -> Self {
        let mut out = BytesMut::new();
        if form == Form::Binary {
            out.put_slice(HEADER);
        }
        // Postgres has at most 1,600 columns.
        Self { form, fields: i16::try_from(fields).unwrap_or(i16::MAX), written: 0, out }
    }

    /// The bytes that wait to be taken.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    /// What is left, with the end.
    pub(super) fn finish(mut self) -> Bytes {
        if self.form == Form::Binary {
            self.out.put_i16(-1);
        }
        self.out.freeze()
    }

    /// The value of a row.
    ///
    /// # Errors
    /// `Value` where it was not sent, or cannot be read.
    pub(super) fn value(&mut self, row: &TableRow, place: usize) -> EtlResult<()> {
        match row.raw(place) {
            RawValue::Null => self.null(),
            RawValue::Binary(bytes) if self.form == Form::Binary => self.bytes(bytes),
            _ => {
                let text = row.text(place)?;
                self.text(text.as_deref().unwrap_or_default());
            }
        }
        Ok(())
    }

    pub(super) fn null(&mut self) {
        match self.form {
            Form::Binary => self.field(|out| out.put_i32(-1)),
            Form::Text => self.field(|out| out.put_slice(b"\\N")),
        }
    }

    pub(super) fn text(&mut self, text: &str) {
        match self.form {
            Form::Binary => self.bytes(text.as_bytes()),
            Form::Text => self.field(|out| escaped(text, out)),
        }
    }

    pub(super) fn bigint(&mut self, number: i64) {
        match self.form {
            Form::Binary => self.bytes(&number.to_be_bytes()),
            Form::Text => self.text(&number.to_string()),
        }
    }

    pub(super) fn boolean(&mut self, is_true: bool) {
        match self.form {
            Form::Binary => self.bytes(&[u8::from(is_true)]),
            Form::Text => self.text(if is_true { "t" } else { "f" }),
        }
    }

    /// A `timestamptz`.
    pub(super) fn moment(&mut self, at: Timestamp) {
        match self.form {
            Form::Binary => self.bytes(&at.to_postgres().to_be_bytes()),
            Form::Text => {
                let mut text = String::new();
                etl::data::decode::write_timestamptz(at.to_postgres(), &mut text);
                self.text(&text);
            }
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.field(|out| {
            // A value is shorter than 1 GiB.
            out.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
            out.put_slice(bytes);
        });
    }

    /// Writes a field with what comes before and after it.
    fn field(&mut self, write: impl FnOnce(&mut BytesMut)) {
        match (self.form, self.written) {
            (Form::Binary, 0) => self.out.put_i16(self.fields),
            (Form::Text, 1..) => self.out.put_u8(b'\t'),
            _ => {}
        }
        write(&mut self.out);
        self.written += 1;
        if self.written == self.fields {
            self.written = 0;
            if self.form == Form::Text {
                self.out.put_u8(b'\n');
            }
        }
    }
}

/// Backslashes before what means something else (the manual, COPY, text format).
fn escaped(text: &str, out: &mut BytesMut) {
    let mut rest = text.as_bytes();
    while let Some(place) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r')) {
        out.put_slice(&rest[..place]);
        out.put_slice(match rest[place] {
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            _ => b"\\\\",
        });
        rest = &rest[place + 1..];
    }
    out.put_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_lines_are_separated_escaped_and_ended() {
        let mut lines = Lines::new(Form::Text, 3);
        for text in ["a\tb\\", "\r\n", "ü"] {
            lines.text(text);
        }
        lines.null();
        lines.boolean(true);
        lines.bigint(-5);
        assert_eq!(lines.finish(), "a\\tb\\\\\t\\r\\n\tü\n\\N\tt\t-5\n".as_bytes());
    }

    #[test]
    fn binary_rows_begin_with_their_number_of_fields_and_the_copy_ends_with_a_trailer() {
        let mut lines = Lines::new(Form::Binary, 2);
        lines.bigint(1);
        lines.null();
        let bytes = lines.finish();
        let expected = [HEADER, &[0, 2, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255]].concat();
        assert_eq!(bytes, expected);
        let mut lines = Lines::new(Form::Binary, 1);
        lines.moment(Timestamp::from_postgres(7));
        assert_eq!(lines.finish()[HEADER.len() + 6..][..8], 7_i64.to_be_bytes());
    }
}
