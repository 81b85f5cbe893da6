//! How long after its commit is a change durable in a destination? At two thousand changes a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use etl::data::{Change, CopiedRows, Event, Op, TableRow};
use etl::destination::{AnyDestination, Batch, Capabilities, CopyChunk, Destination};
use etl::pipeline::Pipeline;
use etl::schema::TableId;
use etl::store::{CursorId, MemoryStore, SharedStore};
use etl::{EtlResult, Position};
use etl_config::{AppConfig, Environment};
use tokio_postgres::Client;

use crate::Result;
use crate::destinations::Targets;
use crate::site::{Bench, Site};

/// Changes a transaction, and how often one commits.
const CHANGES: u32 = 2;
const EVERY: Duration = Duration::from_millis(1);

const SOON: &str = "  batch: { max_age: 50ms }\n";

/// As it is by itself, and where each read takes what is there.
const READS: [(&str, &str); 2] = [("", ""), (", `coalesced_reads: false`", "    coalesced_reads: false\n")];

/// When rows became durable, by their ids.
type Seen = Arc<Mutex<HashMap<i64, Instant>>>;

/// Notes when what it forwards is durable.
#[derive(Clone)]
struct Timed {
    inner: AnyDestination,
    seen: Seen,
}

impl Destination for Timed {
    async fn truncate_table(&self, table_id: TableId) -> EtlResult<()> {
        self.inner.truncate_table(table_id).await
    }

    async fn write_table_rows(&self, table_id: TableId, rows: Vec<TableRow>) -> EtlResult<()> {
        self.inner.write_table_rows(table_id, rows).await
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        self.inner.write_events(events).await
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn startup(&self) -> EtlResult<()> {
        self.inner.startup().await
    }

    async fn shutdown(&self) -> EtlResult<()> {
        self.inner.shutdown().await
    }

    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, rows: CopiedRows) -> EtlResult<()> {
        self.inner.write_copy_chunk(table_id, chunk, rows).await
    }

    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        let id = |event: &Event| match event {
            Event::Change(Change { op: Op::Insert { new }, .. }) => new.text(0).ok().flatten()?.parse().ok(),
            _ => None,
        };
        let ids: Vec<i64> = events.iter().filter_map(id).collect();
        self.inner.write_batch(batch, events).await?;
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(ids.into_iter().map(|id| (id, now)));
        Ok(())
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        self.inner.durable_position(cursor).await
    }
}

/// Commits at a steady rate; says when each row was committed.
async fn write(client: &Client, lasts: Duration) -> Result<Vec<(i64, Instant)>> {
    let mut committed = Vec::new();
    let began = Instant::now();
    let mut next = 1;
    for turn in 1.. {
        let due = EVERY * turn;
        if due > lasts {
            break;
        }
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        let last = next + i64::from(CHANGES) - 1;
        let sql = format!("INSERT INTO ticks SELECT g, md5(g::text) FROM generate_series({next}, {last}) g");
        client.batch_execute(&sql).await?;
        let now = Instant::now();
        committed.extend((next..=last).map(|id| (id, now)));
        next = last + 1;
    }
    Ok(committed)
}

impl Bench {
    /// Of the destinations that people look into at once.
    pub(crate) async fn latency(&self, lasts: Duration) -> Result<()> {
        let targets = Targets::find(self).await?;
        self.page().head(&["commit to durable, 2000 changes a second, `max_age: 50ms`", "p50 ms", "p99 ms", "most ms"]);
        let client = harness::postgres::client(&self.server.url()).await;
        let wanted = targets.all.iter().filter(|target| ["duckdb", "postgres"].contains(&target.name));
        for (target, (reads, source)) in wanted.flat_map(|target| READS.map(|reads| (target, reads))) {
            client.batch_execute("CREATE TABLE ticks (id bigint PRIMARY KEY, v text)").await?;
            client.batch_execute("CREATE PUBLICATION ticks_pub FOR TABLE ticks").await?;
            let id = format!("ticks{}{}", target.name, reads.len());
            let site = Site { pipeline: SOON, source, ..target.site(id, "ticks_pub") };
            targets.server.psql(&format!("create database {}", site.id)).await?;
            let mut took = self.waited(&site, &client, lasts).await?;
            took.sort_by(f64::total_cmp);
            let of_hundred = |place: usize| took.get(took.len() * place / 100).copied().unwrap_or(f64::NAN);
            let most = took.last().copied().unwrap_or(f64::NAN);
            let (half, nearly_all) = (of_hundred(50), of_hundred(99));
            let line = format!("| {}{reads} | {half:.1} | {nearly_all:.0} | {most:.0} |", target.name);
            self.page().say(line);
            self.drop_slot(&site.id).await?;
            client.batch_execute("DROP PUBLICATION ticks_pub").await?;
            client.batch_execute("DROP TABLE ticks").await?;
        }
        Ok(())
    }

    /// Milliseconds from each row's commit until it is durable.
    async fn waited(&self, site: &Site<'_>, client: &Client, lasts: Duration) -> Result<Vec<f64>> {
        let app = AppConfig::from_text("bench.yaml", &self.text(site), &Environment::default());
        let app = app.map_err(|problems| problems.to_string())?;
        let store: SharedStore = Arc::new(MemoryStore::new());
        let seen = Seen::default();
        let inner = app.destination(Arc::clone(&store)).await?;
        let pipeline = Pipeline::builder(app.pipeline.id.clone(), app.source()?)
            .settings(app.settings())
            .data_dir(app.pipeline.data_dir.clone())
            .store(store)
            .destination(Timed { inner, seen: Arc::clone(&seen) })
            .build()?;
        let running = pipeline.start().await?;
        running.handle().caught_up().await?;
        let committed = write(client, lasts).await?;
        running.handle().caught_up().await?;
        running.shutdown(Duration::from_secs(60)).await?;
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = committed.iter().map(|(id, at)| {
            let durable = seen.get(id).ok_or_else(|| format!("row {id} was never written"))?;
            Ok(durable.saturating_duration_since(*at).as_secs_f64() * 1000.0)
        });
        waited.collect()
    }
}
