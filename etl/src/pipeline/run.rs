//! What do the parts of a run have in common?

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc, watch};

use super::allowed::Wished;
use super::apply::{Changed, Leave, LeftChanged, LeftFailed, MainRequest};
use super::backlog::Notes;
use super::board::Board;
use super::control::Stop;
use super::data_dir::DataDir;
use super::idle_connections::IdleConnections;
use super::pace::Pace;
use super::progress::Progress;
use super::published::PublishedTables;
use super::quarantine::Quarantines;
use super::settings::{Ack, Settings};
use super::streams::Streams;
use super::watch::CopiedFiles;
use crate::clock::Timestamp;
use crate::destination::{AnyDestination, Destination};
use crate::error::EtlResult;
use crate::lsn::{Lsn, Position};
use crate::relay::Relay;
use crate::schema::TableId;
use crate::source::{PublishedTable, SourceConfig, StreamRequest, Touched};
use crate::store::CursorId;
use crate::store::{Held, Phase, SharedStore, SnapshotFilter, TableState};
use crate::transform::Selection;

/// What every task of a running pipeline works with.
pub(super) struct Run {
    pub(super) source: SourceConfig,
    pub(super) settings: Settings,
    pub(super) store: SharedStore,
    pub(super) destination: AnyDestination,
    pub(super) relay: Relay,
    pub(super) progress: Progress,
    pub(super) pace: Pace,
    pub(super) board: Arc<Board>,
    pub(super) stop: Arc<watch::Sender<Stop>>,
    /// The main cursor's ear.
    pub(super) requests: mpsc::Sender<MainRequest>,
    pub(super) published: PublishedTables,
    /// Where tables are told of that have changed.
    pub(super) changed: mpsc::UnboundedSender<LeftChanged>,
    /// Where tables are told of that have failed.
    pub(super) failed: mpsc::UnboundedSender<LeftFailed>,
    pub(super) quarantines: Quarantines,
    pub(super) states: States,
    pub(super) wished: Wished,
    /// What each table was copied from last.
    pub(super) copied_files: CopiedFiles,
    /// What copies leave to each other.
    pub(super) idle: IdleConnections,
    pub(super) streams: Streams,
    /// Told when rows come of a table that is not known.
    pub(super) strangers: Notify,
    /// Tables that share the main cursor but may still need their snapshots, and what those have seen at most.
    /// Held while the state of any of them is stored: the cursor and whoever confirms both store it.
    pub(super) settling: AsyncMutex<Vec<(TableId, Lsn)>>,
    /// What is noted of how far the main cursor is.
    pub(super) notes: AsyncMutex<Notes>,
    /// Up to where each table has something.
    pub(super) touched: Touched,
    pub(super) publication: String,
    pub(super) slot: String,
    /// Where the run ends by itself.
    pub(super) until: Option<Lsn>,
    /// Held for as long as anything runs.
    pub(super) _data_dir: DataDir,
}

impl Run {
    /// Up to where what the cursor brings is shown at once, where it is.
    pub(super) fn shown_whole(&self, cursor: CursorId) -> Option<Lsn> {
        self.until.filter(|_| cursor == CursorId::Main && self.destination.capabilities().whole_runs)
    }

    /// The table shares the main cursor from now on, durably. It is ready once all that its copy may have seen is
    /// durable and confirmed: only then no restart reads it again and needs the snapshot to tell (R4).
    pub(super) async fn table_joined(&self, table: TableId, seen_until: Lsn) -> EtlResult<()> {
        self.settling.lock().await.push((table, seen_until));
        self.settle().await
    }

    /// Makes the tables ready that need their snapshots no more.
    pub(super) async fn settle(&self) -> EtlResult<()> {
        let mut settling = self.settling.lock().await;
        let passed = self.progress.passed();
        let settled: Vec<(TableId, Lsn)> = settling.extract_if(.., |(_, until)| passed >= *until).collect();
        if !settled.is_empty() {
            self.note_reached().await?;
        }
        for (table, _) in settled {
            self.table_is_ready(table).await?;
        }
        Ok(())
    }

    /// Notes how far the main cursor is, where the source may be told more.
    pub(super) async fn note_reached(&self) -> EtlResult<()> {
        let mut notes = self.notes.lock().await;
        let received = self.relay.head().last.map_or(Lsn::ZERO, |last| last.end);
        notes.note(&self.store, self.progress.reached_now(), received).await
    }

    async fn table_is_ready(&self, table: TableId) -> EtlResult<()> {
        // Stored first: from here on it is known what the table has.
        self.touched.is_copied(&self.store, table, self.progress.reached_now()).await?;
        self.set_phase(table, Phase::Ready).await?;
        self.store.forget_cursor(CursorId::Table(table)).await?;
        self.own_cursor_closed();
        self.board.forget_meter(CursorId::Table(table));
        tracing::info!(table = %self.name(table), "the table is ready");
        Ok(())
    }

    /// A table has a cursor of its own from here on: what it needs is in the relay before it is confirmed.
    pub(super) fn own_cursor_opened(&self) {
        self.progress.own_cursor_opened();
        self.relay.require_durable(true);
    }

    /// It has none any more.
    pub(super) fn own_cursor_closed(&self) {
        if self.progress.own_cursor_closed() && self.settings.ack == Ack::Destination {
            self.relay.require_durable(false);
        }
    }

    /// The table has left the main cursor, durably: from `upto` on its changes are for a cursor of its own.
    pub(super) async fn table_left(
        &self,
        table: TableId,
        why: Leave,
        upto: Position,
        seen: Option<SnapshotFilter>,
    ) -> EtlResult<()> {
        let mut settling = self.settling.lock().await;
        if settling.extract_if(.., |(settling, _)| *settling == table).count() == 0 {
            self.own_cursor_opened();
        }
        self.store.advance(CursorId::Table(table), upto).await?;
        self.board.table(table, |status| status.durable = Some(upto));
        let held = Held { cursor: Some(upto), snapshot: seen, ..Held::default() };
        match why {
            Leave::Rename => {
                let snapshot = held.snapshot.unwrap_or_else(SnapshotFilter::nothing);
                self.set_phase(table, Phase::CatchingUp { cursor: upto, snapshot, mixed: None }).await
            }
            Leave::Pause => self.set_phase(table, Phase::Paused(held)).await,
            Leave::Resync => self.set_phase(table, Phase::Pending).await,
            Leave::Quarantine(error) => self.quarantine(table, &error, held).await,
        }
    }

    /// Says that a table has changed at the source, and what becomes of it.
    pub(super) fn show_changed(&self, Changed { table, what }: &Changed) {
        tracing::warn!(table = %self.name(*table), what, "the table changed at the source: it is copied as it is now");
    }

    /// What the relay holds for a table of the main cursor is dropped: stored before anything else is done, it is
    /// copied anew by this run or the next.
    pub(super) async fn table_given_up(&self, table: TableId) -> EtlResult<()> {
        let mut settling = self.settling.lock().await;
        settling.retain(|(settling, _)| *settling != table);
        if self.states.get(table).phase == Phase::Ready {
            self.own_cursor_opened();
        }
        self.set_phase(table, Phase::Pending).await
    }

    /// The position that the destination stores for a cursor, where it stores any.
    pub(super) async fn destination_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        self.destination.durable_position(cursor).await
    }

    /// Stores what is being done with the table, and shows it.
    pub(super) async fn set_phase(&self, table: TableId, phase: Phase) -> EtlResult<()> {
        let state = self.states.get(table);
        self.set_state(table, TableState { phase, ..state }).await
    }

    /// Stores the state of a table, and shows it.
    pub(super) async fn set_state(&self, table: TableId, state: TableState) -> EtlResult<()> {
        let known = self.states.get(table).revision;
        let expect = (known > 0).then_some(known);
        let phase = state.phase.clone();
        let revision = self.store.set_table_state(table, expect, state.clone()).await?;
        self.states.put(table, TableState { revision, ..state });
        self.board.table(table, |status| {
            status.shows(&phase);
            status.stale_since = status.stale_since.filter(|_| phase != Phase::Ready);
        });
        Ok(())
    }

    /// What is to be streamed.
    pub(super) fn stream_request(&self, is_binary: bool) -> StreamRequest<'_> {
        StreamRequest {
            options: &self.source.connect,
            slot: &self.slot,
            publication: &self.publication,
            is_binary,
            is_streaming: self.source.streaming,
            is_two_phase: self.source.two_phase,
            origin: self.source.origin,
            decoding_memory: self.source.decoding_memory(),
            memory: &self.board.memory,
        }
    }

    /// The table with this oid.
    pub(super) fn table(&self, table: TableId) -> EtlResult<Arc<PublishedTable>> {
        self.published.get(table).map(|published| published.table)
    }

    /// What of the table is passed on.
    pub(super) fn selection(&self, table: TableId) -> EtlResult<Arc<Selection>> {
        self.published.get(table).map(|published| published.selection)
    }

    /// The table's name, for messages.
    pub(super) fn name(&self, table: TableId) -> String {
        self.published.name(table)
    }
}

/// The table states as they are stored.
#[derive(Debug, Default)]
pub(super) struct States(Mutex<HashMap<TableId, TableState>>);

impl States {
    pub(super) fn new(states: impl IntoIterator<Item = (TableId, TableState)>) -> Self {
        Self(Mutex::new(states.into_iter().collect()))
    }

    /// Which copy each table has, or had last.
    pub(super) fn generations(&self) -> HashMap<TableId, u64> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.iter().map(|(table, state)| (*table, state.generation)).collect()
    }

    /// The state of a table; pending where none is stored.
    pub(super) fn get(&self, table: TableId) -> TableState {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.get(&table).cloned().unwrap_or(TableState::PENDING)
    }

    /// The table in quarantine that is tried again next, and when.
    pub(super) fn next_retry(&self) -> Option<(TableId, Timestamp)> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = states.iter().filter_map(|(id, state)| match &state.phase {
            Phase::Quarantined(why) => Some((*id, why.retry_at?)),
            _ => None,
        });
        due.min_by_key(|(_, at)| *at)
    }

    /// The tables in quarantine, by their ids.
    pub(super) fn quarantined(&self) -> Vec<TableId> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |state: &TableState| matches!(state.phase, Phase::Quarantined(_));
        let mut found: Vec<TableId> = states.iter().filter(|(_, state)| waits(state)).map(|(id, _)| *id).collect();
        found.sort_unstable();
        found
    }

    /// The state of a table, as it is stored.
    pub(super) fn put(&self, table: TableId, state: TableState) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(table, state);
    }
}
