//! What do the tests of write modes write? A table of two columns, and transactions on it.

use std::sync::Arc;

use etl::clock::Timestamp;
use etl::data::{Change, Event, OldRow, Op, RawValue, RowBuilder, TableRow};
use etl::destination::{Batch, CopyChunk};
use etl::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TableSchema};
use etl::{CursorId, Lsn, Position};

pub(crate) const TABLE: TableId = TableId(1);
pub(crate) const COMMITTED: Timestamp = Timestamp(1_700_000_000_000_000);

/// `k`, the key, and `v`.
pub(crate) fn schema() -> Arc<TableSchema> {
    let column = |(place, name): (usize, &str)| Column {
        fill: None,
        name: name.into(),
        attnum: place as i16 + 1,
        type_oid: 25,
        modifier: -1,
        type_name: "text".into(),
        kind: Kind::Text,
        nullable: place > 0,
    };
    Arc::new(TableSchema {
        last_attnum: 0,
        source_name: None,
        id: TABLE,
        name: TableName::new("public", "t"),
        columns: ["k", "v"].into_iter().enumerate().map(column).collect(),
        key: Box::new([0]),
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
    })
}

/// A row of text; `?` was not sent, `-` is null.
pub(crate) fn row(schema: &Arc<TableSchema>, values: [&str; 2]) -> TableRow {
    let raw = values.map(|value| match value {
        "?" => RawValue::Unchanged,
        "-" => RawValue::Null,
        text => RawValue::Text(text.as_bytes()),
    });
    let mut builder = RowBuilder::new();
    builder.push_raw(schema, raw.into_iter()).unwrap();
    builder.finish().remove(0)
}

/// The first chunk of a copy.
pub(crate) fn chunk() -> CopyChunk {
    CopyChunk { generation: 1, index: 1, position: Position::new(Lsn(50), 0), read_at: COMMITTED, replaces: false }
}

/// A batch of the main cursor with one transaction.
pub(crate) fn transaction(commit: u64, ops: Vec<Op>) -> (Batch, Vec<Event>) {
    let mut ordinal = 1;
    let mut events = Vec::new();
    for op in ops {
        let position = Position::new(Lsn(commit), ordinal);
        ordinal += if matches!(op, Op::Update { old: Some(_), .. }) { 2 } else { 1 };
        events.push(Event::Change(Change { table_id: TABLE, position, committed_at: COMMITTED, op }));
    }
    let upto = Position::after(Lsn(commit));
    (Batch { cursor: CursorId::Main, from: Position::ZERO, upto, moves: Vec::new(), is_piece: false }, events)
}

pub(crate) fn insert(values: [&str; 2]) -> Op {
    Op::Insert { new: row(&schema(), values) }
}

pub(crate) fn update(values: [&str; 2]) -> Op {
    Op::Update { old: None, new: row(&schema(), values) }
}

pub(crate) fn rekey(from: &str, values: [&str; 2]) -> Op {
    Op::Update { old: Some(OldRow::Key(row(&schema(), [from, "-"]))), new: row(&schema(), values) }
}

pub(crate) fn delete(key: &str) -> Op {
    Op::Delete { old: OldRow::Key(row(&schema(), [key, "-"])) }
}
