//! Do both forms of a value say the same, as a real server does?

use std::sync::Arc;

use super::*;
use crate::data::mutation::Random;
use crate::data::{Cell, RawValue, TableRow};
use crate::schema::{Attribute, Kind, Shape};

/// From PostgreSQL 15, and 18 for what came later: kind, text form as the output functions give it, binary form in hex, as
/// `..._send` give it (PostGIS: from its documentation); in the text,
/// backslash, newline and tab are escaped.
const RECORDED: &str = include_str!("recorded.tsv");

/// `int4`, `int4[]`, `range(int4)`, `record(int4,text)`: kinds by short names.
fn kind_of(name: &str) -> Kind {
    if let Some(element) = name.strip_suffix("[]") {
        return Kind::Array(Arc::new(kind_of(element)));
    }
    let shape = |shape| Kind::Geometric(shape);
    match name {
        "bool" => Kind::Bool,
        "int2" => Kind::Int2,
        "int4" => Kind::Int4,
        "int8" => Kind::Int8,
        "oid" => Kind::Oid,
        "float4" => Kind::Float4,
        "float8" => Kind::Float8,
        "numeric" => Kind::Numeric(None),
        "text" => Kind::Text,
        "bytea" => Kind::Bytea,
        "date" => Kind::Date,
        "time" => Kind::Time,
        "timestamp" => Kind::Timestamp,
        "timestamptz" => Kind::TimestampTz,
        "uuid" => Kind::Uuid,
        "json" => Kind::Json,
        "jsonb" => Kind::Jsonb,
        "char" => Kind::Char,
        "timetz" => Kind::TimeTz,
        "interval" => Kind::Interval,
        "network" => Kind::Network,
        "mac" => Kind::MacAddress,
        "bits" => Kind::Bits,
        "lsn" => Kind::Lsn,
        "tid" => Kind::Tid,
        "xid8" => Kind::Xid8,
        "snapshot" => Kind::Snapshot,
        "versioned" => Kind::VersionedText,
        "point" => shape(Shape::Point),
        "line" => shape(Shape::Line),
        "segment" => shape(Shape::Segment),
        "box" => shape(Shape::Box),
        "path" => shape(Shape::Path),
        "polygon" => shape(Shape::Polygon),
        "circle" => shape(Shape::Circle),
        "tsvector" => Kind::TsVector,
        "tsquery" => Kind::TsQuery,
        "hstore" => Kind::Hstore,
        "vector" => Kind::Vector(None),
        "halfvec" => Kind::HalfVector(None),
        "sparsevec" => Kind::SparseVector,
        "geometry" => Kind::Geometry(None),
        "inner" => kind_of("record(int4,text)"),
        made => made_of(made),
    }
}

fn made_of(name: &str) -> Kind {
    let (form, parts) = name.strip_suffix(')').and_then(|name| name.split_once('(')).expect("a known type");
    let part = || Arc::new(kind_of(parts));
    match form {
        "spaced" => Kind::Spaced(part()),
        "range" => Kind::Range(part()),
        "multirange" => Kind::Multirange(part()),
        "record" => Kind::Composite(
            parts
                .split(',')
                .map(|part| Attribute { name: part.into(), type_oid: oid_of(part), kind: kind_of(part) })
                .collect(),
        ),
        _ => panic!("{name}"),
    }
}

/// As in the database that the values were recorded in.
fn oid_of(name: &str) -> u32 {
    match name {
        "int4" => 23,
        "text" => 25,
        "int4[]" => 1007,
        "date" => 1082,
        "inner" => 16_804,
        _ => panic!("{name}"),
    }
}

fn recorded(lines: &str) -> impl Iterator<Item = (Kind, String, Vec<u8>)> {
    lines.lines().map(|line| {
        let mut parts = line.split('\t');
        let [kind, text, hex] = [(); 3].map(|()| parts.next().expect("three parts"));
        let mut binary = Vec::new();
        bytea(RawValue::Text(format!("\\x{hex}").as_bytes()), &mut binary).unwrap();
        let text = text.replace("\\\\", "\0").replace("\\n", "\n").replace("\\t", "\t").replace('\0', "\\");
        (kind_of(kind), text, binary)
    })
}

/// Floats differ from themselves when they are NaN; their text does not.
fn shown(cell: &Cell<'_>) -> String {
    format!("{cell:?}")
}

fn check(lines: &str) {
    for (kind, text, binary) in recorded(lines) {
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
fn text_and_binary_say_what_the_server_says() {
    assert!(RECORDED.lines().count() > 380);
    check(RECORDED);
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
        let line = RECORDED.lines().find(|line| line.starts_with(&format!("numeric\t{text}\t")));
        let (_, _, binary) = recorded(line.expect(text)).next().unwrap();
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
    let values: Vec<_> = recorded(RECORDED).collect();
    let mut random = Random::new(17);
    let mut accepted = 0;
    for round in 0..120_000 {
        let (kind, text, binary) = &values[round % values.len()];
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
