//! Does a table that fails alone stop alone, and is it whole once it goes on?

use std::time::{Duration, Instant};

use etl::pipeline::{Ack, PipelineHandle, RunningPipeline, TableStatus};
use etl::relay::AtLimit;
use etl::schema::TableId;
use etl::store::Phase;
use etl::{ByteSize, ErrorKind};
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::refusing::Refusing;
use crate::running::{World, caught_up, stop};

const BOTH: &[&str] = &["t", "other"];

const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE other (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 100) g;
INSERT INTO other SELECT g, 'copied' FROM generate_series(1, 100) g;
CREATE PUBLICATION p FOR TABLE t, other";

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

/// Seconds in `make test`, minutes in `make soak`.
fn lasts() -> Duration {
    Duration::from_secs(if std::env::var_os("ETL_SOAK").is_some() { 180 } else { 4 })
}

struct Scene {
    world: World,
    destination: Refusing,
    client: Client,
    table: TableId,
}

impl Scene {
    async fn new(database: &Database, first_retry: Duration) -> Self {
        let client = database.client().await;
        client.batch_execute(TABLES).await.unwrap();
        let mut world = World::new(database.name(), &database.url());
        world.settings.quarantine.first_retry = first_retry;
        let id = client.query_one("SELECT 't'::regclass::oid", &[]).await.unwrap().get(0);
        Self { destination: Refusing::new(world.memory.clone()), world, client, table: TableId(id) }
    }

    async fn start(&self) -> RunningPipeline {
        self.world.start_into(self.destination.clone()).await
    }

    async fn begun(&self) -> RunningPipeline {
        let running = self.start().await;
        caught_up(&running).await;
        running
    }

    /// One transaction changes both tables.
    async fn write(&self, number: usize) {
        let sql = format!(
            "BEGIN; INSERT INTO t VALUES ({number}, 'new'); UPDATE t SET v = '{number}' WHERE id % 7 = 0;
             INSERT INTO other VALUES ({number}, 'new'); UPDATE other SET v = '{number}' WHERE id % 7 = 0; COMMIT"
        );
        self.client.batch_execute(&sql).await.unwrap();
    }

    fn shown(&self, handle: &PipelineHandle) -> TableStatus {
        handle.status().tables.iter().find(|table| table.id == self.table).unwrap().clone()
    }

    async fn is_in(&self, phase: &str, handle: &PipelineHandle) {
        let is_there = async {
            while self.shown(handle).phase != phase {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), is_there).await;
        waited.unwrap_or_else(|_| panic!("not {phase}: {:#?}", handle.status()));
    }

    async fn generation(&self) -> u64 {
        let states = self.world.store.table_states().await.unwrap();
        states.iter().find(|(id, _)| *id == self.table).map_or(0, |(_, state)| state.generation)
    }

    async fn failures(&self) -> u32 {
        let states = self.world.store.table_states().await.unwrap();
        match states.into_iter().find(|(id, _)| *id == self.table).unwrap().1.phase {
            Phase::Quarantined(why) => why.failures,
            phase => panic!("{phase:?}"),
        }
    }

    /// The table goes on and has everything, without having been copied so often.
    async fn ends_equal(&self, running: RunningPipeline, generation: u64) {
        caught_up(&running).await;
        self.is_in("ready", &running.handle()).await;
        self.world.assert_equal(&self.client, BOTH).await;
        assert_eq!(self.generation().await, generation, "copied again, or not");
        self.write(1_000_000).await;
        caught_up(&running).await;
        self.world.assert_equal(&self.client, BOTH).await;
        assert!(self.shown(&running.handle()).retry_at.is_none());
        stop(running).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_one_tables_error_leaves_the_others_current_and_after_its_release_it_is_equal() {
    let Some(database) = database().await else { return };
    let scene = Scene::new(&database, NEVER).await;
    let running = scene.begun().await;
    let handle = running.handle();
    scene.destination.refuse(scene.table, ErrorKind::DestinationRejected);
    let (mut number, mut slowest, began) = (1000, 0.0_f64, Instant::now());
    while began.elapsed() < lasts() {
        scene.write(number).await;
        number += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
        slowest = slowest.max(handle.status().lag_seconds);
    }
    println!("{} transactions, the others' lag {slowest:.3} s at most", number - 1000);
    assert!(slowest < 2.0, "the others waited {slowest} s");
    let before = scene.world.memory.rows(scene.table).unwrap();
    assert!(before.iter().all(|row| row[1].as_deref() == Some("copied")), "something of a refused batch is there");
    caught_up(&running).await;
    scene.world.assert_equal(&scene.client, &["other"]).await;
    let shown = scene.shown(&handle);
    let error = shown.error.unwrap();
    assert_eq!(
        (shown.phase, error.kind, error.hint.as_deref()),
        ("quarantined", "destination_rejected", Some("Let it relent"))
    );
    assert!(shown.retry_at.unwrap() > error.at && shown.lag_bytes.is_some(), "{error}");

    // Tried too early, by hand, it goes back, and nobody else notices.
    assert_eq!(scene.failures().await, 1);
    handle.release(scene.table).await.unwrap();
    while scene.destination.refusals() < 2 || scene.shown(&handle).phase != "quarantined" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(scene.failures().await, 2);
    scene.destination.relent();
    handle.release(scene.table).await.unwrap();
    assert_eq!(handle.release(TableId(1)).await.unwrap_err().kind(), ErrorKind::Config);
    scene.ends_equal(running, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_what_fails_one_table_alone_is_tried_again_by_itself() {
    for kind in [ErrorKind::Value, ErrorKind::DestinationUnsupported, ErrorKind::DestinationUnavailable] {
        let Some(database) = database().await else { return };
        let scene = Scene::new(&database, Duration::from_millis(200)).await;
        let running = scene.begun().await;
        scene.destination.refuse(scene.table, kind);
        for number in 1000..1010 {
            scene.write(number).await;
        }
        scene.is_in("quarantined", &running.handle()).await;
        let is_tried_again = async {
            while scene.destination.refusals() < 5 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), is_tried_again).await.expect("it is not tried again");
        for number in 1010..1020 {
            scene.write(number).await;
        }
        scene.destination.relent();
        scene.is_in("ready", &running.handle()).await;
        scene.ends_equal(running, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_table_in_quarantine_stays_there_over_a_restart_and_keeps_its_changes() {
    let Some(database) = database().await else { return };
    let scene = Scene::new(&database, NEVER).await;
    let running = scene.begun().await;
    scene.destination.refuse(scene.table, ErrorKind::Value);
    scene.write(1000).await;
    scene.is_in("quarantined", &running.handle()).await;
    let before = scene.shown(&running.handle());
    let finished = running.shutdown(Duration::from_secs(20)).await.unwrap();
    assert_eq!(finished.quarantined, [scene.table]);
    scene.write(1001).await;
    let running = scene.start().await;
    caught_up(&running).await;
    scene.world.assert_equal(&scene.client, &["other"]).await;
    let after = scene.shown(&running.handle());
    assert_eq!((after.phase, after.error, after.retry_at), ("quarantined", before.error, before.retry_at));
    running.handle().abort();
    running.wait().await.unwrap();
    let running = scene.start().await;
    scene.write(1002).await;
    scene.destination.relent();
    running.handle().release(scene.table).await.unwrap();
    scene.ends_equal(running, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_copy_that_fails_leaves_the_other_tables_alone() {
    let Some(database) = database().await else { return };
    let scene = Scene::new(&database, NEVER).await;
    scene.destination.refuse(scene.table, ErrorKind::DestinationRejected);
    let running = scene.start().await;
    scene.write(1000).await;
    caught_up(&running).await;
    scene.is_in("quarantined", &running.handle()).await;
    scene.world.assert_equal(&scene.client, &["other"]).await;
    scene.write(1001).await;
    caught_up(&running).await;
    scene.world.assert_equal(&scene.client, &["other"]).await;
    scene.destination.relent();
    running.handle().release(scene.table).await.unwrap();
    scene.ends_equal(running, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_table_whose_backlog_the_relay_cannot_hold_is_copied_again() {
    let Some(database) = database().await else { return };
    let mut scene = Scene::new(&database, NEVER).await;
    scene.world.settings.ack = Ack::Destination;
    scene.world.settings.relay.max_bytes = ByteSize(2 << 20);
    scene.world.settings.relay.at_limit = AtLimit::Resync;
    let running = scene.begun().await;
    scene.destination.refuse(scene.table, ErrorKind::Value);
    scene.write(1000).await;
    scene.is_in("quarantined", &running.handle()).await;
    for _ in 0..8 {
        scene.client.batch_execute("UPDATE t SET v = repeat(md5(random()::text), 200)").await.unwrap();
        scene.client.batch_execute("UPDATE other SET v = repeat(md5(random()::text), 200)").await.unwrap();
    }
    caught_up(&running).await;
    scene.world.assert_equal(&scene.client, &["other"]).await;
    let shown = scene.shown(&running.handle());
    assert_eq!(shown.phase, "quarantined");
    let error = shown.error.unwrap();
    assert!(error.message.contains("the relay was full") && error.message.contains("the table is refused"), "{error}");
    scene.destination.relent();
    running.handle().release(scene.table).await.unwrap();
    scene.ends_equal(running, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_in_quarantine_is_paused_or_copied_anew_by_a_word() {
    let Some(database) = database().await else { return };
    let scene = Scene::new(&database, NEVER).await;
    let running = scene.begun().await;
    let handle = running.handle();
    scene.destination.refuse(scene.table, ErrorKind::Value);
    scene.write(1000).await;
    scene.is_in("quarantined", &handle).await;
    handle.pause(scene.table).await.unwrap();
    assert_eq!(scene.shown(&handle).phase, "paused");
    assert_eq!(handle.release(scene.table).await.unwrap_err().kind(), ErrorKind::Config, "it is paused");
    handle.resume(scene.table).await.unwrap();
    scene.is_in("quarantined", &handle).await;
    scene.destination.relent();
    handle.resync(scene.table).await.unwrap();
    scene.ends_equal(running, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_refused_change_of_shape_waits_for_a_word_and_is_followed_then() {
    for is_restarted in [false, true] {
        let Some(database) = database().await else { return };
        let scene = Scene::new(&database, Duration::from_millis(50)).await;
        let mut running = scene.begun().await;
        scene.destination.refuse(scene.table, ErrorKind::SchemaChanged);
        let sql = "BEGIN; INSERT INTO t VALUES (500, 'before'); ALTER TABLE t ADD COLUMN w int;
                   INSERT INTO t VALUES (501, 'after', 7); INSERT INTO other VALUES (500, 'other'); COMMIT";
        scene.client.batch_execute(sql).await.unwrap();
        scene.is_in("quarantined", &running.handle()).await;
        scene.client.batch_execute("UPDATE t SET w = id WHERE id < 20; INSERT INTO other VALUES (501)").await.unwrap();
        caught_up(&running).await;
        scene.world.assert_equal(&scene.client, &["other"]).await;
        assert_eq!((scene.shown(&running.handle()).retry_at, scene.destination.refusals()), (None, 1));
        if is_restarted {
            stop(running).await;
            running = scene.start().await;
            caught_up(&running).await;
            assert_eq!(scene.shown(&running.handle()).phase, "quarantined");
        }
        scene.destination.relent();
        running.handle().release(scene.table).await.unwrap();
        // How the rows before the change were read is known to the run that has met it.
        scene.ends_equal(running, if is_restarted { 2 } else { 1 }).await;
    }
}
