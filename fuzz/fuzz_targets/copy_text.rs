//! Does any copy data in text form do harm?
#![no_main]

use std::sync::Arc;

use bytes::BytesMut;
use etl::data::{RowSpans, TableRow};
use etl::postgres::copy_text::append_payload;
use etl_fuzz::{kinds, read, table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, payload)) = bytes.split_first() else { return };
    let schema = table(1, &kinds()[..usize::from(first % 32).min(kinds().len())]);
    let (mut copied, mut spans, mut rows) = (BytesMut::new(), RowSpans::new(), Vec::new());
    let _ = append_payload(payload, &schema, &mut copied, &mut spans, &mut rows);
    let buffer = spans.finish(copied.freeze());
    for row in rows {
        read(&TableRow::new(Arc::clone(&buffer), row));
    }
});
