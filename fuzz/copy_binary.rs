//! Does any binary copy data do harm?

use std::sync::Arc;

use super::schema::{kinds, read, table};
use bytes::Bytes;
use etl::data::{RowSpans, TableRow};
use etl::postgres::copy_binary::CopyBinary;

/// Takes the bytes for what this parser reads, and panics where one does harm.
pub fn attack(bytes: &[u8]) {
    // The first byte says how many columns there are and where the messages are cut.
    let Some((first, block)) = bytes.split_first() else { return };
    let columns = usize::from(first % 64).min(kinds().len());
    let cut = usize::from(*first).min(block.len());
    let mut copy = CopyBinary::new(table(1, &kinds()[..columns]));
    let (mut spans, mut rows) = (RowSpans::new(), Vec::new());
    if copy.note_payload(block, 0..cut, &mut spans, &mut rows).is_ok() {
        let _ = copy.note_payload(block, cut..block.len(), &mut spans, &mut rows);
    }
    let _ = copy.finish();
    let buffer = spans.finish(Bytes::copy_from_slice(block));
    for row in rows {
        read(&TableRow::new(Arc::clone(&buffer), row));
    }
}
