//! What does the source keep for a destination that answers later? All that is not settled, unless the relay has it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etl::destination::AnyDestination;
use etl::pipeline::{Ack, RunningPipeline};
use etl::store::{OperationContext, SharedStore};
use etl::{EtlResult, Lsn};
use etl_destinations::bulk::{
    Bulk, BulkDestination, BulkRow, BulkSettings, CallError, ErrorClass, Limits, Policy, PollState, Resubmit, Said,
    Schedule, SealedBatch, Submitted, UploadStats,
};
use etl_destinations::table_rules::TableRules;
use harness::postgres::{Database, database};
use serde_json::json;
use tokio_postgres::Client;

use crate::ack_relay::forgets;
use crate::running::{World, caught_up, slot_is_free, stop};

/// A system whose jobs are done once it is open; it counts how often each key came.
#[derive(Clone, Default)]
struct Gated {
    is_open: Arc<AtomicBool>,
    /// Jobs of this table are not done, though it is open.
    waits_for: Arc<Mutex<Option<&'static str>>>,
    asked: Arc<AtomicU32>,
    jobs: Arc<Mutex<Vec<Option<String>>>>,
    rows: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl BulkDestination for Gated {
    fn name(&self) -> &str {
        "gated"
    }

    fn limits(&self) -> Limits {
        Limits { max_rows: 10, max_bytes: 1 << 20, max_row_bytes: 1 << 20, in_flight: 1, rate: None }
    }

    fn policy(&self) -> Policy {
        let polls = Schedule { first: Duration::from_millis(1), longest: Duration::from_millis(5) };
        Policy { resubmit: Resubmit::UnsafeAtMostOnce, polls, ..Policy::default() }
    }

    async fn check_connection(&self) -> EtlResult<()> {
        Ok(())
    }

    fn transform(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
        out.extend_from_slice(row.row.text(0)?.unwrap_or_default().as_bytes());
        out.push(b'\n');
        Ok(())
    }

    async fn submit(&self, batch: &SealedBatch, _said: &Said<'_>) -> Result<Submitted, CallError> {
        let body =
            batch.read().await.map_err(|error| CallError { class: ErrorClass::Retry, in_doubt: false, error })?;
        let mut jobs = self.jobs.lock().unwrap();
        jobs.push(Some(String::from_utf8(body).unwrap()));
        let rows = (0, batch.manifest.rows.len() as u32);
        let vendor = json!({ "job": jobs.len() - 1, "table": batch.manifest.table.name });
        Ok(Submitted::Pending(vec![OperationContext { step: 0, vendor, rows }]))
    }

    async fn poll(&self, contexts: &[OperationContext]) -> Result<Vec<PollState>, CallError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let vendor = &contexts[0].vendor;
        let is_waited_for = self.waits_for.lock().unwrap().is_some_and(|table| vendor["table"] == table);
        if !self.is_open.load(Ordering::SeqCst) || is_waited_for {
            return Ok(vec![PollState::PENDING; contexts.len()]);
        }
        let body = self.jobs.lock().unwrap()[vendor["job"].as_u64().unwrap() as usize].take();
        for key in body.unwrap_or_default().lines() {
            *self.rows.lock().unwrap().entry(key.to_owned()).or_default() += 1;
        }
        Ok(vec![PollState::Completed; contexts.len()])
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

struct Scene {
    world: World,
    client: Client,
    system: Gated,
    spool: tempfile::TempDir,
    database: Database,
}

impl Scene {
    /// A table of ten rows that are copied, and a system that takes nothing from then on.
    async fn new(ack: Ack) -> Option<(Self, RunningPipeline)> {
        let database = database().await?;
        let client = database.client().await;
        let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10);
                   CREATE PUBLICATION p FOR TABLE t";
        client.batch_execute(sql).await.unwrap();
        let mut world = World::new(database.name(), &database.url());
        world.settings.ack = ack;
        let scene = Self { world, client, system: Gated::default(), spool: tempfile::tempdir().unwrap(), database };
        scene.system.is_open.store(true, Ordering::SeqCst);
        let running = scene.start().await;
        caught_up(&running).await;
        scene.system.is_open.store(false, Ordering::SeqCst);
        Some((scene, running))
    }

    async fn start(&self) -> RunningPipeline {
        let store: SharedStore = Arc::clone(&self.world.store);
        let settings = BulkSettings::new(self.spool.path());
        let bulk = Bulk::destination(self.system.clone(), settings, store, TableRules::default());
        self.world.start_into(AnyDestination::new(bulk)).await
    }

    async fn write(&self, first: u32) {
        let sql = format!("INSERT INTO t SELECT generate_series({first}, {first} + 4)");
        self.client.batch_execute(&sql).await.unwrap();
    }

    async fn lsn(&self, query: &str) -> Lsn {
        self.client.query_one(query, &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
    }

    /// Waits until the system was asked for a job again and again.
    async fn is_asked(&self, times: u32) {
        let until = self.system.asked.load(Ordering::SeqCst) + times;
        let waits = async {
            while self.system.asked.load(Ordering::SeqCst) < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), waits).await.expect("it is not asked");
    }

    async fn assert_each_once(&self) {
        let rows: i64 = self.client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
        let has = self.system.rows.lock().unwrap().clone();
        assert_eq!(has.len() as i64, rows, "{has:?}");
        assert!(has.values().all(|count| *count == 1), "{has:?}");
        assert_eq!(std::fs::read_dir(self.spool.path()).unwrap().count(), 0, "what is settled is not kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_the_source_forgets_nothing_that_is_not_settled() {
    let Some((scene, running)) = Scene::new(Ack::Destination).await else { return };
    let told = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database()";
    scene.write(100).await;
    let written = scene.lsn("SELECT pg_current_wal_insert_lsn()::text").await;
    // Many more feedbacks go out meanwhile.
    scene.is_asked(300).await;
    assert!(scene.lsn(told).await < written);
    assert!(scene.world.store.progress().await.unwrap().confirmed.unwrap() < written);
    scene.system.is_open.store(true, Ordering::SeqCst);
    caught_up(&running).await;
    stop(running).await;
    // What was said last is heard by then.
    slot_is_free(&scene.client).await;
    assert!(scene.lsn(told).await >= written);
    scene.assert_each_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_with_the_relay_the_source_forgets_what_is_not_settled_and_a_restart_settles_it() {
    let Some((scene, running)) = Scene::new(Ack::Relay).await else { return };
    scene.write(100).await;
    scene.is_asked(1).await;
    scene.write(200).await;
    assert!(forgets(&scene.client, &format!("etl_{}", scene.database.name())).await, "WAL is kept for the system");
    let states: Vec<&str> = scene.world.store.operations().await.unwrap().iter().map(|of| of.state.name()).collect();
    assert!(states.contains(&"submitted"), "{states:?}");
    drop(running);
    slot_is_free(&scene.client).await;
    assert_eq!(std::fs::read_dir(scene.spool.path()).unwrap().count(), 2, "the batch waits on disk");
    let handed_over = scene.system.jobs.lock().unwrap().len();
    scene.system.is_open.store(true, Ordering::SeqCst);
    let running = scene.start().await;
    caught_up(&running).await;
    stop(running).await;
    scene.assert_each_once().await;
    let more = scene.system.jobs.lock().unwrap().len() - handed_over;
    assert_eq!(more, 1, "what was handed over is asked for; the five rows after it are one batch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_table_that_waits_for_its_job_holds_up_no_later_batch_of_others_and_a_restart_repeats_none() {
    let Some((scene, running)) = Scene::new(Ack::Destination).await else { return };
    let has = |key: u32| scene.system.rows.lock().unwrap().contains_key(&key.to_string());
    let arrives = async |key: u32| {
        let waits = async {
            while !has(key) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), waits).await.expect("it does not arrive");
    };
    let sql = "CREATE TABLE quick (id int PRIMARY KEY); INSERT INTO quick VALUES (999);
               ALTER PUBLICATION p ADD TABLE quick";
    scene.client.batch_execute(sql).await.unwrap();
    scene.system.is_open.store(true, Ordering::SeqCst);
    arrives(999).await;
    *scene.system.waits_for.lock().unwrap() = Some("t");
    scene.write(100).await;
    // Each is there before the next is written, so that each is in a batch of its own.
    for key in 1000..1010 {
        let sql = format!("BEGIN; INSERT INTO quick VALUES ({key}); INSERT INTO t VALUES ({key} + 1000); COMMIT");
        scene.client.batch_execute(&sql).await.unwrap();
        arrives(key).await;
    }
    assert!(!has(100) && !has(2000), "the other table waits still");
    drop(running);
    slot_is_free(&scene.client).await;
    let running = scene.start().await;
    scene.is_asked(3).await;
    *scene.system.waits_for.lock().unwrap() = None;
    caught_up(&running).await;
    stop(running).await;
    let rows = scene.system.rows.lock().unwrap().clone();
    assert_eq!(rows.len(), 10 + 5 + 1 + 10 + 10, "{rows:?}");
    assert!(rows.values().all(|count| *count == 1), "{rows:?}");
}
