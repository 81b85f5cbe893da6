//! Which paths are counted? From the bytes of the server to noted rows, and from rows to Arrow, cells and text.

use std::hint::black_box;
use std::sync::Arc;

use etl::clock::Timestamp;
use etl::data::{Change, CopiedRows, Event, Op, RowSpans, TableRow};
use etl::destination::{Capabilities, Destination};
use etl::postgres::copy_binary::CopyBinary;
use etl::postgres::pgoutput::{Message, note_change, note_kept_change, parse};
use etl::store::{MemoryStore, SchemaStore};
use etl::{EtlResult, Lsn, Position};
use etl_destinations::columnar::{ArrowLimits, ArrowTable};
use etl_destinations::metadata_columns::{ChangeType, MetadataColumns};
use etl_destinations::rowwise::{CsvFormat, JsonLines, Stamp};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::TableRules;
use etl_destinations::write_mode::WriteMode;
use etl_destinations::writer::{TableWriter, TargetTable, WriteUnit};

use crate::rows;

/// Goes it so many times, with [`ROWS`](crate::ROWS) rows each time.
pub type Path = fn(usize);

/// Every path by its name.
pub const ALL: &[(&str, Path)] = &[
    ("pgoutput text", |times| pgoutput(times, &rows::text())),
    ("pgoutput binary", |times| pgoutput(times, &rows::binary())),
    ("pgoutput binary, half of it", |times| chosen(times, &rows::binary())),
    ("copy binary", |times| copy(times, &rows::binary())),
    ("plan of upserts", plan),
    ("arrow from text", |times| arrow(times, &rows::text())),
    ("arrow from binary", |times| arrow(times, &rows::binary())),
    ("cells from text", |times| cells(times, &rows::text())),
    ("cells from binary", |times| cells(times, &rows::binary())),
    ("json from text", |times| json(times, &rows::text())),
    ("csv from binary", |times| csv(times, &rows::binary())),
];

fn pgoutput(times: usize, rows: &[TableRow]) {
    let (block, places) = rows::inserts(rows);
    let schema = rows::schema();
    for _ in 0..times {
        let mut spans = RowSpans::new();
        for place in &places {
            let Ok(Message::Insert { relation }) = parse(&block[place.clone()]) else { panic!("an insert") };
            black_box(relation);
            black_box(note_change(&block, place.clone(), &schema, &mut spans).expect("a row"));
        }
        black_box(spans.finish(block.clone()));
    }
}

/// Every other column is left out.
fn chosen(times: usize, rows: &[TableRow]) {
    let (block, places) = rows::inserts(rows);
    let whole = rows::schema();
    let kept: Vec<bool> = (0..whole.columns.len()).map(|place| place % 2 == 0).collect();
    let columns = whole.columns.iter().step_by(2).cloned().collect();
    let schema = Arc::new(etl::schema::TableSchema { columns, ..(*whole).clone() });
    for _ in 0..times {
        let mut spans = RowSpans::new();
        for place in &places {
            black_box(note_kept_change(&block, place.clone(), &schema, &kept, &mut spans).expect("a row"));
        }
        black_box(spans.finish(block.clone()));
    }
}

fn copy(times: usize, rows: &[TableRow]) {
    let (block, places) = rows::copy(rows);
    for _ in 0..times {
        let (mut copy, mut spans, mut noted) = (CopyBinary::new(rows::schema()), RowSpans::new(), Vec::new());
        for place in &places {
            copy.note_payload(&block, place.clone(), &mut spans, &mut noted).expect("a row");
        }
        black_box((spans.finish(block.clone()), noted));
    }
}

fn target() -> Arc<TargetTable> {
    let source = rows::schema();
    Arc::new(TargetTable {
        id: source.id,
        name: source.name.clone(),
        columns: source.columns.iter().map(|column| column.name.clone()).collect(),
        write_mode: WriteMode::Append,
        metadata: Some(Arc::new(MetadataColumns::default())),
        is_adopted: false,
        source,
    })
}

fn arrow(times: usize, rows: &[TableRow]) {
    let table = ArrowTable::new(&target(), ArrowLimits::ARROW);
    let rows = CopiedRows::from(rows.to_vec());
    for _ in 0..times {
        black_box(table.copied(rows.runs(), Position::new(Lsn(1), 0), Timestamp(0)).expect("a batch"));
    }
}

fn cells(times: usize, rows: &[TableRow]) {
    for _ in 0..times {
        for row in rows {
            for column in 0..row.schema().columns.len() {
                black_box(row.get(column).expect("a value"));
            }
        }
    }
}

/// Takes what it is given, and forgets it.
struct Nowhere;

impl TableWriter for Nowhere {
    fn name(&self) -> &str {
        "nowhere"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        black_box(unit);
        Ok(())
    }

    async fn reset(&self, _: &Arc<TargetTable>) -> EtlResult<()> {
        Ok(())
    }

    async fn check_connection(&self) -> EtlResult<()> {
        Ok(())
    }
}

/// A batch of changes, two of each key, folded to one row a key.
fn plan(times: usize) {
    let rows = rows::binary();
    let table_id = rows::schema().id;
    let changes = rows.iter().chain(&rows).step_by(2).zip(1..).map(|(row, ordinal)| {
        let op = Op::Update { old: None, new: row.clone() };
        Event::Change(Change { table_id, position: Position::new(Lsn(1), ordinal), committed_at: Timestamp(0), op })
    });
    let events: Vec<Event> = changes.collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let store = Arc::new(MemoryStore::new());
        store.put_schema(rows::schema()).await.expect("a schema");
        let destination = TableDestination::new(Nowhere, store, TableRules::default());
        for _ in 0..times {
            destination.write_events(events.clone()).await.expect("a unit");
        }
    });
}

const STAMP: Stamp =
    Stamp { change_type: ChangeType::Insert, position: Position { commit: Lsn(1), ordinal: 1 }, at: Timestamp(0) };

fn json(times: usize, rows: &[TableRow]) {
    let table = target();
    for _ in 0..times {
        let mut out = Vec::new();
        rows.iter().for_each(|row| JsonLines.write(&mut out, &table, row, &STAMP).expect("a line"));
        black_box(out);
    }
}

fn csv(times: usize, rows: &[TableRow]) {
    let (table, format) = (target(), CsvFormat::new(',', "\\N").expect("a format"));
    for _ in 0..times {
        let mut out = Vec::new();
        rows.iter().for_each(|row| format.write(&mut out, &table, row, &STAMP).expect("a record"));
        black_box(out);
    }
}
