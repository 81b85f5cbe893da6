//! How do units reach a system that answers later? As batches within its limits, each settled before the unit is done.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use etl::clock;
use etl::destination::Capabilities;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::TableId;
use etl::store::{DeadLetter, DeadLetterId, Operation, OperationId, PIPELINE_FACT, SharedStore};
use etl::{CursorId, Position};
use tokio::sync::{Mutex as AsyncMutex, OnceCell, OwnedMutexGuard};

use super::census::Census;
use super::desk::SPOOL_FACT;
use super::driver::Driver;
use super::filling::{Filling, known};
use super::kept_back::KeptBack;
use super::lane::{Lane, Source};
use super::limits::Bucket;
use super::requests::Requests;
use super::sealed::{Draft, ManifestRow, Spool, off_thread};
use super::staging::{Staging, is_staged};
use super::{BulkDestination, BulkRow};
use crate::dead_rows::DeadLetterRules;
use crate::metadata_columns::ChangeType;
use crate::rowwise::Stamp;
use crate::table_destination::TableDestination;
use crate::table_name::NameRules;
use crate::table_rules::{RuleSettings, TableRules};
use crate::writer::{BatchRows, Replacement, StampedRow, Step, TableBatch, TableWriter, TargetTable, WriteUnit};

/// What becomes of what a system cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnsupported {
    /// An error of the table.
    Error,
    /// Nothing; it is counted.
    Ignore,
    /// It is handed over like any row, with its change type: the system is told by a field.
    Deliver,
}

/// How a system is used as a destination.
#[derive(Debug, Clone)]
pub struct BulkSettings {
    /// The directory for sealed batches: on a disk that outlives the process.
    pub spool: PathBuf,
    /// Whether rows that are refused for good are kept as dead letters, as many of a batch as the system's policy says,
    /// where the rules of the tables do not say so; else they hold their table.
    pub dead_letters: bool,
    /// What becomes of deletes where rows are the current state.
    pub on_delete: OnUnsupported,
    /// What becomes of truncates where rows are the current state.
    pub on_truncate: OnUnsupported,
}

impl BulkSettings {
    /// The defaults: no dead letters, and errors for what the system may not be able to do.
    pub fn new(spool: impl Into<PathBuf>) -> Self {
        Self {
            spool: spool.into(),
            dead_letters: false,
            on_delete: OnUnsupported::Error,
            on_truncate: OnUnsupported::Error,
        }
    }
}

/// A [`BulkDestination`] as a writer of tables.
pub struct Bulk<B> {
    pub(super) bulk: Arc<B>,
    pub(super) settings: BulkSettings,
    pub(super) store: SharedStore,
    bucket: Arc<Mutex<Option<Bucket>>>,
    pub(super) requests: Requests,
    pub(super) sequence: Arc<AtomicU64>,
    pub(super) census: Arc<Census>,
    dead_letters: Option<DeadLetterRules>,
    spool: OnceCell<Spool>,
    lanes: Mutex<Lanes>,
    /// Of the run that stages.
    pub(super) staging: Mutex<Staging>,
    /// What is shown with a later batch of the main cursor.
    pub(super) kept_back: AsyncMutex<KeptBack>,
}

/// How many batches of the engine's may be under way: for so many, tables that are done go on beside those that wait. What a
/// batch holds is free as soon as its tables have it.
const BATCHES: usize = 1024;

/// What is known of each table's batches; whoever writes one holds it.
pub(super) type Lanes = HashMap<TableId, Arc<AsyncMutex<Lane>>>;

impl<B: BulkDestination> Bulk<B> {
    /// The system as a destination.
    pub fn destination(
        bulk: B,
        settings: BulkSettings,
        store: SharedStore,
        rules: TableRules,
    ) -> TableDestination<Self> {
        let bucket = Arc::new(Mutex::new(bulk.limits().rate.map(Bucket::new)));
        let percent = bulk.policy().max_dead_percent;
        let by_settings = settings.dead_letters.then_some(DeadLetterRules { max_percent: percent });
        let dead_letters = rules.defaults.dead_letters.or(by_settings);
        let writer = Self {
            bulk: Arc::new(bulk),
            settings,
            store: Arc::clone(&store),
            bucket,
            requests: Requests::default(),
            sequence: Arc::default(),
            census: Arc::default(),
            dead_letters,
            spool: OnceCell::new(),
            lanes: Mutex::default(),
            staging: Mutex::default(),
            kept_back: AsyncMutex::default(),
        };
        let defaults = RuleSettings { dead_letters, ..rules.defaults };
        TableDestination::new(writer, store, TableRules { defaults, ..rules })
    }

    /// The system.
    pub fn system(&self) -> &B {
        &self.bulk
    }

    /// Takes up what an earlier process has left.
    pub(super) async fn spool(&self) -> EtlResult<&Spool> {
        self.spool.get_or_try_init(|| self.take_up()).await
    }

    async fn take_up(&self) -> EtlResult<Spool> {
        self.census.begin(&self.store.fact(PIPELINE_FACT).await?.unwrap_or_default(), self.bulk.name());
        let dir = self.settings.spool.clone();
        let spool = off_thread(move || Spool::open(&dir)).await?;
        let place = spool.place();
        if self.store.fact(SPOOL_FACT).await?.as_ref() != Some(&place) {
            self.store.set_fact(SPOOL_FACT, place).await?;
        }
        self.settle_kept(&spool).await?;
        let operations = self.store.operations().await?;
        let wanted: Vec<&str> =
            operations.iter().filter(|of| !of.state.is_settled()).map(|operation| &*operation.id.0).collect();
        spool.keep_only(|name| wanted.contains(&name))?;
        self.sequence.fetch_max(self.last_shown().await?.sequence, Ordering::SeqCst);
        let mut lanes: HashMap<TableId, Lane> = HashMap::new();
        let mut past = Vec::new();
        for operation in operations {
            self.sequence.fetch_max(operation.sequence, Ordering::SeqCst);
            self.census.saw(&operation);
            if is_staged(&operation) {
                // Its run has died: that is shown or given up, and not gone on with.
                continue;
            }
            if !operation.state.is_settled() && !spool.holds(&operation.id) {
                return Err(EtlError::new(ErrorKind::Disk, "a sealed batch is not where it was left")
                    .with("operation", &operation.id)
                    .with("directory", self.settings.spool.display())
                    .hint("Bring the directory back, or give the operation up (`etl operations abandon --lost`) and copy its table again"));
            }
            let lane = lanes.entry(operation.table).or_default();
            if operation.generation > lane.generation {
                (lane.generation, lane.settled) = (operation.generation, Position::ZERO);
                past.extend(lane.last.take());
            }
            if operation.state.is_settled() {
                past.extend(lane.has_settled(operation));
            } else {
                lane.live.push(operation);
            }
        }
        for operation in past {
            self.store.forget_operation(operation).await?;
        }
        let mut known = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(lanes.into_iter().map(|(table, lane)| (table, Arc::new(AsyncMutex::new(lane)))));
        drop(known);
        Ok(spool)
    }

    /// The table's lane, with what an earlier process has left in it.
    pub(super) async fn lane(&self, table: TableId) -> EtlResult<OwnedMutexGuard<Lane>> {
        // Whoever had a lane before that was taken up would go on without it.
        self.spool().await?;
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(lanes.entry(table).or_default())
        };
        Ok(lane.lock_owned().await)
    }

    fn driver(&self, spool: &Spool) -> Driver<B> {
        Driver {
            bulk: Arc::clone(&self.bulk),
            store: SharedStore::clone(&self.store),
            spool: spool.clone(),
            bucket: Arc::clone(&self.bucket),
            requests: self.requests.clone(),
            sequence: Arc::clone(&self.sequence),
            dead_letters: self.dead_letters,
            census: Arc::clone(&self.census),
        }
    }

    /// Settles what is under way, the oldest first.
    pub(super) async fn finish(&self, spool: &Spool, lane: &mut Lane) -> EtlResult<()> {
        while let Some(operation) = lane.live.first().cloned() {
            let table = operation.table;
            // What was stored since is what counts, should this be given up half-way.
            let parts = match self.driver(spool).settle(operation).await {
                Ok(parts) => parts,
                Err(error) => {
                    self.read_again(lane, table).await?;
                    return Err(error);
                }
            };
            let settled = lane.live.remove(0);
            for past in parts.into_iter().chain(lane.has_settled(settled)) {
                self.store.forget_operation(past).await?;
            }
        }
        Ok(())
    }

    /// Reads what is stored of the lane's table: somebody may have let an operation go on, or given it up.
    pub(super) async fn read_again(&self, lane: &mut Lane, table: TableId) -> EtlResult<()> {
        // What was being handed over as its write was given up is stored first.
        drop(self.requests.of(table).await);
        let is_of_lane = |of: &Operation| of.table == table && is_staged(of) == lane.run.is_some();
        let operations = self.store.operations().await?.into_iter().filter(is_of_lane);
        let (settled, live): (Vec<_>, Vec<_>) = operations.partition(|of| of.state.is_settled());
        lane.live = live;
        self.census.saw_all(table, &lane.live);
        let settled_since = lane.settled;
        for operation in settled.into_iter().filter(|operation| operation.last > settled_since) {
            if let Some(past) = lane.has_settled(operation) {
                self.store.forget_operation(past).await?;
            }
        }
        Ok(())
    }

    /// Hands rows over, in the order of the lane.
    pub(super) async fn write(&self, lane: &mut Lane, source: Source, batch: &TableBatch) -> EtlResult<()> {
        let spool = self.spool().await?;
        let table = &batch.table;
        self.census.met(table);
        self.begin(spool, lane, table.id).await?;
        let mut rows = self.rows(table, &batch.rows)?;
        match source {
            Source::Copy(generation) if generation != lane.generation => {
                (lane.generation, lane.settled, lane.last) = (generation, Position::ZERO, None);
            }
            Source::Stream => rows.retain(|(_, row)| row.stamp.position > lane.settled),
            Source::Copy(_) | Source::Unknown => {}
        }
        let draft = Draft::new(table.name.clone(), lane.framed(self.bulk.frame(table)));
        let (of, unsendable) = (rows.len(), Vec::new());
        let mut filled = Filling {
            writer: self,
            spool,
            table,
            lane: &mut *lane,
            draft,
            reach: Position::ZERO,
            of,
            so_far: 0,
            unsendable,
            replayed: Vec::new(),
        };
        let mut bytes = Vec::new();
        for (since, row) in rows {
            bytes.clear();
            let known = known(&row)?;
            let encoded = self.bulk.transform(&row, &mut bytes);
            let longest = self.bulk.limits().max_row_bytes;
            let encoded = encoded.and_then(|()| match bytes.len() as u64 > longest {
                true => Err(EtlError::new(ErrorKind::Value, "a row is larger than the system takes")
                    .with("bytes", bytes.len())
                    .with("limit", longest)),
                false => Ok(()),
            });
            match encoded {
                Ok(()) => filled.push(since, known, &bytes).await?,
                Err(error) if error.kind() == ErrorKind::Value => filled.leave_out(known, error)?,
                Err(error) => return Err(error.with("table", &table.name).of_table(table.id)),
            }
        }
        filled.keep_left_out().await?;
        filled.seal(None).await?;
        lane.is_writing = false;
        Ok(())
    }

    /// Settles what an earlier write has left, which may have been given up half-way.
    pub(super) async fn begin(&self, spool: &Spool, lane: &mut Lane, table: TableId) -> EtlResult<()> {
        if lane.is_writing || lane.is_replaying || !lane.live.is_empty() {
            self.read_again(lane, table).await?;
        }
        self.finish(spool, lane).await?;
        (lane.is_replaying, lane.is_writing) = (false, true);
        Ok(())
    }

    /// The rows, each with the place of the first change in it, and in the order of these: what is settled is then all up to
    /// a place.
    fn rows<'b>(&self, table: &'b TargetTable, rows: &'b BatchRows) -> EtlResult<Vec<(Position, BulkRow<'b>)>> {
        let since = match rows {
            BatchRows::Keyed(set) => Some(&set.since),
            _ => None,
        };
        let begins = |row: &BulkRow<'_>| {
            let own = row.stamp.position;
            since.and_then(|since| since.get(&own)).copied().unwrap_or(own)
        };
        let rows = self.unordered(table, rows)?.into_iter();
        let mut rows: Vec<_> = rows.map(|row| (begins(&row), row)).collect();
        rows.sort_by_key(|(since, row)| (*since, row.stamp.position));
        Ok(rows)
    }

    fn unordered<'b>(&self, table: &'b TargetTable, rows: &'b BatchRows) -> EtlResult<Vec<BulkRow<'b>>> {
        let of = |row: &'b StampedRow| {
            let stamp = Stamp { change_type: row.change_type, position: row.position, at: row.at };
            BulkRow { table, row: &row.row, stamp, is_partial: row.change_type == ChangeType::Update }
        };
        Ok(match rows {
            BatchRows::Copied { rows, position, at } => {
                let stamp = Stamp { change_type: ChangeType::Upsert, position: *position, at: *at };
                rows.iter().map(|row| BulkRow { table, row, stamp, is_partial: false }).collect()
            }
            BatchRows::Log(rows) => rows.iter().map(of).collect(),
            BatchRows::Keyed(set) => {
                if set.updates.iter().any(|update| update.moves) {
                    return Err(unsupported(table, "a key that changes while other values are not sent")
                        .hint("Set REPLICA IDENTITY FULL on the table"));
                }
                let mut gone: Vec<_> = set.deletes.iter().chain(&set.vacated).map(of).collect();
                for row in &mut gone {
                    row.stamp.change_type = ChangeType::Delete;
                }
                match self.settings.on_delete {
                    _ if self.bulk.takes_deletes() => {}
                    OnUnsupported::Error if !gone.is_empty() => return Err(unsupported(table, "a delete")),
                    OnUnsupported::Ignore => {
                        let ignored = gone.drain(..).count() as u64;
                        self.census.metrics().ignored(&self.census.name(table.id), "delete", ignored);
                    }
                    OnUnsupported::Error | OnUnsupported::Deliver => {}
                }
                let partial = set.updates.iter().map(|update| BulkRow { is_partial: true, ..of(&update.new) });
                gone.into_iter().chain(partial).chain(set.upserts.iter().map(of)).collect()
            }
            BatchRows::Keyless(set) if set.removals.is_empty() && set.marks.is_empty() => {
                set.inserts.iter().map(of).collect()
            }
            BatchRows::Keyless(_) => {
                return Err(unsupported(table, "an update or a delete in a table without a key")
                    .hint("Give the table a key, or set `write_mode: append`"));
            }
        })
    }

    /// The letter of a row that cannot be handed over at all; one of so many that are.
    ///
    /// # Errors
    /// The given one, where it may not become a dead letter.
    pub(super) fn unsendable(
        &self,
        table: &TargetTable,
        row: ManifestRow,
        error: EtlError,
        so_far: usize,
        of: usize,
    ) -> EtlResult<DeadLetter> {
        if !self.dead_letters.is_some_and(|rules| rules.allows(so_far as u64 + 1, of as u64)) {
            let error = if so_far > 0 { error.with("rows refused before it", so_far) } else { error };
            return Err(error.with("table", &table.name).of_table(table.id));
        }
        let place = format!("{}-{:x}-{:x}", table.id, row.position.commit.0, row.position.ordinal);
        let key = row.key.as_ref().map(|key| key.join("\u{1f}")).unwrap_or_default();
        Ok(DeadLetter {
            id: DeadLetterId { operation: OperationId(format!("{place}-{key}").into()), ordinal: 0 },
            table: table.id,
            position: row.position,
            key: row.key,
            change_type: row.change_type,
            row: row.row,
            code: "unsendable".to_owned(),
            reason: error.to_string(),
            at: clock::now(),
            attempts: 0,
            is_partial: row.is_partial,
            is_logged: row.is_logged,
            is_overtaken: false,
            replayed_in: None,
        })
    }
}

pub(super) fn unsupported(table: &TargetTable, what: &str) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnsupported, format!("the system cannot take {what}"))
        .with("table", &table.name)
        .of_table(table.id)
}

impl<B: BulkDestination> TableWriter for Bulk<B> {
    fn name(&self) -> &str {
        self.bulk.name()
    }

    fn capabilities(&self) -> Capabilities {
        let can = Capabilities::default().with_writes_in_flight(BATCHES);
        let can = if self.bulk.stages_runs() { can.with_staged_runs() } else { can };
        if self.bulk.stages_runs() && self.bulk.appends_runs() { can.with_whole_runs() } else { can }
    }

    fn name_rules(&self) -> NameRules {
        self.bulk.name_rules()
    }

    fn needs_all_values(&self) -> bool {
        self.bulk.needs_all_values()
    }

    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        match unit.batch.as_ref().filter(|batch| batch.cursor == CursorId::Main && self.bulk.appends_runs()) {
            Some(batch) => self.apply_main(&unit, batch).await,
            None => self.hand_over(&unit, None).await,
        }
    }

    /// Rows that are handed over are marked in their letters as they are sealed: after a crash they are asked for, and not
    /// handed over again. One that cannot be handed over keeps its letter.
    async fn replay(&self, unit: WriteUnit, letters: Vec<DeadLetter>) -> EtlResult<Vec<DeadLetterId>> {
        let spool = self.spool().await?;
        let writes = unit.steps.iter().find_map(|step| match step {
            Step::Write(batch) => Some(batch),
            _ => None,
        });
        let Some(batch) = writes else { return Ok(Vec::new()) };
        let table = &batch.table;
        self.census.met(table);
        let mut lane = self.lane(table.id).await?;
        self.read_again(&mut lane, table.id).await?;
        self.finish(spool, &mut lane).await?;
        lane.is_replaying = true;
        let (handed_over, mut left): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|letter| letter.replayed_in.is_some());
        let mut done: Vec<DeadLetterId> = handed_over.into_iter().map(|letter| letter.id).collect();
        let draft = Draft::new(table.name.clone(), self.bulk.frame(table));
        let (unsendable, replayed, reach) = (Vec::new(), Vec::new(), Position::ZERO);
        let of = left.len();
        let mut filled =
            Filling { writer: self, spool, table, lane: &mut lane, draft, reach, of, so_far: 0, unsendable, replayed };
        let mut bytes = Vec::new();
        for (since, row) in self.rows(table, &batch.rows)? {
            bytes.clear();
            let known = known(&row)?;
            let is_it = |letter: &DeadLetter| {
                letter.position == known.position && letter.key == known.key && letter.row == known.row
            };
            let Some(place) = left.iter().position(is_it) else { continue };
            let longest = self.bulk.limits().max_row_bytes.min(self.bulk.limits().max_bytes);
            match self.bulk.transform(&row, &mut bytes) {
                Ok(()) if bytes.len() as u64 <= longest && filled.fits_alone(bytes.len()) => {
                    let letter = left.swap_remove(place);
                    done.push(letter.id.clone());
                    filled.push(since, known, &bytes).await?;
                    filled.replayed.push(letter);
                }
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Value => {}
                Err(error) => return Err(error.with("table", &table.name).of_table(table.id)),
            }
        }
        filled.seal(None).await?;
        lane.is_replaying = false;
        Ok(done)
    }

    /// What is under way of the old rows is settled first: it would come after the new ones.
    async fn reset(&self, table: &Arc<TargetTable>) -> EtlResult<()> {
        let spool = self.spool().await?;
        self.take_back_of(table.id).await?;
        let mut lane = self.lane(table.id).await?;
        self.read_again(&mut lane, table.id).await?;
        self.finish(spool, &mut lane).await?;
        if let Some(last) = lane.last.take() {
            self.store.forget_operation(last).await?;
        }
        (lane.settled, lane.is_writing) = (Position::ZERO, false);
        if !self.bulk.reset(table).await? && lane.generation > 0 {
            tracing::warn!(table = %table.name, "the table is copied anew over the rows that the system has of it");
        }
        Ok(())
    }

    async fn begin_run(&self, run: &str, tables: &[Replacement]) -> EtlResult<()> {
        self.begin_staging(run, tables).await
    }

    async fn stage(&self, run: &str, unit: WriteUnit) -> EtlResult<()> {
        self.stage_unit(run, unit).await
    }

    async fn publish(&self, run: &str, tables: &[Replacement]) -> EtlResult<()> {
        self.publish_staged(run, tables).await
    }

    async fn abandon_run(&self, run: &str, _tables: &[Replacement]) -> EtlResult<()> {
        if self.bulk.stages_runs() { self.give_up_staged(run).await } else { Ok(()) }
    }

    async fn check_connection(&self) -> EtlResult<()> {
        self.bulk.check_connection().await
    }

    async fn startup(&self) -> EtlResult<()> {
        self.spool().await.map(drop)
    }

    async fn shutdown(&self) -> EtlResult<()> {
        self.end_kept().await;
        Ok(())
    }

    async fn durable_position(&self, _cursor: CursorId) -> EtlResult<Option<Position>> {
        Ok(None)
    }
}
