//! Which rows are counted? Sixteen columns of many types, as the bench's second workload has them.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use etl::Position;
use etl::data::{RawValue, RowBuilder, TableRow};
use etl::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TableSchema};

/// How many rows a round has.
pub const ROWS: usize = 200;

/// An oid, a type and what a row has there; `{}` is the row's number.
const COLUMNS: &[(u32, &str, &str)] = &[
    (20, "bigint", "{}"),
    (23, "integer", "{}7"),
    (21, "smallint", "-42"),
    (1700, "numeric(18,4)", "{}79190.1234"),
    (701, "double precision", "{}.618033988749895"),
    (16, "boolean", "t"),
    (25, "text", "c4ca4238a0b923820dcc"),
    (
        25,
        "text",
        "c4ca4238a0b923820dcc509a6f75849bc81e728d9d4c2f636f067f89cc14862ceccbc87e4b5ce2fe28308fd9f2a7baf3abcd",
    ),
    (1043, "character varying(50)", "customer-{}"),
    (1184, "timestamp with time zone", "2024-02-29 12:34:56.789012+00"),
    (1114, "timestamp without time zone", "2024-02-29 12:34:56.789012"),
    (1082, "date", "2024-02-29"),
    (2950, "uuid", "c4ca4238-a0b9-2382-0dcc-509a6f75849b"),
    (
        3802,
        "jsonb",
        "{\"id\": {}, \"tag\": \"eccbc87e4b5ce2fe28308fd9\", \"name\": \"user\", \"score\": 0.1, \"active\": false}",
    ),
    (17, "bytea", "\\xc4ca4238a0b923820dcc509a6f75849bc81e728d9d4c2f636f067f89cc14862c"),
    (1007, "integer[]", "{1,20,300}"),
];

pub(crate) fn schema() -> Arc<TableSchema> {
    let column = |(place, (type_oid, type_name, _)): (usize, &(u32, &str, &str))| {
        let modifier = if *type_oid == 1700 { ((18 << 16) | 4) + 4 } else { -1 };
        let kind = match *type_oid {
            1007 => Kind::Array(Arc::new(Kind::Int4)),
            oid => Kind::of_builtin(oid, modifier).unwrap_or(Kind::Other),
        };
        Column {
            fill: None,
            name: format!("c{place}").into(),
            attnum: place as i16 + 1,
            type_oid: *type_oid,
            modifier,
            type_name: (*type_name).into(),
            kind,
            nullable: true,
        }
    };
    Arc::new(TableSchema {
        last_attnum: 0,
        id: TableId(16_400),
        name: TableName::new("public", "wide"),
        source_name: None,
        columns: COLUMNS.iter().enumerate().map(column).collect(),
        key: Box::new([0]),
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
    })
}

/// Rows in the server's text form.
pub(crate) fn text() -> Vec<TableRow> {
    let schema = schema();
    let mut builder = RowBuilder::new();
    for row in 0..ROWS {
        let values: Vec<String> =
            COLUMNS.iter().map(|(_, _, value)| value.replace("{}", &(row + 1).to_string())).collect();
        let raw = values.iter().map(|value| RawValue::Text(value.as_bytes()));
        builder.push_raw(&schema, raw).expect("a value a column");
    }
    builder.finish()
}

/// The same rows in its binary form.
pub(crate) fn binary() -> Vec<TableRow> {
    let mut builder = RowBuilder::new();
    for row in text() {
        let cells: Vec<_> = (0..COLUMNS.len()).map(|column| row.get(column).expect("a value")).collect();
        builder.push(row.schema(), &cells).expect("cells of the right types");
    }
    builder.finish()
}

/// Insert messages of pgoutput, one a row, in one block; where each lies.
pub(crate) fn inserts(rows: &[TableRow]) -> (Bytes, Vec<std::ops::Range<usize>>) {
    let (mut block, mut places) = (BytesMut::new(), Vec::new());
    for row in rows {
        let start = block.len();
        block.put_u8(b'I');
        block.put_u32(row.schema().id.0);
        block.put_u8(b'N');
        block.put_u16(COLUMNS.len() as u16);
        for column in 0..COLUMNS.len() {
            put(&mut block, row.raw(column), true);
        }
        places.push(start..block.len());
    }
    (block.freeze(), places)
}

/// The data of a binary copy, a payload a row; where each lies. The first has the header.
pub(crate) fn copy(rows: &[TableRow]) -> (Bytes, Vec<std::ops::Range<usize>>) {
    let (mut block, mut places) = (BytesMut::new(), Vec::new());
    for row in rows {
        let start = block.len();
        if start == 0 {
            block.put_slice(b"PGCOPY\n\xff\r\n\0");
            block.put_u64(0);
        }
        block.put_u16(COLUMNS.len() as u16);
        for column in 0..COLUMNS.len() {
            put(&mut block, row.raw(column), false);
        }
        places.push(start..block.len());
    }
    (block.freeze(), places)
}

fn put(block: &mut BytesMut, value: RawValue<'_>, tagged: bool) {
    let (tag, bytes) = match value {
        RawValue::Text(bytes) => (b't', bytes),
        RawValue::Binary(bytes) => (b'b', bytes),
        RawValue::Null | RawValue::Unchanged => return block.put_u8(b'n'),
    };
    if tagged {
        block.put_u8(tag);
    }
    block.put_u32(bytes.len() as u32);
    block.put_slice(bytes);
}
