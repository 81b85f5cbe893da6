//! Where is it written how the parts of a run do? One board: they write, a status page and the metrics read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::settings::Settings;
use super::status::{ErrorStatus, MemoryUse, PipelineStatus, RelayUse, TableStatus};
use crate::clock::{self, Timestamp};
use crate::error::EtlError;
use crate::lsn::{Lsn, Position};
use crate::memory::MemoryBudget;
use crate::metrics::{PipelineMetrics, to_float};
use crate::relay::RelayStatus;
use crate::schema::TableId;
use crate::source::{GuardLevel, SlotStatus};
use crate::store::CursorId;

/// Where the parts of a run write what they do, and a status page reads it.
#[derive(Debug)]
pub(super) struct Board {
    status: Mutex<PipelineStatus>,
    meters: Mutex<HashMap<CursorId, Arc<CursorMeter>>>,
    main: Arc<CursorMeter>,
    changes_written: AtomicU64,
    copy_bytes: AtomicU64,
    /// What the run may hold, and holds.
    pub(super) memory: MemoryBudget,
    /// The end of what the main cursor has made durable.
    reached: AtomicU64,
    /// Whether something that happened to tables between two runs is yet to be acted on.
    is_owing: AtomicBool,
    /// Whether the run ends by itself, and somebody waits for that.
    has_end: AtomicBool,
    pub(super) metrics: PipelineMetrics,
    /// Moves whenever something on the board does.
    pub(super) changes: watch::Sender<u64>,
    /// The LSN that `caught_up` waits for: wanted, or known.
    target: watch::Sender<Target>,
}

/// What `caught_up` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Nobody asks.
    None,
    /// Somebody asks; the source has yet to say.
    Wanted,
    /// The source had flushed this much.
    Known(Lsn),
}

/// No change waits.
const NONE_WAITS: i64 = i64::MIN;

/// What one cursor holds that is not durable.
#[derive(Debug)]
pub(super) struct CursorMeter {
    /// When its oldest change was committed.
    oldest: AtomicI64,
    bytes: AtomicU64,
    behind: AtomicU64,
}

impl Default for CursorMeter {
    fn default() -> Self {
        Self { oldest: AtomicI64::new(NONE_WAITS), bytes: AtomicU64::new(0), behind: AtomicU64::new(0) }
    }
}

impl CursorMeter {
    /// The oldest change's commit, the bytes that are held, and those of the relay that are not read yet.
    pub(super) fn show(&self, oldest: Option<Timestamp>, bytes: u64, behind: u64) {
        self.oldest.store(oldest.map_or(NONE_WAITS, |at| at.0), Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.behind.store(behind, Ordering::Relaxed);
    }

    fn lag(&self, now: Timestamp) -> Duration {
        match self.oldest.load(Ordering::Relaxed) {
            NONE_WAITS => Duration::ZERO,
            oldest => now.since(Timestamp(oldest)),
        }
    }
}

impl Board {
    pub(super) fn new(id: &str, slot: &str, settings: &Settings) -> Self {
        let status = PipelineStatus {
            id: id.to_owned(),
            slot: slot.to_owned(),
            mode: settings.mode.name(),
            started_at: clock::now(),
            wal_guard: GuardLevel::Calm.name(),
            relay: RelayUse { max_bytes: settings.relay.max_bytes.0, ..RelayUse::default() },
            memory: MemoryUse { limit_bytes: settings.memory_limit.0, ..MemoryUse::default() },
            ..PipelineStatus::default()
        };
        let main = Arc::new(CursorMeter::default());
        Self {
            status: Mutex::new(status),
            meters: Mutex::new(HashMap::from([(CursorId::Main, Arc::clone(&main))])),
            main,
            changes_written: AtomicU64::new(0),
            copy_bytes: AtomicU64::new(0),
            memory: MemoryBudget::new(settings.memory_limit.as_usize()),
            reached: AtomicU64::new(0),
            is_owing: AtomicBool::new(false),
            has_end: AtomicBool::new(false),
            metrics: PipelineMetrics::new(id),
            changes: watch::Sender::new(0),
            target: watch::Sender::new(Target::None),
        }
    }

    fn locked(&self) -> MutexGuard<'_, PipelineStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meters(&self) -> MutexGuard<'_, HashMap<CursorId, Arc<CursorMeter>>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the status and wakes who waits for it.
    pub(super) fn update(&self, change: impl FnOnce(&mut PipelineStatus)) {
        change(&mut self.locked());
        self.changes.send_modify(|version| *version += 1);
    }

    /// Changes one table's status.
    pub(super) fn table(&self, id: TableId, change: impl FnOnce(&mut TableStatus)) {
        self.update(|status| {
            if let Some(table) = status.tables.iter_mut().find(|table| table.id == id) {
                change(table);
            }
        });
    }

    /// A table is published from now on.
    pub(super) fn table_added(&self, table: TableStatus) {
        self.update(|status| {
            status.tables.retain(|known| known.id != table.id);
            status.tables.push(table);
            status.tables.sort_by(|a, b| a.name.cmp(&b.name));
        });
    }

    /// A table is published no more.
    pub(super) fn table_removed(&self, id: TableId) {
        self.update(|status| status.tables.retain(|table| table.id != id));
    }

    /// Shows an error that the pipeline lives with, or dies of.
    pub(super) fn failed(&self, error: &EtlError) {
        self.metrics.error(error.kind().name());
        self.update(|status| status.last_error = Some(ErrorStatus::now(error)));
    }

    /// Shows an error of one table.
    pub(super) fn table_failed(&self, id: TableId, error: &EtlError) {
        self.metrics.error(error.kind().name());
        self.table(id, |status| status.error = Some(ErrorStatus::now(error)));
    }

    /// Where a cursor shows what it holds.
    pub(super) fn meter(&self, cursor: CursorId) -> Arc<CursorMeter> {
        Arc::clone(self.meters().entry(cursor).or_default())
    }

    /// The cursor is no more.
    pub(super) fn forget_meter(&self, cursor: CursorId) {
        self.meters().remove(&cursor);
    }

    /// The stream is open, or lost.
    pub(super) fn streaming(&self, is_open: bool) {
        self.metrics.streaming.set(if is_open { 1.0 } else { 0.0 });
        self.update(|status| {
            if status.streaming && !is_open {
                self.metrics.reconnects.increment(1);
            }
            status.streaming = is_open;
        });
    }

    /// A piece of a copy is durable.
    pub(super) fn rows_copied_of(&self, id: TableId) -> u64 {
        self.status().tables.iter().find(|table| table.id == id).map_or(0, |table| table.rows_copied)
    }

    pub(super) fn rows_copied(&self, id: TableId, rows: u64) {
        let mut name = None;
        self.table(id, |status| {
            status.rows_copied += rows;
            name = Some(status.name.to_string());
        });
        self.metrics.rows_copied(name.unwrap_or_default(), rows);
    }

    /// Copies hold so many bytes more, or less.
    pub(super) fn copy_holds(&self, bytes: u64) {
        self.copy_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn copy_let_go(&self, bytes: u64) {
        self.copy_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Everything before `end` was received, by a block of this size; the relay holds this much.
    pub(super) fn received(&self, end: Lsn, bytes: u64, relay: RelayStatus) {
        self.metrics.received_bytes.increment(bytes);
        self.update(|status| {
            status.received = end;
            status.relay.memory_bytes = relay.memory_bytes;
            status.relay.disk_bytes = relay.disk_bytes;
        });
    }

    /// A batch is durable.
    pub(super) fn batch_written(
        &self,
        cursor: CursorId,
        upto: Position,
        events: usize,
        oldest: Option<Timestamp>,
        took: Duration,
    ) {
        self.changes_written.fetch_add(events as u64, Ordering::Relaxed);
        self.metrics.changes_written.increment(events as u64);
        self.metrics.batches_written.increment(1);
        self.metrics.batch_write_seconds.record(took.as_secs_f64());
        if let Some(oldest) = oldest {
            self.metrics.commit_to_durable_seconds.record(clock::now().since(oldest).as_secs_f64());
        }
        match cursor {
            CursorId::Main => self.update(|status| status.durable = Some(upto)),
            CursorId::Table(id) => self.table(id, |status| status.durable = Some(upto)),
        }
    }

    /// Everything before is durable, as far as the main cursor goes.
    pub(super) fn reached(&self, end: Lsn) {
        self.reached.fetch_max(end.0, Ordering::Relaxed);
        if self.has_end.load(Ordering::Relaxed) || matches!(*self.target.borrow(), Target::Known(_)) {
            self.changes.send_modify(|version| *version += 1);
        }
    }

    /// The run ends by itself once everything before is durable; without, it goes on.
    pub(super) fn ends_at(&self, until: Option<Lsn>) {
        self.has_end.store(until.is_some(), Ordering::Relaxed);
        self.update(|status| status.until = until);
    }

    /// Says whether something that happened to tables between two runs is yet to be acted on.
    pub(super) fn owes(&self, is_owing: bool) {
        if self.is_owing.swap(is_owing, Ordering::Relaxed) != is_owing {
            self.changes.send_modify(|version| *version += 1);
        }
    }

    /// Whether it is.
    pub(super) fn is_owing(&self) -> bool {
        self.is_owing.load(Ordering::Relaxed)
    }

    /// How much the source is spared.
    pub(super) fn guard(&self, level: GuardLevel) {
        self.metrics.wal_guard_level.set(f64::from(level as u8));
        self.update(|status| status.wal_guard = level.name());
    }

    /// What the source says about the slot.
    pub(super) fn source(&self, slot: Option<SlotStatus>) {
        if let Some(slot) = &slot {
            self.metrics.slot_retained_bytes.set(to_float(slot.retained_bytes));
            if let Some(bytes) = slot.safe_bytes {
                self.metrics.slot_safe_bytes(bytes);
            }
        }
        self.update(|status| status.source = slot);
    }

    /// The state of everything now.
    pub(super) fn status(&self) -> PipelineStatus {
        let mut status = self.locked().clone();
        let now = clock::now();
        let meters = self.meters().clone();
        let flushed = status.source.as_ref().map_or(Lsn::ZERO, |source| source.flushed);
        let reached = self.reached.load(Ordering::Relaxed);
        status.lag_bytes = flushed.max(status.received).0.saturating_sub(reached);
        status.lag_seconds = self.main.lag(now).as_secs_f64();
        status.changes_written = self.changes_written.load(Ordering::Relaxed);
        status.memory.batch_bytes = meters.values().map(|meter| meter.bytes.load(Ordering::Relaxed)).sum();
        status.memory.used_bytes = self.memory.used() as u64;
        status.memory.most_used_bytes = self.memory.most_used() as u64;
        status.memory.copy_bytes = self.copy_bytes.load(Ordering::Relaxed);
        let (lag_bytes, lag_seconds, durable) = (status.lag_bytes, status.lag_seconds, status.durable);
        for table in &mut status.tables {
            match (table.phase, meters.get(&CursorId::Table(table.id))) {
                ("catching_up", Some(meter)) => {
                    table.lag_bytes = Some(meter.behind.load(Ordering::Relaxed));
                    table.lag_seconds = Some(meter.lag(now).as_secs_f64());
                }
                ("ready" | "catching_up", _) => {
                    (table.lag_bytes, table.lag_seconds) = (Some(lag_bytes), Some(lag_seconds));
                    table.durable = durable;
                }
                ("paused" | "quarantined", Some(meter)) => table.lag_bytes = Some(meter.behind.load(Ordering::Relaxed)),
                _ => {}
            }
        }
        status
    }

    /// Shows in the metrics what is not counted as it happens.
    pub(super) fn publish(&self) {
        let status = self.status();
        let metrics = &self.metrics;
        metrics.lag_bytes.set(to_float(status.lag_bytes));
        metrics.lag_seconds.set(status.lag_seconds);
        metrics.relay_memory_bytes.set(to_float(status.relay.memory_bytes));
        metrics.relay_disk_bytes.set(to_float(status.relay.disk_bytes));
        metrics.batch_memory_bytes.set(to_float(status.memory.batch_bytes));
        metrics.copy_memory_bytes.set(to_float(status.memory.copy_bytes));
        metrics.memory_used_bytes.set(to_float(status.memory.used_bytes));
        metrics.memory_limit_bytes.set(to_float(status.memory.limit_bytes));
        for phase in crate::store::Phase::NAMES {
            let count = status.tables.iter().filter(|table| table.phase == *phase).count();
            metrics.tables(phase, count as u64);
        }
    }

    pub(super) fn ask_for_target(&self) {
        self.target.send_replace(Target::Wanted);
    }

    /// Follows what `caught_up` asks for.
    pub(super) fn targets(&self) -> watch::Receiver<Target> {
        self.target.subscribe()
    }

    pub(super) fn set_target(&self, lsn: Lsn) {
        self.target.send_replace(Target::Known(lsn));
        self.changes.send_modify(|version| *version += 1);
    }

    pub(super) fn is_caught_up(&self) -> bool {
        let Target::Known(target) = *self.target.borrow() else { return false };
        self.has_everything_before(target)
    }

    /// Whether every table is where it goes by itself, and everything before is durable and confirmed.
    pub(super) fn has_everything_before(&self, target: Lsn) -> bool {
        let status = self.locked();
        // With `ack: relay` the source is told before the destination has it.
        status.confirmed >= target
            && !self.is_owing()
            && self.reached.load(Ordering::Relaxed) >= target.0
            && status.tables.iter().all(|t| !matches!(t.phase, "pending" | "copying" | "catching_up"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableName;

    fn table(id: u32, phase: &'static str) -> TableStatus {
        TableStatus {
            id: TableId(id),
            name: TableName::new("public", "t"),
            phase,
            rows_copied: 0,
            rows_estimated: None,
            durable: None,
            lag_bytes: None,
            lag_seconds: None,
            stale_since: None,
            waits_for: None,
            error: None,
            retry_at: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lag_grows_while_a_change_waits_and_is_gone_once_it_is_durable() {
        clock::follow_tokio(Timestamp(10_000_000));
        let board = Board::new("shop", "etl_shop", &Settings::default());
        board.update(|status| status.tables = vec![table(1, "ready"), table(2, "copying"), table(3, "catching_up")]);
        board.received(Lsn(100), 10, RelayStatus::default());
        board.reached(Lsn(60));
        let main = board.meter(CursorId::Main);
        main.show(Some(Timestamp(8_000_000)), 7, 3);
        board.meter(CursorId::Table(TableId(3))).show(None, 5, 9);
        let status = board.status();
        assert_eq!((status.lag_bytes, status.lag_seconds, status.memory.batch_bytes), (40, 2.0, 12));
        tokio::time::advance(Duration::from_secs(3)).await;
        let status = board.status();
        let lags: Vec<_> = status.tables.iter().map(|t| (t.lag_bytes, t.lag_seconds)).collect();
        assert_eq!(lags, [(Some(40), Some(5.0)), (None, None), (Some(9), Some(0.0))]);
        // The source's clock is ahead of ours.
        main.show(Some(Timestamp(60_000_000)), 7, 0);
        assert_eq!(board.status().lag_seconds, 0.0);
        main.show(None, 0, 0);
        board.reached(Lsn(100));
        assert_eq!((board.status().lag_bytes, board.status().lag_seconds), (0, 0.0));
    }
}
