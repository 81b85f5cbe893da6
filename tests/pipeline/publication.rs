//! Do tables come and go while the pipeline runs, and is what the stream does not tell found all the same?

mod added;
mod changed;
mod named;
mod partitions;
mod removed;

use std::time::Duration;

use etl::pipeline::{RunningPipeline, TableStatus};
use harness::postgres::Database;
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

/// When something is done to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// While it shares the main cursor.
    Live,
    /// While it is being copied.
    Copying,
    /// Between two runs.
    Down,
}

const ALWAYS: [When; 3] = [When::Live, When::Copying, When::Down];

/// Keeps `busy` busy until it is dropped, so that the main cursor has something to do.
struct Writer(tokio::task::JoinHandle<()>);

impl Writer {
    async fn start(database: &Database) -> Self {
        let client = database.client().await;
        client.batch_execute("CREATE TABLE IF NOT EXISTS busy (id serial PRIMARY KEY, v int)").await.unwrap();
        Self(tokio::spawn(async move {
            while client.execute("INSERT INTO busy (v) VALUES (1)", &[]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn find(running: &RunningPipeline, table: &str) -> Option<TableStatus> {
    running.handle().status().tables.into_iter().find(|status| &*status.name.name == table)
}

/// How often a table was begun to be copied.
pub(crate) async fn generation(world: &World, client: &Client, table: &str) -> u64 {
    let id: u32 = client.query_one("SELECT $1::text::regclass::oid", &[&table]).await.unwrap().get(0);
    let states = world.store.table_states().await.unwrap();
    states.iter().find(|(known, _)| known.0 == id).map_or(0, |(_, state)| state.generation)
}

pub(crate) async fn until(what: &str, running: &RunningPipeline, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}: {:#?}", running.handle().status());
}

/// Waits until the tables are as at the source, and stay so.
pub(crate) async fn equal(world: &World, running: &RunningPipeline, client: &Client, tables: &[&str]) {
    until("equal", running, async || world.is_equal(client, tables).await).await;
    caught_up(running).await;
    world.assert_equal(client, tables).await;
}

/// Waits until the watcher has looked a few times, for what is not to happen.
async fn looked() {
    tokio::time::sleep(Duration::from_millis(1_200)).await;
}

/// Does something to a source at that time, while something else is written; ends with a run that goes on.
async fn meanwhile(world: &World, database: &Database, tables: &str, when: When, sql: &str) -> RunningPipeline {
    let client = database.client().await;
    client.batch_execute(tables).await.unwrap();
    let _writer = Writer::start(database).await;
    client.batch_execute("ALTER PUBLICATION p ADD TABLE busy").await.unwrap();
    if when == When::Copying {
        world.destination.hold(Call::CopyBegins);
    }
    let mut running = Some(world.start().await);
    match (when, &running) {
        (When::Copying, _) | (_, None) => world.destination.is_held(Call::CopyBegins).await,
        (When::Live | When::Down, Some(running)) => caught_up(running).await,
    }
    if when == When::Down
        && let Some(running) = running.take()
    {
        stop(running).await;
    }
    // What waits for the lock of a copy goes on once the copy is called back, or renewed.
    let doing = tokio::spawn({
        let (client, sql) = (database.client().await, sql.to_owned());
        async move { client.batch_execute(&sql).await.unwrap() }
    });
    if when == When::Copying {
        tokio::time::sleep(Duration::from_millis(800)).await;
        world.destination.release();
    }
    tokio::time::timeout(Duration::from_secs(60), doing).await.expect("it is done").unwrap();
    match running {
        Some(running) => running,
        None => world.start().await,
    }
}
