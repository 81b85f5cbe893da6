//! What do the rows of `COPY ... (FORMAT text)` hold? Their values are unescaped into a buffer of their own.
//!
//! Source: the Postgres manual, "COPY", Text Format.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::scan::{Malformed, Scan};
use crate::data::{RowFormat, RowSpans};
use crate::error::EtlResult;
use crate::schema::TableSchema;

/// Appends the rows of one `CopyData` payload, each value after its length, to `bytes`, notes them, and
/// appends the index of each to `rows`. A payload holds whole lines.
///
/// `spans` must be finished with `bytes`. On an error nothing of the payload stays noted.
///
/// # Errors
/// `Protocol` when a line has no end, is malformed or does not have the schema's columns, or when `bytes`
/// becomes too large for offsets of 32 bits.
pub fn append_payload(
    payload: &[u8],
    schema: &Arc<TableSchema>,
    bytes: &mut BytesMut,
    spans: &mut RowSpans,
    rows: &mut Vec<u32>,
) -> EtlResult<()> {
    let (mark, rows_before, bytes_before) = (spans.mark(), rows.len(), bytes.len());
    append_lines(payload, schema, bytes, spans, rows).map_err(|malformed| {
        spans.rewind(mark);
        rows.truncate(rows_before);
        bytes.truncate(bytes_before);
        malformed.in_the("copy data").with("table", &schema.name)
    })
}

fn append_lines(
    payload: &[u8],
    schema: &Arc<TableSchema>,
    bytes: &mut BytesMut,
    spans: &mut RowSpans,
    rows: &mut Vec<u32>,
) -> Scan<()> {
    let mut rest = payload;
    while !rest.is_empty() {
        // Within a value a newline is written `\n`, so that a real one ends the row.
        let length = memchr::memchr(b'\n', rest).ok_or(Malformed("a row has no end"))?;
        let (line, after) = rest.split_at(length);
        rest = after.get(1..).unwrap_or_default();
        if line == b"\\." {
            return if rest.is_empty() { Ok(()) } else { Err(Malformed("data follows its end")) };
        }
        rows.push(append_line(line, schema, bytes, spans)?);
    }
    Ok(())
}

fn append_line(line: &[u8], schema: &Arc<TableSchema>, bytes: &mut BytesMut, spans: &mut RowSpans) -> Scan<u32> {
    let row = spans.begin_row(schema, RowFormat::Text).ok_or(Malformed("the buffer has no room for the row"))?;
    let wrong_count = Malformed("the row has another number of columns than its table");
    let columns = schema.columns.len();
    let mut rest = Some(line);
    if columns == 0 && line.is_empty() {
        return Ok(row);
    }
    for _ in 0..columns {
        let value = rest.ok_or(wrong_count)?;
        let (value, after) = match memchr::memchr(b'\t', value) {
            Some(length) => (value.get(..length).unwrap_or_default(), value.get(length + 1..)),
            None => (value, None),
        };
        rest = after;
        if value == b"\\N" {
            spans.null();
            continue;
        }
        let start = bytes.len();
        bytes.put_i32(0);
        unescape(value, bytes)?;
        let length = i32::try_from(bytes.len() - start - 4).map_err(|_| Malformed("a value is too long"))?;
        if bytes.len() > RowSpans::MAX_BYTES {
            return Err(Malformed("the buffer is too large"));
        }
        if let Some(place) = bytes.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        spans.value_at((start + 4) as u32);
    }
    if rest.is_none() { Ok(row) } else { Err(wrong_count) }
}

/// Appends the value without its escapes.
fn unescape(value: &[u8], bytes: &mut BytesMut) -> Scan<()> {
    let mut rest = value;
    while let Some(length) = memchr::memchr(b'\\', rest) {
        let (plain, escaped) = rest.split_at(length);
        bytes.put_slice(plain);
        let (byte, after) = match escaped {
            [_, b'b', after @ ..] => (8, after),
            [_, b'f', after @ ..] => (12, after),
            [_, b'n', after @ ..] => (b'\n', after),
            [_, b'r', after @ ..] => (b'\r', after),
            [_, b't', after @ ..] => (b'\t', after),
            [_, b'v', after @ ..] => (11, after),
            [_, b'0'..=b'7', ..] => octal(escaped.get(1..).unwrap_or_default()),
            [_, b'x', digit, ..] if digit.is_ascii_hexdigit() => hexadecimal(escaped.get(2..).unwrap_or_default()),
            [_, other, after @ ..] => (*other, after),
            _ => return Err(Malformed("a value ends within an escape")),
        };
        bytes.put_u8(byte);
        rest = after;
    }
    bytes.put_slice(rest);
    Ok(())
}

/// One to three octal digits; what does not fit in a byte is cut off, as Postgres does.
fn octal(digits: &[u8]) -> (u8, &[u8]) {
    let count = digits.iter().take(3).take_while(|digit| matches!(digit, b'0'..=b'7')).count();
    let (digits, rest) = digits.split_at(count);
    (digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')), rest)
}

/// One or two hexadecimal digits.
fn hexadecimal(digits: &[u8]) -> (u8, &[u8]) {
    let count = digits.iter().take(2).take_while(|digit| digit.is_ascii_hexdigit()).count();
    let (digits, rest) = digits.split_at(count);
    let value = |digit: &u8| char::from(*digit).to_digit(16).unwrap_or(0) as u8;
    (digits.iter().fold(0u8, |sum, digit| (sum << 4) | value(digit)), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::data::mutation::{Random, table};
    use crate::data::{RawValue, TableRow};
    use crate::schema::Kind;

    fn read(payloads: &[&[u8]], columns: usize) -> EtlResult<Vec<TableRow>> {
        let schema = table(1, &vec![Kind::Text; columns]);
        let (mut bytes, mut spans, mut rows) = (BytesMut::new(), RowSpans::new(), Vec::new());
        for payload in payloads {
            append_payload(payload, &schema, &mut bytes, &mut spans, &mut rows)?;
        }
        let buffer = spans.finish(bytes.freeze());
        Ok(rows.into_iter().map(|row| TableRow::new(Arc::clone(&buffer), row)).collect())
    }

    #[test]
    fn escapes_nulls_and_empty_values_are_told_apart() {
        let line = b"\\N\t\t\\\\N\ta\\tb\\nc\\rd\\be\\ff\\vg\\\\h\t\\101\\x41\\q\\.\n";
        let rows = read(&[line, b"1\t2\t3\t4\t5\n6\t7\t8\t9\t\n\\.\n"], 5).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].raw(0), RawValue::Null);
        assert_eq!(rows[0].raw(1), RawValue::Text(b""));
        assert_eq!(rows[0].raw(2), RawValue::Text(b"\\N"));
        assert_eq!(rows[0].raw(3), RawValue::Text(b"a\tb\nc\rd\x08e\x0cf\x0bg\\h"));
        assert_eq!(rows[0].raw(4), RawValue::Text(b"AAq."));
        assert_eq!(rows[2].raw(4), RawValue::Text(b""));
    }

    #[test]
    fn malformed_lines_are_errors_that_leave_nothing_behind() {
        let schema = table(1, &[Kind::Text, Kind::Text]);
        let (mut bytes, mut spans, mut rows) = (BytesMut::new(), RowSpans::new(), Vec::new());
        append_payload(b"a\tb\n", &schema, &mut bytes, &mut spans, &mut rows).unwrap();
        let before = (bytes.len(), spans.mark(), rows.len());
        for bad in [&b"a\tb"[..], b"c\td\na\n", b"a\tb\tc\n", b"a\tb\\\n", b"\n", b"\\.\na\tb\n"] {
            let error = append_payload(bad, &schema, &mut bytes, &mut spans, &mut rows).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{}", bad.escape_ascii());
            assert_eq!((bytes.len(), spans.mark(), rows.len()), before);
        }
    }

    #[test]
    fn damaged_lines_never_panic() {
        let mut random = Random::new(13);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let line = random.mutate(b"\\N\t\\101\\x4\\\\\ta\\nb\n");
            if let Ok(rows) = read(&[&line], 3) {
                accepted += 1;
                rows.iter().for_each(|row| assert!(row.byte_size() > 0));
            }
        }
        assert!(accepted > 1000, "the mutations are too wild to show anything: {accepted}");
    }

    /// As the server escapes a value (`CopyAttributeOutText`).
    fn escaped(value: &str) -> String {
        let escape = |c: char| match c {
            '\\' => "\\\\".to_owned(),
            '\t' => "\\t".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\u{8}' => "\\b".to_owned(),
            '\u{b}' => "\\v".to_owned(),
            '\u{c}' => "\\f".to_owned(),
            other => other.to_string(),
        };
        value.chars().map(escape).collect()
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives_its_escapes(values in proptest::collection::vec("[\\PC\\\\\t\n\r\u{8}\u{b}\u{c}N.]{0,12}", 1..5)) {
            let line = values.iter().map(|value| escaped(value)).collect::<Vec<_>>().join("\t") + "\n";
            // A single column that holds `\.` is escaped too, and so is no end.
            let rows = read(&[line.as_bytes()], values.len()).unwrap();
            for (column, value) in values.iter().enumerate() {
                proptest::prop_assert_eq!(rows[0].raw(column), RawValue::Text(value.as_bytes()));
            }
        }
    }
}
