//! Does every value survive being written and read again? Properties of the codecs.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::mutation::table;
use super::{ArrayCell, Cell, RawValue, TableRow, decode};
use crate::schema::{Attribute, Kind};

/// The first and last microsecond of a timestamp: 4714-11-24 BC and 294276-12-31.
const TIMESTAMPS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

fn scalar() -> impl Strategy<Value = (Kind, Cell<'static>)> {
    prop_oneof![
        any::<bool>().prop_map(|v| (Kind::Bool, Cell::Bool(v))),
        any::<i16>().prop_map(|v| (Kind::Int2, Cell::I64(v.into()))),
        any::<i64>().prop_map(|v| (Kind::Int8, Cell::I64(v))),
        any::<f32>().prop_map(|v| (Kind::Float4, Cell::F32(v))),
        any::<f64>().prop_map(|v| (Kind::Float8, Cell::F64(v))),
        "-?[0-9]{1,40}(\\.[0-9]{1,40})?".prop_map(|v| (Kind::Numeric(None), Cell::Numeric(v.into()))),
        "\\PC{0,20}".prop_map(|v| (Kind::Text, Cell::Text(v.into()))),
        "[ \t\n{}\",\\\\NULnulé]{0,6}".prop_map(|v| (Kind::Text, Cell::Text(v.into()))),
        vec(any::<u8>(), 0..40).prop_map(|v| (Kind::Bytea, Cell::Bytes(v.into()))),
        (-2_451_545..2_145_031_949i32).prop_map(|v| (Kind::Date, Cell::Date(v))),
        (0..=86_400_000_000i64).prop_map(|v| (Kind::Time, Cell::Time(v))),
        TIMESTAMPS.prop_map(|v| (Kind::Timestamp, Cell::Timestamp(v))),
        TIMESTAMPS.prop_map(|v| (Kind::TimestampTz, Cell::TimestampTz(v))),
        any::<[u8; 16]>().prop_map(|v| (Kind::Uuid, Cell::Uuid(v))),
    ]
}

/// Up to three dimensions of one cell and of nulls.
fn array() -> impl Strategy<Value = (Kind, Cell<'static>)> {
    (scalar(), vec((1..4u32, -3..3i32), 1..4), any::<u64>()).prop_map(|((kind, cell), dimensions, nulls)| {
        let count = dimensions.iter().map(|(length, _)| length).product::<u32>();
        let element = |place: u32| if nulls >> (place % 64) & 1 == 1 { Cell::Null } else { cell.clone() };
        let elements = (0..count).map(element).collect();
        (Kind::Array(Arc::new(kind)), Cell::Array(ArrayCell { dimensions: dimensions.into(), elements }))
    })
}

/// What its text is, and then the value as text.
fn spelled(kind: &Kind, binary: &[u8]) -> String {
    let mut text = String::new();
    decode::write_text(kind, RawValue::Binary(binary), &mut text).unwrap();
    text
}

fn with_length(value: Option<&str>) -> Vec<u8> {
    let Some(text) = value else { return (-1i32).to_be_bytes().to_vec() };
    [&i32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

fn resolved(element: decode::Element<'_>) -> Option<String> {
    match element.resolve(&mut Vec::new()) {
        RawValue::Text(text) | RawValue::Binary(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        RawValue::Null | RawValue::Unchanged => None,
    }
}

const ODD_TEXT: &str = "[ \t\n{}()\\[\\]\",\\\\;=>NULnulé]{0,6}";

proptest! {
    #[test]
    fn an_interval_survives_its_text(months: i32, days: i32, micros: i64) {
        let binary = [&micros.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat();
        let text = spelled(&Kind::Interval, &binary);
        let expected = decode::Interval { months, days, micros };
        prop_assert_eq!(decode::interval(RawValue::Text(text.as_bytes())), Ok(expected), "{}", text);
    }

    #[test]
    fn the_pairs_of_an_hstore_survive_its_text(pairs in vec((ODD_TEXT, proptest::option::of(ODD_TEXT)), 0..4)) {
        let mut binary = i32::try_from(pairs.len()).unwrap().to_be_bytes().to_vec();
        for (key, value) in &pairs {
            binary.extend([with_length(Some(key)), with_length(value.as_deref())].concat());
        }
        let text = spelled(&Kind::Hstore, &binary);
        for raw in [RawValue::Binary(&binary), RawValue::Text(text.as_bytes())] {
            let read = decode::hstore(raw).unwrap().map(|pair| pair.map(|(k, v)| (resolved(k).unwrap(), resolved(v))));
            prop_assert_eq!(read.collect::<Result<Vec<_>, _>>().unwrap(), pairs.clone(), "{}", text);
        }
    }

    #[test]
    fn the_attributes_of_a_composite_survive_its_text(values in vec(proptest::option::of(ODD_TEXT), 0..4)) {
        let attribute = |_: &_| Attribute { name: "a".into(), type_oid: 25, kind: Kind::Text };
        let attributes: Vec<Attribute> = values.iter().map(attribute).collect();
        let mut binary = i32::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in &values {
            binary.extend([25u32.to_be_bytes().to_vec(), with_length(value.as_deref())].concat());
        }
        let text = spelled(&Kind::Composite(attributes.clone().into()), &binary);
        for raw in [RawValue::Binary(&binary), RawValue::Text(text.as_bytes())] {
            let read = decode::composite(&attributes, raw).unwrap().map(|field| field.map(|(_, field)| resolved(field)));
            prop_assert_eq!(read.collect::<Result<Vec<_>, _>>().unwrap(), values.clone(), "{}", text);
        }
    }

    #[test]
    fn the_ranges_of_a_multirange_survive_its_text(
        ranges in vec((proptest::option::of(ODD_TEXT), proptest::option::of(ODD_TEXT), 0..4u8), 0..4),
    ) {
        let mut binary = i32::try_from(ranges.len()).unwrap().to_be_bytes().to_vec();
        for (lower, upper, inclusive) in &ranges {
            let flags = inclusive << 1 | u8::from(lower.is_none()) << 3 | u8::from(upper.is_none()) << 4;
            let bounds = [lower, upper].map(|bound| bound.as_ref().map_or(Vec::new(), |text| with_length(Some(text))));
            let range = [vec![flags], bounds.concat()].concat();
            binary.extend(i32::try_from(range.len()).unwrap().to_be_bytes());
            binary.extend(range);
        }
        let text = spelled(&Kind::Multirange(Arc::new(Kind::Text)), &binary);
        for raw in [RawValue::Binary(&binary), RawValue::Text(text.as_bytes())] {
            let read = decode::multirange(raw).unwrap().map(|range| range.map(|range| {
                let inclusive = u8::from(range.is_lower_inclusive) | u8::from(range.is_upper_inclusive) << 1;
                (range.lower.and_then(resolved), range.upper.and_then(resolved), inclusive)
            }));
            prop_assert_eq!(read.collect::<Result<Vec<_>, _>>().unwrap(), ranges.clone(), "{}", text);
        }
    }

    #[test]
    fn a_cell_survives_a_row_and_its_text((kind, cell) in prop_oneof![scalar(), array()]) {
        let row = TableRow::from_cells(table(1, std::slice::from_ref(&kind)), std::slice::from_ref(&cell)).unwrap();
        // NaN is not equal to itself, but its debug form is.
        prop_assert_eq!(format!("{:?}", row.get(0).unwrap()), format!("{cell:?}"));
        let text = row.text(0).unwrap().unwrap();
        let again = Cell::decode(&kind, RawValue::Text(text.as_bytes())).unwrap();
        prop_assert_eq!(format!("{again:?}"), format!("{cell:?}"));
    }

    #[test]
    fn a_scaled_numeric_has_the_digits_of_its_text(number in -10i128.pow(37)..10i128.pow(37), scale in 0..20i8) {
        let power = 10i128.pow(scale.unsigned_abs().into());
        let sign = if number < 0 { "-" } else { "" };
        let (whole, rest) = (number.abs() / power, number.abs() % power);
        let width = usize::from(scale.unsigned_abs());
        let text = if scale == 0 { number.to_string() } else { format!("{sign}{whole}.{rest:0width$}") };
        prop_assert_eq!(decode::numeric_i128(RawValue::Text(text.as_bytes()), 38, scale), Ok(number));
    }
}
