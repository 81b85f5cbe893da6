//! Can somebody else write a destination? A log of all changes in a file, a line of JSON a row, in forty lines.

use std::fs::File;
use std::io::Write;

use etl::data::{CopiedRows, Event, Op, RawValue, TableRow};
use etl::destination::{CopyChunk, Destination};
use etl::schema::TableId;
use etl::{ErrorKind, EtlResult, Position, ResultExt};
use serde_json::{Value, json};

/// The file that is appended to.
pub struct Journal(pub File);

impl Journal {
    fn append(&self, lines: &[Value]) -> EtlResult<()> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        (&self.0).write_all(text.as_bytes()).and_then(|()| self.0.sync_data()).or_etl(ErrorKind::Disk, "append lines")
    }
}

fn line(what: &str, at: Position, row: &TableRow) -> EtlResult<Value> {
    let value = |place| match row.raw(place) {
        RawValue::Unchanged if what == "UPDATE" => Ok(Value::Bool(false)),
        _ => Ok(Value::from(row.text(place)?.map(String::from))),
    };
    let values = (0..row.schema().columns.len()).map(value).collect::<EtlResult<Vec<Value>>>()?;
    Ok(json!([row.schema().id.0, what, at.commit.0, at.ordinal, values]))
}

impl Destination for Journal {
    async fn truncate_table(&self, table: TableId) -> EtlResult<()> {
        self.append(&[json!([table.0, "FORGET", 0, 0, []])])
    }

    async fn write_table_rows(&self, _: TableId, rows: Vec<TableRow>) -> EtlResult<()> {
        self.append(&rows.iter().map(|row| line("UPSERT", Position::ZERO, row)).collect::<EtlResult<Vec<_>>>()?)
    }

    async fn write_copy_chunk(&self, _: TableId, chunk: CopyChunk, rows: CopiedRows) -> EtlResult<()> {
        self.append(&rows.iter().map(|row| line("UPSERT", chunk.position, row)).collect::<EtlResult<Vec<_>>>()?)
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        let mut lines = Vec::new();
        for event in &events {
            match event {
                Event::Change(change) => match &change.op {
                    Op::Insert { new } => lines.push(line("INSERT", change.position, new)?),
                    Op::Update { old: None, new } => lines.push(line("UPDATE", change.position, new)?),
                    Op::Update { old: Some(old), new } => {
                        let next = Position::new(change.position.commit, change.position.ordinal + 1);
                        lines.extend([line("DELETE", change.position, old.row())?, line("UPDATE", next, new)?]);
                    }
                    Op::Delete { old } => lines.push(line("DELETE", change.position, old.row())?),
                },
                Event::Truncate { tables, positions, .. } => lines.extend(
                    tables.iter().zip(positions).map(|(id, at)| json!([id.0, "TRUNCATE", at.commit.0, at.ordinal, []])),
                ),
                _ => {}
            }
        }
        self.append(&lines)
    }
}
