//! Does what answers later keep the promises of a destination? A system that takes a batch, says later that it has it, and
//! knows a batch again that comes twice.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etl::conformance_tests;
use etl::data::RawValue;
use etl::destination::conformance::{Abilities, Subject, UNSENT, fold};
use etl::destination::{AnyDestination, Destination, Mode, StampedText, TextRow};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, MemoryStore, OperationContext, SharedStore};
use etl::{ErrorKind, EtlError, EtlResult, Lsn, Position};
use etl_destinations::bulk::desk::{abandon, put_back};
use etl_destinations::bulk::{
    Bulk, BulkDestination, BulkRow, BulkSettings, CallError, ErrorClass, Limits, Policy, PollState, Resubmit, Said,
    Schedule, SealedBatch, Submitted, UploadStats,
};
use etl_destinations::table_rules::TableRules;
use etl_destinations::writer::TargetTable;
use serde_json::{Value, json};

use crate::rules::all_in;
use crate::small_table::{TABLE, chunk, insert, row, schema, transaction};
use crate::table::told;

/// What the system has.
#[derive(Default)]
struct Content {
    /// Jobs and how often they have been asked for; each is applied when it is first said to be done.
    jobs: HashMap<String, (u32, Vec<Value>)>,
    done: HashSet<String>,
    rows: Vec<Value>,
    /// After so many jobs it takes no more.
    most_jobs: Option<usize>,
    /// Whether it knows no job that it is asked for.
    forgets: bool,
}

#[derive(Clone, Default)]
struct Post(Arc<Mutex<Content>>);

impl BulkDestination for Post {
    fn name(&self) -> &str {
        "post"
    }

    fn limits(&self) -> Limits {
        Limits { max_rows: 7, max_bytes: 128 << 20, max_row_bytes: 128 << 20, in_flight: 1, rate: None }
    }

    fn policy(&self) -> Policy {
        let polls = Schedule { first: Duration::from_micros(100), longest: Duration::from_millis(1) };
        Policy { resubmit: Resubmit::ClientId, polls, ..Policy::default() }
    }

    async fn check_connection(&self) -> EtlResult<()> {
        Ok(())
    }

    async fn truncate(&self, table: &TargetTable) -> EtlResult<bool> {
        self.0.lock().unwrap().rows.retain(|row| row["table"] != table.id.0);
        Ok(true)
    }

    fn transform(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
        let mut values = serde_json::Map::new();
        for (place, name) in row.table.columns.iter().enumerate() {
            if row.row.raw(place) != RawValue::Unchanged {
                values.insert(
                    name.to_string(),
                    row.row.text(place)?.map_or(Value::Null, |text| text.into_owned().into()),
                );
            }
        }
        let position = row.stamp.position;
        let line = json!({
            "table": row.table.id.0, "values": values, "change": row.stamp.change_type.as_str(),
            "commit": position.commit.0, "ordinal": position.ordinal,
        });
        out.extend_from_slice(format!("{line}\n").as_bytes());
        Ok(())
    }

    async fn submit(&self, batch: &SealedBatch, _said: &Said<'_>) -> Result<Submitted, CallError> {
        let body =
            batch.read().await.map_err(|error| CallError { class: ErrorClass::Retry, in_doubt: false, error })?;
        let rows = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let rows = rows.map(|line| serde_json::from_slice(line).unwrap()).collect();
        let id = format!("{}/{}", batch.id, batch.attempt);
        let mut content = self.0.lock().unwrap();
        if content.most_jobs.is_some_and(|most| content.jobs.len() >= most) {
            let error = EtlError::new(ErrorKind::DestinationRejected, "no more today");
            return Err(CallError { class: ErrorClass::Config, in_doubt: false, error });
        }
        content.jobs.entry(id.clone()).or_insert((0, rows));
        let rows = (0, batch.manifest.rows.len() as u32);
        Ok(Submitted::Pending(vec![OperationContext { step: 0, vendor: json!({ "job": id }), rows }]))
    }

    async fn poll(&self, contexts: &[OperationContext]) -> Result<Vec<PollState>, CallError> {
        let mut content = self.0.lock().unwrap();
        if content.forgets {
            return Ok(vec![PollState::Gone; contexts.len()]);
        }
        let Content { jobs, done, rows, .. } = &mut *content;
        let state = |context: &OperationContext| {
            let id = context.vendor["job"].as_str().unwrap();
            let Some((asked, carried)) = jobs.get_mut(id) else { return PollState::Gone };
            *asked += 1;
            if *asked < 2 {
                return PollState::Pending { progress: Some(50), retry_after: None };
            }
            if done.insert(id.to_owned()) {
                rows.append(carried);
            }
            PollState::Completed
        };
        Ok(contexts.iter().map(state).collect())
    }

    async fn upload_stats(
        &self,
        _batch: &SealedBatch,
        _contexts: &[OperationContext],
        _states: &[PollState],
    ) -> Result<UploadStats, CallError> {
        Ok(UploadStats::SUCCEEDED)
    }
}

struct Posted {
    post: Post,
    dir: tempfile::TempDir,
}

impl Posted {
    fn opened(&self, rules: TableRules, store: SharedStore) -> EtlResult<AnyDestination> {
        let rules = rules.only_append("post")?;
        let settings = BulkSettings::new(self.dir.path().join("spool"));
        Ok(AnyDestination::new(Bulk::destination(self.post.clone(), settings, store, rules)))
    }

    fn stamped(&self, table: &TableSchema) -> Vec<StampedText> {
        let content = self.post.0.lock().unwrap();
        let value = |row: &Value, name: &str| match row["values"].get(name) {
            None => Some(UNSENT.to_owned()),
            Some(value) => value.as_str().map(str::to_owned),
        };
        let stamped = |row: &Value| StampedText {
            position: Position::new(Lsn(row["commit"].as_u64().unwrap()), row["ordinal"].as_u64().unwrap()),
            change_type: row["change"].as_str().unwrap().to_owned(),
            values: table.columns.iter().map(|column| value(row, &column.name)).collect(),
        };
        content.rows.iter().filter(|row| row["table"] == table.id.0).map(stamped).collect()
    }
}

impl Subject for Posted {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async { self.opened(TableRules::default(), store) })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async { Ok(Some(fold(self.stamped(table), table))) })
    }

    fn abilities(&self) -> Abilities {
        Abilities::default().with_log()
    }

    fn modes(&self) -> &[Mode] {
        &[Mode::Append]
    }

    fn open_in(&self, mode: Mode, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async move { self.opened(all_in(mode), store) })
    }

    fn stamped_rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<StampedText>>>> {
        Box::pin(async { Ok(Some(self.stamped(table))) })
    }
}

async fn posted() -> Option<Posted> {
    Some(Posted { post: Post::default(), dir: tempfile::tempdir().unwrap() })
}

conformance_tests!(posted, told);

/// Each row is handed over once, though the unit that it came in failed half-way and came again to another process.
#[tokio::test]
async fn what_is_settled_of_a_unit_is_not_handed_over_again_after_a_crash() {
    let store: SharedStore = Arc::new(MemoryStore::new());
    let posted = posted().await.unwrap();
    store.put_schema(schema()).await.unwrap();
    let rows = || (0..20).map(|n| insert([&format!("{n:02}"), "x"])).collect();
    let first = posted.open(Arc::clone(&store)).await.unwrap();
    first.truncate_table(TABLE).await.unwrap();
    first.write_copy_chunk(TABLE, chunk(), vec![row(&schema(), ["copied", "x"])].into()).await.unwrap();
    posted.post.0.lock().unwrap().most_jobs = Some(3);
    let (batch, events) = transaction(100, rows());
    let error = first.write_batch(batch, events).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationRejected, "{error}");
    drop(first);
    posted.post.0.lock().unwrap().most_jobs = None;
    let second = posted.open(Arc::clone(&store)).await.unwrap();
    let (batch, events) = transaction(100, rows());
    second.write_batch(batch, events).await.unwrap();
    let found = posted.stamped(&schema());
    assert_eq!(found.len(), 21, "none twice, none missing");
    assert_eq!(posted.post.0.lock().unwrap().jobs.len(), 4, "one of the copy, three of the unit");
    assert_eq!(std::fs::read_dir(posted.dir.path().join("spool")).unwrap().count(), 0, "nothing is left on disk");
}

/// Somebody gives up what is held while the destination runs: it goes on, with what came after.
#[tokio::test]
async fn a_running_destination_notices_that_an_operation_was_put_back_or_given_up() {
    let store: SharedStore = Arc::new(MemoryStore::new());
    let posted = posted().await.unwrap();
    store.put_schema(schema()).await.unwrap();
    let destination = posted.open(Arc::clone(&store)).await.unwrap();
    for (commit, is_given_up) in [(100, false), (200, true)] {
        posted.post.0.lock().unwrap().forgets = true;
        let rows = || (0..3).map(|n| insert([&format!("{commit}-{n}"), "x"])).collect();
        let (batch, events) = transaction(commit, rows());
        let error = destination.write_batch(batch, events).await.unwrap_err();
        assert_eq!((error.kind(), error.table()), (ErrorKind::DestinationRejected, Some(TABLE)), "{error}");
        posted.post.0.lock().unwrap().forgets = false;
        let held = store.operations().await.unwrap().into_iter().find(|of| of.state.name() == "held").unwrap();
        if is_given_up {
            abandon(&store, held, false).await.unwrap();
        } else {
            put_back(&store, held, Duration::from_secs(60), true).await.unwrap();
        }
        // What comes again, with more, as after a release of its table.
        let rows = (0..5).map(|n| insert([&format!("{commit}-{n}"), "x"])).collect();
        let (batch, events) = transaction(commit, rows);
        destination.write_batch(batch, events).await.unwrap();
    }
    let mut found: Vec<String> =
        posted.stamped(&schema()).into_iter().map(|row| row.values[0].clone().unwrap()).collect();
    found.sort();
    assert_eq!(found, ["100-0", "100-1", "100-2", "100-3", "100-4", "200-3", "200-4"], "none twice");
    assert_eq!(store.dead_letters(None, None, 9).await.unwrap().len(), 3, "what was given up is kept");
}
