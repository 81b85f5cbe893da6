//! Does any message of pgoutput do harm?

use super::schema::{kinds, read, table};
use bytes::Bytes;
use etl::data::{RowSpans, TableRow};
use etl::postgres::pgoutput::{NotedChange, NotedOld, note_change, note_streamed_change, parse, parse_streamed, peek};

/// Takes the bytes for what this parser reads, and panics where one does harm.
pub fn attack(bytes: &[u8]) {
    let _ = parse(bytes);
    let _ = parse_streamed(bytes);
    if let Some(oid) = bytes.get(5..9).and_then(|oid| oid.first_chunk()) {
        let columns = bytes.get(11).map_or(0, |count| usize::from(*count)).min(kinds().len());
        let schema = table(u32::from_be_bytes(*oid), &kinds()[..columns]);
        let _ = note_streamed_change(bytes, 0..bytes.len(), &schema, &mut RowSpans::new());
    }
    let Some(oid) = peek(bytes).ok().and_then(|peeked| peeked.relation) else { return };
    // The column count that the message claims, so that its rows are read at all.
    let columns = bytes.get(7).map_or(0, |count| usize::from(*count)).min(kinds().len());
    let schema = table(oid, &kinds()[..columns]);
    let mut spans = RowSpans::new();
    let Ok(change) = note_change(bytes, 0..bytes.len(), &schema, &mut spans) else { return };
    let (NotedChange::Insert { new: row }
    | NotedChange::Update { new: row, .. }
    | NotedChange::Delete { old: NotedOld::Key(row) | NotedOld::Full(row) }) = change;
    read(&TableRow::new(spans.finish(Bytes::copy_from_slice(bytes)), row));
}
