//! Does any value do harm, and does what is accepted survive a round trip?

use super::schema::{kinds, read, table};
use etl::data::{Cell, RawValue, TableRow, decode};
use etl::schema::Kind;

/// Takes the bytes for what this parser reads, and panics where one does harm.
pub fn attack(bytes: &[u8]) {
    let [form, first, value @ ..] = bytes else { return };
    let kinds = kinds();
    let kind = &kinds[usize::from(*first) % kinds.len()];
    let raw = if form & 1 == 0 { RawValue::Text(value) } else { RawValue::Binary(value) };
    parts(kind, raw);
    let Ok(cell) = Cell::decode(kind, raw) else { return };
    if let Ok(row) = TableRow::from_cells(table(1, std::slice::from_ref(kind)), std::slice::from_ref(&cell)) {
        read(&row);
        let again = row.get(0).expect("what was encoded can be decoded");
        assert_eq!(format!("{again:?}"), format!("{cell:?}"));
    }
}

/// Takes a value apart as what is made of columns does, whatever its kind says.
fn parts(kind: &Kind, raw: RawValue<'_>) {
    let _ = decode::interval(raw);
    let _ = decode::range(raw);
    let _ = decode::multirange(raw).map(Iterator::count);
    let _ = decode::hstore(raw).map(Iterator::count);
    let _ = decode::vector(raw).map(Iterator::count);
    let _ = decode::half_vector(raw).map(Iterator::count);
    let _ = decode::geometry(raw, &mut Vec::new());
    if let Kind::Composite(attributes) = kind {
        let _ = decode::composite(attributes, raw).map(Iterator::count);
    }
}
