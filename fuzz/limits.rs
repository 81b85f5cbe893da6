//! Is what stands in place of a value that does not fit one that does, and a converted value one of its kind?

use super::schema::kinds;
use etl::data::{RawValue, converted, decode, nearest_number};
use etl::destination::{IntervalLimit, ValueLimits};
use etl::transform::ColumnType;

const NARROW: ValueLimits = ValueLimits {
    decimal_digits: Some(38),
    dates: (0, 365),
    timestamps: (0, 86_400_000_000),
    infinities: false,
    parts: true,
    lists: true,
    intervals: IntervalLimit::Nanoseconds,
};

/// Takes the bytes for what this parser reads, and panics where one does harm.
pub fn attack(bytes: &[u8]) {
    let [form, first, second, value @ ..] = bytes else { return };
    let kinds = kinds();
    let [kind, other] = [first, second].map(|place| &kinds[usize::from(*place) % kinds.len()]);
    let raw = if form & 1 == 0 { RawValue::Text(value) } else { RawValue::Binary(value) };
    if NARROW.check(kind, raw).is_err()
        && let Some(text) = NARROW.nearest(kind, raw)
    {
        assert_eq!(NARROW.check(kind, RawValue::Text(text.as_bytes())), Ok(()), "{text}");
    }
    let Ok(text) = std::str::from_utf8(value) else { return };
    let _ = ColumnType::named(text);
    for text in [converted(text, kind, other), nearest_number(text, other)].into_iter().flatten() {
        assert_eq!(decode::write_text(other, RawValue::Text(text.as_bytes()), &mut String::new()), Ok(()), "{text}");
    }
}
