//! Does every value survive being written and read again? Properties of the codecs.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::mutation::table;
use super::{ArrayCell, Cell, RawValue, TableRow, decode};
use crate::schema::Kind;

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

proptest! {
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
