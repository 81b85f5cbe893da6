//! Does any copy data in text form do harm?

use std::sync::Arc;

use super::schema::{kinds, read, table};
use bytes::BytesMut;
use etl::data::{RowSpans, TableRow};
use etl::postgres::copy_text::append_payload;

/// Takes the bytes for what this parser reads, and panics where one does harm.
pub fn attack(bytes: &[u8]) {
    let Some((first, payload)) = bytes.split_first() else { return };
    let schema = table(1, &kinds()[..usize::from(first % 32).min(kinds().len())]);
    let (mut copied, mut spans, mut rows) = (BytesMut::new(), RowSpans::new(), Vec::new());
    let _ = append_payload(payload, &schema, &mut copied, &mut spans, &mut rows);
    let buffer = spans.finish(copied.freeze());
    for row in rows {
        read(&TableRow::new(Arc::clone(&buffer), row));
    }
}
