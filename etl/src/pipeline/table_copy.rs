//! How do a table's existing rows reach the destination? Under one snapshot, or under one after the other.

use std::time::Duration;

use tokio::sync::watch;

use super::copy_ledger::CopyLedger;
use super::copy_workers::{Job, Read, read_all};
use super::memory_budget::CopyBudget;
use super::run::Run;
use super::table::told;
use crate::clock;
use crate::data::CopiedRows;
use crate::destination::{CopyChunk, Destination};
use crate::error::EtlResult;
use crate::failpoint;
use crate::lsn::Position;
use crate::postgres::{ConnectOptions, Session};
use crate::retry;
use crate::schema::TableId;
use crate::source::{PublishedTable, Snapshot, is_waited_for, wait_for_writers};
use crate::store::{CopySoFar, Mixed, Phase, SnapshotFilter};
use std::sync::Arc;

/// Tokens count pieces within a chunk, chunks under a snapshot, and snapshots, in this many bits each.
pub(super) const PIECE_BITS: u32 = 18;
const CHUNK_BITS: u32 = 26;

/// How often it is asked whether somebody waits to change the table.
const LOOK: Duration = Duration::from_secs(1);

/// A copy that is to be made, or gone on with.
pub(super) struct CopyOrder<'a> {
    pub(super) run: &'a Arc<Run>,
    pub(super) id: TableId,
    pub(super) generation: u64,
    /// The cursor P of the first snapshot.
    pub(super) cursor: Position,
    pub(super) so_far: Option<CopySoFar>,
    pub(super) budget: &'a CopyBudget,
    /// Says that the table is to rest.
    pub(super) leave: &'a watch::Receiver<bool>,
}

/// How a copy ended.
pub(super) enum Copied {
    /// Every row is durable.
    Whole(SnapshotFilter, Option<Mixed>),
    /// The table is to rest.
    Rests,
    /// The table was changed or rewritten since it was looked at: what was copied is of no use.
    Rewritten,
}

/// How a table began of which nothing is copied.
pub(super) enum Uncopied {
    /// What this has seen is not sent.
    Seen(SnapshotFilter),
    /// The table is to rest.
    Rests,
    /// The table was changed since it was looked at.
    Changed,
}

/// The token's number of the first piece under a snapshot.
pub(super) fn first_index(snapshots: u32) -> u64 {
    u64::from(snapshots) << (CHUNK_BITS + PIECE_BITS)
}

impl CopyOrder<'_> {
    /// Copies a table whose cursor P is fixed; its table in the destination is empty, or holds what the ledger says.
    ///
    /// # Errors
    /// Of source, destination and store. What is in the ledger needs no other copy.
    pub(super) async fn copy(&self) -> EtlResult<Copied> {
        let (run, id) = (self.run, self.id);
        let table = run.table(id)?;
        // Nothing is locked while there is no memory to read with.
        let _seat = tokio::select! {
            seat = self.budget.admit() => seat?,
            () = told(self.leave.clone()) => return Ok(Copied::Rests),
        };
        let options = copy_options(run, &table);
        let session = run.idle.session(&options).await?;
        let selection = run.selection(id)?;
        // Rows are read again by the source's keys.
        let has_key = selection.schema.has_key() && !selection.masks_key();
        let can_renew = has_key && run.destination.replaces_copied_rows(&selection.schema);
        let ledger = Arc::new(CopyLedger::open(&run.store, id).await?);
        let mut so_far = self.so_far.clone();
        loop {
            // Every transaction below that touched the table is visible in the snapshot (R4).
            let position = match &so_far {
                None => self.cursor,
                Some(_) => Position::new(run.relay.head().end, 0),
            };
            let Some(snapshot) = self.snapshot(&session, &options, &table).await? else { return Ok(Copied::Rests) };
            if !ledger.is_about(&snapshot.leaves).await || run.change_of(&session, &table).await?.is_some() {
                return Ok(Copied::Rewritten);
            }
            run.copied_files.are(id, &snapshot.leaves);
            let now = one_more(so_far.take(), &snapshot.filter);
            if can_renew {
                let phase = Phase::Copying { cursor: self.cursor, so_far: Some(now.clone()) };
                run.set_phase(id, phase).await?;
            }
            let token = CopyChunk {
                generation: self.generation,
                index: first_index(now.snapshots),
                position,
                read_at: snapshot.read_at,
                replaces: now.snapshots > 1,
            };
            if now.snapshots == 1 {
                run.destination.write_copy_chunk(id, token, CopiedRows::default()).await?;
            }
            let chunks = ledger.missing(&snapshot.leaves, run.settings.copy.chunk_bytes.0).await;
            let job = Job::new(self, &table, &snapshot, token, chunks, can_renew.then(|| Arc::clone(&ledger)));
            let old = is_old(&session, &table, run.settings.copy.snapshot_max_age, can_renew);
            match read_all(job, snapshot.connection, old).await? {
                Read::All => {
                    run.idle.keep_session(session);
                    failpoint::visit("copy.finished").await?;
                    let mixed = (now.snapshots > 1).then_some(Mixed {
                        snapshots: now.snapshots,
                        until: now.until,
                        has_gaps: true,
                    });
                    return Ok(Copied::Whole(now.snapshot, mixed));
                }
                Read::Stopped if *self.leave.borrow() => return Ok(Copied::Rests),
                Read::Stopped => so_far = Some(now),
            }
        }
    }

    /// Takes a snapshot of a table whose cursor P is fixed, and reads nothing under it.
    ///
    /// # Errors
    /// Of source and destination; where the destination's table is not as it should be.
    pub(super) async fn pass_over(&self) -> EtlResult<Uncopied> {
        let (run, id) = (self.run, self.id);
        let table = run.table(id)?;
        let options = copy_options(run, &table);
        let session = run.idle.session(&options).await?;
        let Some(snapshot) = self.snapshot(&session, &options, &table).await? else { return Ok(Uncopied::Rests) };
        if run.change_of(&session, &table).await?.is_some() {
            return Ok(Uncopied::Changed);
        }
        run.copied_files.are(id, &snapshot.leaves);
        let (position, read_at) = (self.cursor, snapshot.read_at);
        let token =
            CopyChunk { generation: self.generation, index: first_index(1), position, read_at, replaces: false };
        run.destination.write_copy_chunk(id, token, CopiedRows::default()).await?;
        run.idle.keep_session(session);
        run.idle.keep_connection(snapshot.connection).await;
        Ok(Uncopied::Seen(snapshot.filter))
    }

    /// R1 to R3; nothing when the table is to rest.
    async fn snapshot(
        &self,
        session: &Session,
        options: &ConnectOptions,
        table: &PublishedTable,
    ) -> EtlResult<Option<Snapshot>> {
        let shows = |who| self.run.board.table(self.id, |status| status.waits_for = who);
        let snapshot = async {
            wait_for_writers(session.client(), table, shows).await?;
            let connection = self.run.idle.connection(options).await?;
            Snapshot::take(connection, options, table, session.client(), shows).await
        };
        tokio::select! {
            snapshot = Box::pin(snapshot) => snapshot.map(Some),
            () = told(self.leave.clone()) => {
                shows(None);
                Ok(None)
            }
        }
    }
}

/// A copy under one snapshot more.
fn one_more(so_far: Option<CopySoFar>, seen: &SnapshotFilter) -> CopySoFar {
    match so_far {
        None => CopySoFar { snapshot: seen.clone(), snapshots: 1, until: seen.until },
        Some(before) => CopySoFar { snapshots: before.snapshots + 1, until: before.until.max(seen.until), ..before },
    }
}

/// Returns once the snapshot should be renewed; never where it cannot be, which is told.
async fn is_old(session: &Session, table: &PublishedTable, most: Duration, can_renew: bool) -> EtlResult<()> {
    let table_name = &table.schema.name;
    if !can_renew {
        retry::pause(most).await;
        tracing::warn!(table = %table_name, "the copy uses one snapshot all the time: the source cannot clean up behind it");
        std::future::pending::<()>().await;
    }
    let begun = clock::monotonic();
    loop {
        let left = most.saturating_sub(clock::monotonic().saturating_duration_since(begun));
        if left.is_zero() {
            tracing::debug!(table = %table_name, "the snapshot is old: it is renewed");
            return Ok(());
        }
        retry::pause(left.min(LOOK)).await;
        if is_waited_for(session.client(), table).await? {
            tracing::info!(table = %table_name, "somebody waits to change the table: its snapshot is renewed");
            return Ok(());
        }
    }
}

pub(super) fn copy_options(run: &Run, table: &PublishedTable) -> ConnectOptions {
    run.source.connect.for_purpose(&format!("copy {}", table.schema.name))
}
