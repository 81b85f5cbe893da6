//! Does every call reach the destination behind, with what it was given, and does its answer come back?

use std::sync::{Mutex, PoisonError};

use super::*;
use crate::clock::Timestamp;
use crate::data::CopiedRows;
use crate::error::{ErrorKind, EtlError};
use crate::lsn::Lsn;
use crate::schema::{ReplicaIdentity, TableExtras, TableName};
use crate::store::CursorId;

/// Notes each call; `check_connection` fails, so that an error is seen to come back.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<String>>>);

impl Noted {
    fn note(&self, call: &str, given: impl fmt::Debug) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{call} {given:?}"));
    }
}

impl Destination for Noted {
    async fn truncate_table(&self, table_id: TableId) -> EtlResult<()> {
        self.note("truncate_table", table_id);
        Ok(())
    }
    async fn write_table_rows(&self, table_id: TableId, table_rows: Vec<TableRow>) -> EtlResult<()> {
        self.note("write_table_rows", (table_id, table_rows.len()));
        Ok(())
    }
    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        self.note("write_events", events);
        Ok(())
    }
    fn name(&self) -> &'static str {
        self.note("name", ());
        "noted"
    }
    fn capabilities(&self) -> Capabilities {
        self.note("capabilities", ());
        Capabilities::default().with_atomic().with_writes_in_flight(7)
    }
    fn value_limits(&self) -> ValueLimits {
        self.note("value_limits", ());
        LIMITS
    }
    fn needs_all_values(&self, schema: &TableSchema) -> bool {
        self.note("needs_all_values", schema);
        true
    }
    fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
        self.note("replaces_copied_rows", schema);
        true
    }
    async fn check_connection(&self) -> EtlResult<()> {
        self.note("check_connection", ());
        Err(EtlError::new(ErrorKind::DestinationUnavailable, "nobody there"))
    }
    async fn startup(&self) -> EtlResult<()> {
        self.note("startup", ());
        Ok(())
    }
    async fn shutdown(&self) -> EtlResult<()> {
        self.note("shutdown", ());
        Ok(())
    }
    async fn begin_run(&self, run: StagedRun) -> EtlResult<()> {
        self.note("begin_run", run);
        Ok(())
    }
    async fn finalize_run(&self, run: StagedRun) -> EtlResult<()> {
        self.note("finalize_run", run);
        Ok(())
    }
    async fn abandon_run(&self, run: StagedRun) -> EtlResult<()> {
        self.note("abandon_run", run);
        Ok(())
    }
    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, rows: CopiedRows) -> EtlResult<()> {
        self.note("write_copy_chunk", (table_id, chunk, rows.len()));
        Ok(())
    }
    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        self.note("write_batch", (batch, events));
        Ok(())
    }
    async fn allow_change(&self, change: TableChange) -> EtlResult<()> {
        self.note("allow_change", change);
        Ok(())
    }
    async fn complete_table(&self, table_id: TableId, extras: TableExtras) -> EtlResult<()> {
        self.note("complete_table", (table_id, extras));
        Ok(())
    }
    async fn go_back(&self, to: Position) -> EtlResult<()> {
        self.note("go_back", to);
        Ok(())
    }
    async fn replay(&self, letters: Vec<DeadLetter>) -> EtlResult<Replayed> {
        self.note("replay", letters);
        Ok(Replayed { delivered: 1, overtaken: 2, left: 3 })
    }
    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        self.note("durable_position", cursor);
        Ok(Some(POSITION))
    }
}

const LIMITS: ValueLimits = ValueLimits { lists: true, ..ValueLimits::NONE };

const POSITION: Position = Position { commit: Lsn(5), ordinal: 6 };

fn schema() -> Arc<TableSchema> {
    let (name, columns, key) = (TableName::new("public", "t"), Box::default(), Box::default());
    let (identity, since) = (ReplicaIdentity::Default, Position::ZERO);
    Arc::new(TableSchema { last_attnum: 0, source_name: None, id: TableId(1), name, columns, key, identity, since })
}

/// Makes every call once, each with other arguments.
async fn call_all(destination: &impl Destination) {
    let events = || vec![Event::Begin { xid: 3, commit: Lsn(4) }];
    let chunk = CopyChunk { generation: 1, index: 2, position: POSITION, read_at: Timestamp(8), replaces: false };
    let cursor = CursorId::Table(TableId(9));
    let batch = Batch {
        cursor,
        from: Position::ZERO,
        upto: POSITION,
        moves: vec![(TableId(9), CursorId::Main)],
        is_piece: false,
    };
    assert_eq!(destination.name(), "noted");
    assert_eq!(destination.capabilities(), Capabilities::default().with_atomic().with_writes_in_flight(7));
    assert_eq!(destination.value_limits(), LIMITS);
    assert!(destination.needs_all_values(&schema()));
    assert!(destination.replaces_copied_rows(&schema()));
    assert_eq!(destination.check_connection().await.unwrap_err().kind(), ErrorKind::DestinationUnavailable);
    destination.startup().await.unwrap();
    destination.complete_table(TableId(4), TableExtras::default()).await.unwrap();
    destination.go_back(POSITION).await.unwrap();
    let replayed = Replayed { delivered: 1, overtaken: 2, left: 3 };
    assert_eq!(destination.replay(Vec::new()).await.unwrap(), replayed);
    let run = |id: &str| StagedRun { id: id.into(), tables: vec![TableId(5)] };
    destination.begin_run(run("r1")).await.unwrap();
    destination.truncate_table(TableId(1)).await.unwrap();
    destination.write_table_rows(TableId(2), Vec::new()).await.unwrap();
    destination.write_copy_chunk(TableId(3), chunk, CopiedRows::default()).await.unwrap();
    destination.write_events(events()).await.unwrap();
    destination.write_batch(batch, events()).await.unwrap();
    let change = TableChange { before: schema(), after: schema(), is_copied: true, what: "w".to_owned() };
    destination.allow_change(change).await.unwrap();
    assert_eq!(destination.durable_position(cursor).await.unwrap(), Some(POSITION));
    destination.finalize_run(run("r2")).await.unwrap();
    destination.abandon_run(run("r3")).await.unwrap();
    destination.shutdown().await.unwrap();
}

/// The methods of the trait, as its file declares them.
fn declared() -> Vec<&'static str> {
    let file = include_str!("../mod.rs");
    let (_, body) = file.split_once("pub trait Destination").expect("the trait is declared");
    let (body, _) = body.split_once("\n}\n").expect("the trait ends");
    body.lines().filter_map(|line| line.strip_prefix("    fn ")?.split_once('(')).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn every_method_reaches_the_destination_behind_as_it_was_called() {
    let calls = |noted: &Noted| std::mem::take(&mut *noted.0.lock().unwrap_or_else(PoisonError::into_inner));
    let noted = Noted::default();
    call_all(&noted).await;
    let directly = calls(&noted);
    call_all(&AnyDestination::new(AnyDestination::new(noted.clone())).clone()).await;
    assert_eq!(calls(&noted), directly);

    let mut made: Vec<&str> = directly.iter().filter_map(|call| call.split(' ').next()).collect();
    let mut declared = declared();
    made.sort_unstable();
    declared.sort_unstable();
    assert_eq!(made, declared, "a method of the trait is not put to the test here");
}

#[test]
fn its_debug_form_is_the_name() {
    assert_eq!(format!("{:?}", AnyDestination::new(Noted::default())), "AnyDestination(\"noted\")");
}
