//! How do the rows of a full refresh get out of the source? All tables under one snapshot, several at a time.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::board::Board;
use super::copy_workers::{CopySite, Job, Read, read_all};
use super::full_refresh::{Found, Refresh, cancelled};
use super::memory_budget::CopyBudget;
use super::pace::Pace;
use super::published::Published;
use super::settings::CopySettings;
use super::table_copy::first_index;
use crate::data::CopiedRows;
use crate::destination::{AnyDestination, CopyChunk, Destination};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::postgres::{ConnectOptions, Connection, Session, query_error};
use crate::schema::TableId;
use crate::source::{
    Chunks, Leaf, PublishedTable, Snapshot, SnapshotId, WRITTEN, join_snapshot, published_tables, wait_for_writers,
};
use crate::store::Phase;
use crate::transform::Selection;

/// The pages of a leaf that are copied before a run begins.
const NOTHING: &[(u64, u64)] = &[];

/// What the copies of all tables have in common.
struct Staging {
    refresh: Arc<Refresh>,
    tables: HashMap<TableId, Published>,
    /// How many tables are copied at a time.
    turns: Semaphore,
    budget: CopyBudget,
    snapshot: String,
    token: CopyChunk,
}

impl CopySite for Staging {
    fn destination(&self) -> &AnyDestination {
        &self.refresh.destination
    }

    fn board(&self) -> &Arc<Board> {
        &self.refresh.board
    }

    fn pace(&self) -> &Pace {
        &self.refresh.pace
    }

    fn settings(&self) -> &CopySettings {
        &self.refresh.settings.copy
    }

    fn selection(&self, table: TableId) -> EtlResult<Arc<Selection>> {
        let published = self.tables.get(&table).map(|published| Arc::clone(&published.selection));
        published.ok_or_else(|| EtlError::new(ErrorKind::Internal, "no such table is copied").with("table", table))
    }

    fn options(&self, table: &PublishedTable) -> ConnectOptions {
        self.refresh.source.connect.for_purpose(&format!("copy {}", table.schema.name))
    }
}

impl Refresh {
    /// Copies all tables into the run.
    ///
    /// # Errors
    /// Of source and destination; what is staged is of no use then.
    pub(super) async fn stage(self: &Arc<Self>, found: Found) -> EtlResult<()> {
        let Found { session, publication, described, tables } = found;
        let described: Vec<&PublishedTable> = described.iter().collect();
        let position = Position::new(written(&session).await?, 0);
        for table in &described {
            let shows = |who| self.board.table(table.schema.id, |status| status.waits_for = who);
            wait_for_writers(session.client(), table, shows).await?;
        }
        let options = self.source.connect.for_purpose("snapshot");
        let snapshot = Snapshot::take_of(Connection::connect(&options).await?, &described, session.client()).await?;
        expect_unchanged(&session, &publication, &described).await?;
        let copy = &self.settings.copy;
        let token =
            CopyChunk { generation: 1, index: first_index(1), position, read_at: snapshot.read_at, replaces: false };
        let staging = Arc::new(Staging {
            refresh: Arc::clone(self),
            turns: Semaphore::new(copy.tables_in_parallel),
            budget: CopyBudget::new(&self.board.memory, copy.tables_in_parallel * copy.connections_per_table),
            snapshot: snapshot.id.clone(),
            token,
            tables: tables.into_iter().map(|published| (published.table.schema.id, published)).collect(),
        });
        let mut tasks = JoinSet::new();
        for published in staging.tables.values() {
            let locked = |leaf: &Leaf| snapshot.leaves.iter().find(|locked| locked.leaf == *leaf).cloned();
            let leaves = published.table.leaves.iter().filter_map(locked).collect();
            let snapshot = SnapshotId { id: staging.snapshot.clone(), leaves };
            let (staging, table) = (Arc::clone(&staging), Arc::clone(&published.table));
            tasks.spawn(Box::pin(async move { staging.table(table, snapshot).await }));
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(|e| EtlError::new(ErrorKind::Internal, "a copy was cut short").because(e))??;
        }
        // Until here it was in use.
        drop(snapshot);
        Ok(())
    }
}

impl Staging {
    async fn table(self: &Arc<Self>, table: Arc<PublishedTable>, snapshot: SnapshotId) -> EtlResult<()> {
        let (id, name) = (table.schema.id, &table.schema.name);
        let _turn = self.turns.acquire().await.map_err(|_| cancelled())?;
        self.board().table(id, |status| status.phase = Phase::Copying { cursor: Position::ZERO, so_far: None }.name());
        let copied = async {
            // An empty table is shown, too.
            self.destination().write_copy_chunk(id, self.token, CopiedRows::default()).await?;
            let _seat = self.budget.admit().await?;
            let mut connection = Connection::connect(&self.options(&table)).await?;
            join_snapshot(&mut connection, &table, &snapshot).await?;
            let unread = snapshot.leaves.iter().map(|leaf| (leaf, NOTHING));
            let chunks = Chunks::missing(unread, self.settings().chunk_bytes.0);
            let site = Arc::clone(self) as Arc<dyn CopySite>;
            let job = Job::of(site, &table, snapshot.clone(), self.token, chunks, &self.budget);
            match read_all(job, connection, pending()).await? {
                Read::All => Ok(()),
                Read::Stopped => Err(cancelled()),
            }
        };
        copied.await.map_err(|error: EtlError| match error.context("table") {
            None => error.with("table", name),
            Some(_) => error,
        })
    }
}

/// Everything before is written at the source: a transaction below that has written a table whose writers are gone is
/// visible.
async fn written(session: &Session) -> EtlResult<Lsn> {
    let query = format!("SELECT ({WRITTEN})::text");
    let row = session.client().query_one(&query, &[]).await.map_err(|e| query_error("ask for the WAL's end", e))?;
    row.get::<_, String>(0).parse()
}

/// That the tables, now that they are locked, are what they were described as.
async fn expect_unchanged(session: &Session, publication: &str, described: &[&PublishedTable]) -> EtlResult<()> {
    let (client, version) = (session.client(), session.server_version());
    let limit = |time| format!("SET lock_timeout = {time}");
    // Whoever waits to change a table waits for the snapshot, and is not waited for in turn.
    client.batch_execute(&limit("'1s'")).await.map_err(|e| query_error("limit a wait", e))?;
    let now = published_tables(client, publication, version).await?;
    client.batch_execute(&limit("0")).await.map_err(|e| query_error("limit a wait", e))?;
    for table in described {
        let found = now.iter().find(|now| now.schema.id == table.schema.id);
        let changed =
            found.map_or_else(|| Some("it is not published any more".to_owned()), |now| table.difference(now));
        if let Some(what) = changed {
            return Err(EtlError::new(ErrorKind::SourceUnavailable, "a table was changed while the run began")
                .with("table", &table.schema.name)
                .with("change", what)
                .hint("The run begins anew"));
        }
    }
    Ok(())
}
