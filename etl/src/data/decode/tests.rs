//! Do both forms of a value say the same, as a real server does?

use std::sync::Arc;

use super::*;
use crate::data::mutation::Random;
use crate::data::recorded::{Recorded, recorded};
use crate::data::{Cell, RawValue, TableRow};
use crate::schema::Kind;

/// Floats differ from themselves when they are NaN; their text does not.
fn shown(cell: &Cell<'_>) -> String {
    format!("{cell:?}")
}

#[test]
fn text_and_binary_say_what_the_server_says() {
    assert!(recorded().count() > 380);
    for Recorded { kind, text, binary, .. } in recorded() {
        let mut written = String::new();
        write_text(&kind, RawValue::Binary(&binary), &mut written).unwrap();
        assert_eq!(written, text, "text of a binary {kind:?}");
        let of_binary = Cell::decode(&kind, RawValue::Binary(&binary)).unwrap();
        let of_text = Cell::decode(&kind, RawValue::Text(text.as_bytes())).unwrap();
        if !matches!(kind, Kind::Numeric(_)) {
            assert_eq!(shown(&of_text), shown(&of_binary), "cells of {text} as {kind:?}");
        }
        let schema = crate::data::mutation::table(1, std::slice::from_ref(&kind));
        let row = TableRow::from_cells(schema, &[of_binary.clone().into_owned()]).unwrap();
        assert_eq!(row.text(0).unwrap().unwrap(), text, "text of a {kind:?} from cells");
        assert_eq!(shown(&row.get(0).unwrap()), shown(&of_binary), "cells of a {kind:?} from cells");
    }
}

#[test]
fn a_numeric_is_scaled_exactly_or_refused_with_its_class() {
    use DecodeError::{Infinite, NotANumber, TooFine, TooManyDigits};
    let max = 10i128.pow(38) - 1;
    let cases = [
        ("12345.6789", 18, 4, Ok(123_456_789)),
        ("12345.6789", 9, 4, Ok(123_456_789)),
        ("12345.6789", 8, 4, Err(TooManyDigits)),
        ("12345.6789", 18, 3, Err(TooFine)),
        ("12345.6789", 18, 7, Ok(123_456_789_000)),
        ("-0.1", 5, 2, Ok(-10)),
        ("0.00001234", 10, 8, Ok(1234)),
        ("0.00001234", 10, 7, Err(TooFine)),
        ("10.10", 5, 1, Ok(101)),
        ("100000000", 3, -6, Ok(100)),
        ("100000000", 3, -9, Err(TooFine)),
        ("0.00", 1, 0, Ok(0)),
        ("99999999", 38, 31, Err(TooManyDigits)),
        ("-12345678901234567890123456789012345678", 38, 0, Ok(-12_345_678_901_234_567_890_123_456_789_012_345_678)),
        ("-12345678901234567890123456789012345678", 38, 1, Err(TooManyDigits)),
        ("NaN", 38, 0, Err(NotANumber)),
        ("-Infinity", 38, 0, Err(Infinite)),
    ];
    for (text, precision, scale, expected) in cases {
        assert_eq!(numeric_i128(RawValue::Text(text.as_bytes()), precision, scale), expected, "{text} {scale}");
        let binary = recorded().find(|value| value.name == "numeric" && value.text == text).expect(text).binary;
        assert_eq!(numeric_i128(RawValue::Binary(&binary), precision, scale), expected, "binary {text} {scale}");
    }
    assert_eq!(numeric_i128(RawValue::Text(max.to_string().as_bytes()), 38, 0), Ok(max));
    assert!(numeric_i128(RawValue::Text("1".repeat(400).as_bytes()), 38, 0).is_err());
}

#[test]
fn text_that_the_server_never_writes_is_refused() {
    let cases = [
        (Kind::Bool, vec!["", "true", "x"]),
        (Kind::Int2, vec!["", "-", "32768", "-32769", "1.5", " 1", "+1", "1a"]),
        (Kind::Int8, vec!["9223372036854775808", "-9223372036854775809", "99999999999999999999"]),
        (Kind::Oid, vec!["-1", "4294967296"]),
        (Kind::Float8, vec!["", "1e", "0x1", "abc"]),
        (Kind::Numeric(None), vec!["", "-", ".", "1.", ".5", "1e5", "nan", "1.2.3", "--1"]),
        (Kind::Date, vec!["", "2023-02-29", "2024-13-01", "2024-1-1", "0000-01-01", "2024-01-01x", "12345678-01-01"]),
        (Kind::Time, vec!["", "24:00:00.000001", "25:00:00", "12:60:00", "12:00", "12:00:00.1234567"]),
        (Kind::Timestamp, vec!["2024-01-01", "2024-01-01T00:00:00", "2024-01-01 00:00:00+00"]),
        (Kind::TimestampTz, vec!["2024-01-01 00:00:00", "2024-01-01 00:00:00Z"]),
        (Kind::Uuid, vec!["", "a0eebc99x9c0b-4ef8-bb6d-6bb9bd380a11", "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
        (Kind::Bytea, vec!["", "abc", "\\x0", "\\xzz"]),
        (
            Kind::Array(Arc::new(Kind::Int4)),
            vec![
                "",
                "1",
                "{",
                "}",
                "{1",
                "{1,}",
                "{,1}",
                "{1}}",
                "{{1},2}",
                "{{1},{2,3}}",
                "{1,{2}}",
                "{{}}",
                "{\"1}",
                "[1:2]={1}",
                "[1:1={1}",
                "[1:1]{1}",
                "{1}x",
                "{1\\}",
                "{{{{{{{1}}}}}}}",
                "{1\"2\"}",
                "{null}",
            ],
        ),
    ];
    for (kind, texts) in cases {
        for text in texts {
            let cell = Cell::decode(&kind, RawValue::Text(text.as_bytes()));
            assert!(cell.is_err(), "{text} as {kind:?} is {cell:?}");
        }
    }
}

#[test]
fn an_offset_of_a_timestamp_counts_to_the_second() {
    let at = |text: &str| timestamptz(RawValue::Text(text.as_bytes()));
    let utc = at("1900-01-01 12:00:00+00").unwrap();
    for (offset, seconds) in [("+01", 3600), ("-03:30", -12_600), ("+00:19:32", 1172), ("-00:00:44", -44)] {
        assert_eq!(at(&format!("1900-01-01 12:00:00{offset}")), Ok(utc - seconds * 1_000_000), "{offset}");
    }
}

#[test]
fn damaged_values_never_panic() {
    let values: Vec<_> = recorded().collect();
    let mut random = Random::new(17);
    let mut accepted = 0;
    for round in 0..120_000 {
        let Recorded { kind, text, binary, .. } = &values[round % values.len()];
        let (text, binary) = (random.mutate(text.as_bytes()), random.mutate(binary));
        for raw in [RawValue::Text(&text), RawValue::Binary(&binary)] {
            let _ = write_text(kind, raw, &mut String::new());
            let _ = numeric_i128(raw, random.below(256) as u8, random.next() as i8);
            let _ = (interval(raw), range(raw), geometry(raw, &mut Vec::new()));
            let _ = (multirange(raw).map(Iterator::count), hstore(raw).map(Iterator::count));
            let _ = (vector(raw).map(Iterator::count), half_vector(raw).map(Iterator::count));
            if let Kind::Composite(attributes) = kind {
                let _ = composite(attributes, raw).map(Iterator::count);
            }
            if let Ok(cell) = Cell::decode(kind, raw) {
                accepted += 1;
                let _ = cell.write_text(&mut String::new());
                let schema = crate::data::mutation::table(1, std::slice::from_ref(kind));
                let _ = TableRow::from_cells(schema, &[cell]);
            }
        }
    }
    assert!(accepted > 5000, "the mutations are too wild to show anything: {accepted}");
}
