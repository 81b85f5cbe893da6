//! What has a server written? Values of every kind in both forms, for tests here and of destinations.

use std::sync::Arc;

use super::RawValue;
use super::decode::bytea;
use crate::schema::{Attribute, Kind, Shape};

/// From PostgreSQL 15, and 18 for what came later: kind, text form as the output functions give it, binary form in hex, as
/// `..._send` give it (PostGIS: from its documentation); in the text, backslash, newline and tab are escaped.
const RECORDED: &str = include_str!("decode/recorded.tsv");

/// A value that a server wrote.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The kind's name in the record: `int4`, `int4[]`, `range(int4)`, `record(int4,text)`.
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// Its text form.
    pub text: String,
    /// Its binary form.
    pub binary: Vec<u8>,
}

/// All values that were recorded.
pub fn recorded() -> impl Iterator<Item = Recorded> {
    RECORDED.lines().map(|line| {
        let mut parts = line.split('\t');
        let [name, text, hex] = [(); 3].map(|()| parts.next().expect("three parts"));
        let mut binary = Vec::new();
        bytea(RawValue::Text(format!("\\x{hex}").as_bytes()), &mut binary).expect("digits");
        let text = text.replace("\\\\", "\0").replace("\\n", "\n").replace("\\t", "\t").replace('\0', "\\");
        Recorded { name, kind: kind_of(name), text, binary }
    })
}

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
