//! Where are the rows of `COPY ... (FORMAT binary)`? Their values stay in the bytes that arrived.
//!
//! Source: the Postgres manual, "COPY", Binary Format.

use std::ops::Range;
use std::sync::Arc;

use super::scan::{Malformed, Scan, Scanner};
use crate::data::{RowFormat, RowSpans};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::schema::TableSchema;

/// What every copy begins with.
pub const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// The flag bits that change the meaning of the data; none is supported, the one for oids included.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Rows,
    Done,
}

/// Reads the data of one copy, payload by payload.
#[derive(Debug, Clone)]
pub struct CopyBinary {
    schema: Arc<TableSchema>,
    state: State,
}

impl CopyBinary {
    /// Before the first payload of a copy of these columns.
    pub fn new(schema: Arc<TableSchema>) -> Self {
        Self { schema, state: State::Header }
    }

    /// Notes the rows of the `CopyData` payload that lies at `payload` within `block`, and appends the index
    /// of each to `rows`. Servers send a row a message, the header with the first one.
    ///
    /// `spans` must be finished with the whole block. On an error nothing of the payload stays noted.
    ///
    /// # Errors
    /// `Protocol` when the bytes are malformed, a row is cut by the payload's end or does not have the
    /// schema's columns, data follows the trailer, or the block is too large for offsets of 32 bits.
    pub fn note_payload(
        &mut self,
        block: &[u8],
        payload: Range<usize>,
        spans: &mut RowSpans,
        rows: &mut Vec<u32>,
    ) -> EtlResult<()> {
        let (mark, before) = (spans.mark(), rows.len());
        self.note(block, payload, spans, rows).map_err(|malformed| {
            spans.rewind(mark);
            rows.truncate(before);
            malformed.in_the("binary copy data").with("table", &self.schema.name)
        })
    }

    /// That the trailer was seen, so that no row is missing.
    ///
    /// # Errors
    /// `Protocol` when it was not.
    pub fn finish(&self) -> EtlResult<()> {
        if self.state == State::Done {
            return Ok(());
        }
        Err(EtlError::new(ErrorKind::Protocol, "the copy ended before its trailer").with("table", &self.schema.name))
    }

    fn note(&mut self, block: &[u8], payload: Range<usize>, spans: &mut RowSpans, rows: &mut Vec<u32>) -> Scan<()> {
        if block.len() > RowSpans::MAX_BYTES {
            return Err(Malformed("the block around it is too large"));
        }
        let mut scan = Scanner::within(block, payload)?;
        if self.state == State::Header {
            read_header(&mut scan)?;
            self.state = State::Rows;
        }
        while !scan.is_empty() {
            if self.state == State::Done {
                return Err(Malformed("data follows its trailer"));
            }
            match scan.i16()? {
                -1 => self.state = State::Done,
                fields => rows.push(note_row(fields, &mut scan, &self.schema, spans)?),
            }
        }
        Ok(())
    }
}

fn read_header(scan: &mut Scanner<'_>) -> Scan<()> {
    if scan.array()? != *SIGNATURE {
        return Err(Malformed("it does not begin with the signature"));
    }
    if scan.u32()? & CRITICAL_FLAGS != 0 {
        return Err(Malformed("its header has an unknown flag"));
    }
    let extension = scan.length()?;
    scan.take(extension)?;
    Ok(())
}

#[inline]
fn note_row(fields: i16, scan: &mut Scanner<'_>, schema: &Arc<TableSchema>, spans: &mut RowSpans) -> Scan<u32> {
    if usize::try_from(fields) != Ok(schema.columns.len()) {
        return Err(Malformed("the row has another number of columns than its table"));
    }
    let full = Malformed("the buffer has no room for the row");
    let (row, notes) = spans.whole_row(schema, RowFormat::Binary).ok_or(full)?;
    for note in notes {
        match scan.i32()? {
            -1 => {}
            length => {
                let length = usize::try_from(length).map_err(|_| Malformed("a length is negative"))?;
                // `note` has checked that every offset of the block fits.
                *note = scan.at() as u32;
                scan.take(length)?;
            }
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::data::mutation::{Random, table};
    use crate::data::{RawValue, TableRow};
    use crate::schema::Kind;

    /// What PostgreSQL 15 sends for `(1, 'ä', null), (2, '', 'x')`: three messages.
    const HEADER_AND_ROW: &[u8] =
        b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\x04\0\0\0\x01\0\0\0\x02\xc3\xa4\xff\xff\xff\xff";
    const ROW: &[u8] = b"\0\x03\0\0\0\x04\0\0\0\x02\0\0\0\0\0\0\0\x01x";
    const TRAILER: &[u8] = b"\xff\xff";

    fn read(payloads: &[&[u8]]) -> EtlResult<Vec<TableRow>> {
        let mut copy = CopyBinary::new(table(1, &[Kind::Int4, Kind::Text, Kind::Text]));
        let (mut spans, mut rows, mut at) = (RowSpans::new(), Vec::new(), 0);
        let block = payloads.concat();
        for payload in payloads {
            copy.note_payload(&block, at..at + payload.len(), &mut spans, &mut rows)?;
            at += payload.len();
        }
        copy.finish()?;
        let buffer = spans.finish(Bytes::from(block));
        Ok(rows.into_iter().map(|row| TableRow::new(Arc::clone(&buffer), row)).collect())
    }

    #[test]
    fn rows_are_read_however_messages_are_cut_between_them() {
        let (header, first) = HEADER_AND_ROW.split_at(19);
        let glued = [HEADER_AND_ROW, ROW, TRAILER].concat();
        for payloads in [&[HEADER_AND_ROW, ROW, TRAILER][..], &[header, first, ROW, TRAILER], &[&glued]] {
            let rows = read(payloads).unwrap();
            assert_eq!(rows.len(), 2);
            assert_eq!(rows[0].raw(1), RawValue::Binary("ä".as_bytes()));
            assert_eq!(rows[0].raw(2), RawValue::Null);
            assert_eq!(rows[1].raw(0), RawValue::Binary(&[0, 0, 0, 2]));
            assert_eq!(rows[1].raw(1), RawValue::Binary(b""));
        }
    }

    #[test]
    fn a_header_extension_is_skipped_and_a_critical_flag_refused() {
        let (header, first) = HEADER_AND_ROW.split_at(19);
        let extended = [&header[..15], b"\0\0\0\x02..", first].concat();
        assert_eq!(read(&[&extended, TRAILER]).unwrap().len(), 1);
        let mut flagged = HEADER_AND_ROW.to_vec();
        flagged[12] = 1;
        assert!(read(&[&flagged, TRAILER]).is_err());
    }

    #[test]
    fn cut_and_surplus_data_are_errors_that_name_the_table() {
        let cut = &ROW[..ROW.len() - 1];
        let wide = [b"\0\x04\0\0\0\0".as_slice(), &ROW[2..]].concat();
        let cases = [
            vec![HEADER_AND_ROW, cut, TRAILER],
            vec![HEADER_AND_ROW, ROW],
            vec![HEADER_AND_ROW, TRAILER, ROW],
            vec![HEADER_AND_ROW, &wide, TRAILER],
            vec![ROW, TRAILER],
            vec![&HEADER_AND_ROW[..12]],
            vec![],
        ];
        for payloads in cases {
            let error = read(&payloads).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
            assert_eq!(error.context("table"), Some("public.t1"));
        }
    }

    #[test]
    fn damaged_data_never_panics() {
        let mut random = Random::new(11);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let parts = [HEADER_AND_ROW, ROW, TRAILER]
                .map(|part| if random.below(2) == 0 { part.to_vec() } else { random.mutate(part) });
            if let Ok(rows) = read(&[&parts[0], &parts[1], &parts[2]]) {
                accepted += 1;
                rows.iter().for_each(|row| assert!(row.byte_size() > 0));
            }
        }
        assert!(accepted > 1000, "the mutations are too wild to show anything: {accepted}");
    }
}
