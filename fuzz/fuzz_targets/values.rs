//! Does any value do harm, and does what is accepted survive a round trip?
#![no_main]

use etl::data::{Cell, RawValue, TableRow};
use etl_fuzz::{kinds, read, table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, value)) = bytes.split_first() else { return };
    let kinds = kinds();
    let kind = &kinds[usize::from(first >> 1) % kinds.len()];
    let raw = if first & 1 == 0 { RawValue::Text(value) } else { RawValue::Binary(value) };
    let Ok(cell) = Cell::decode(kind, raw) else { return };
    if let Ok(row) = TableRow::from_cells(table(1, std::slice::from_ref(kind)), std::slice::from_ref(&cell)) {
        read(&row);
        let again = row.get(0).expect("what was encoded can be decoded");
        assert_eq!(format!("{again:?}"), format!("{cell:?}"));
    }
});
