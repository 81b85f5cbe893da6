//! Which tables do the fuzz targets read? One with a column of every kind.

use std::sync::Arc;

use etl::Position;
use etl::data::TableRow;
use etl::schema::{Attribute, Column, Kind, ReplicaIdentity, Shape, TableId, TableName, TableSchema};

/// Every kind, and some that are made of others.
pub fn kinds() -> Vec<Kind> {
    vec![
        Kind::Bool,
        Kind::Int2,
        Kind::Int4,
        Kind::Int8,
        Kind::Oid,
        Kind::Float4,
        Kind::Float8,
        Kind::Numeric(None),
        Kind::Numeric(Some((5, 2))),
        Kind::Text,
        Kind::Bytea,
        Kind::Date,
        Kind::Time,
        Kind::Timestamp,
        Kind::TimestampTz,
        Kind::Uuid,
        Kind::Json,
        Kind::Jsonb,
        Kind::Enum,
        Kind::Other,
        Kind::Array(Arc::new(Kind::Int4)),
        Kind::Array(Arc::new(Kind::Text)),
        Kind::Char,
        Kind::TimeTz,
        Kind::Interval,
        Kind::Network,
        Kind::MacAddress,
        Kind::Bits,
        Kind::Lsn,
        Kind::Tid,
        Kind::Xid8,
        Kind::Snapshot,
        Kind::VersionedText,
        Kind::Geometric(Shape::Point),
        Kind::Geometric(Shape::Line),
        Kind::Geometric(Shape::Segment),
        Kind::Geometric(Shape::Box),
        Kind::Geometric(Shape::Path),
        Kind::Geometric(Shape::Polygon),
        Kind::Geometric(Shape::Circle),
        Kind::Spaced(Arc::new(Kind::Int2)),
        Kind::TsVector,
        Kind::TsQuery,
        Kind::Range(Arc::new(Kind::Text)),
        Kind::Multirange(Arc::new(Kind::Timestamp)),
        composite(&[Kind::Int4, Kind::Text, composite(&[Kind::Range(Arc::new(Kind::Text))])]),
        composite(&[]),
        Kind::Hstore,
        Kind::Vector(None),
        Kind::HalfVector(None),
        Kind::SparseVector,
        Kind::Geometry(None),
        Kind::Array(Arc::new(Kind::Geometric(Shape::Box))),
        Kind::Array(Arc::new(Kind::Range(Arc::new(Kind::Text)))),
        Kind::Array(Arc::new(composite(&[Kind::Text, Kind::Interval]))),
    ]
}

fn composite(kinds: &[Kind]) -> Kind {
    let attribute =
        |(place, kind): (usize, &Kind)| Attribute { name: format!("a{place}").into(), type_oid: 0, kind: kind.clone() };
    Kind::Composite(kinds.iter().enumerate().map(attribute).collect())
}

/// A table of these columns.
pub fn table(oid: u32, kinds: &[Kind]) -> Arc<TableSchema> {
    let column = |kind: &Kind| Column {
        fill: None,
        name: "c".into(),
        attnum: 0,
        type_oid: 0,
        modifier: -1,
        type_name: "".into(),
        kind: kind.clone(),
        nullable: true,
    };
    Arc::new(TableSchema {
        last_attnum: 0,
        source_name: None,
        id: TableId(oid),
        name: TableName::new("public", "t"),
        columns: kinds.iter().map(column).collect(),
        key: Box::new([]),
        identity: ReplicaIdentity::Full,
        since: Position::ZERO,
    })
}

/// Reads every value of a row, as cell and as text.
pub fn read(row: &TableRow) {
    for column in 0..row.schema().columns.len() {
        let _ = row.get(column);
        let _ = row.text(column);
    }
}
