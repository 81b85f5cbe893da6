//! How do units reach a system that answers later? As batches within its limits, each settled before the unit is done.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use etl::clock;
use etl::data::RawValue;
use etl::destination::Capabilities;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::TableId;
use etl::store::{DeadLetter, DeadLetterId, Operation, OperationId, OperationState, SharedStore};
use etl::{CursorId, Position};
use futures_util::future::join_all;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, OwnedMutexGuard};

use super::driver::Driver;
use super::limits::Bucket;
use super::sealed::{Draft, ManifestRow, Spool, named, off_thread};
use super::{BulkDestination, BulkRow};
use crate::metadata_columns::ChangeType;
use crate::rowwise::Stamp;
use crate::table_destination::TableDestination;
use crate::table_rules::TableRules;
use crate::writer::{BatchRows, StampedRow, Step, TableBatch, TableWriter, TargetTable, Truncated, WriteUnit};

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
    /// Whether rows that are refused for good are kept as dead letters; else they hold their table.
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
    bulk: B,
    settings: BulkSettings,
    store: SharedStore,
    bucket: Mutex<Option<Bucket>>,
    sequence: AtomicU64,
    spool: OnceCell<Spool>,
    lanes: Mutex<HashMap<TableId, Arc<AsyncMutex<Lane>>>>,
}

/// What is known of one table's batches.
#[derive(Debug, Default)]
struct Lane {
    generation: u64,
    /// Up to where its changes are settled.
    settled: Position,
    /// Up to where they were when a write was cut short: what comes again is left out, up to there.
    resumed: Position,
    /// Whether a write is under way, or was when it was cut short.
    is_writing: bool,
    /// What is not settled yet, in order.
    live: Vec<Operation>,
    /// The operation by which `settled` is known after a restart.
    last: Option<OperationId>,
}

impl<B: BulkDestination> Bulk<B> {
    /// The system as a destination.
    pub fn destination(
        bulk: B,
        settings: BulkSettings,
        store: SharedStore,
        rules: TableRules,
    ) -> TableDestination<Self> {
        let bucket = Mutex::new(bulk.limits().rate.map(Bucket::new));
        let (sequence, spool, lanes) = (AtomicU64::new(0), OnceCell::new(), Mutex::default());
        let writer = Self { bulk, settings, store: Arc::clone(&store), bucket, sequence, spool, lanes };
        TableDestination::new(writer, store, rules)
    }

    /// The system.
    pub fn system(&self) -> &B {
        &self.bulk
    }

    /// Takes up what an earlier process has left.
    async fn spool(&self) -> EtlResult<&Spool> {
        self.spool.get_or_try_init(|| self.take_up()).await
    }

    async fn take_up(&self) -> EtlResult<Spool> {
        let dir = self.settings.spool.clone();
        let spool = off_thread(move || Spool::open(&dir)).await?;
        let operations = self.store.operations().await?;
        let wanted: Vec<&str> =
            operations.iter().filter(|of| !of.state.is_settled()).map(|operation| &*operation.id.0).collect();
        spool.keep_only(|name| wanted.contains(&name))?;
        let mut lanes: HashMap<TableId, Lane> = HashMap::new();
        for operation in operations {
            self.sequence.fetch_max(operation.sequence, Ordering::SeqCst);
            if !operation.state.is_settled() && !spool.holds(&operation.id) {
                return Err(EtlError::new(ErrorKind::Disk, "a sealed batch is not where it was left")
                    .with("operation", &operation.id)
                    .with("directory", self.settings.spool.display())
                    .hint("Bring the directory back, or give the operation up and copy its table again"));
            }
            let lane = lanes.entry(operation.table).or_default();
            if operation.generation > lane.generation {
                (lane.generation, lane.settled, lane.last) = (operation.generation, Position::ZERO, None);
            }
            if !operation.state.is_settled() {
                lane.live.push(operation);
            } else if operation.generation == lane.generation && operation.last >= lane.settled {
                (lane.settled, lane.last, lane.is_writing) = (operation.last, Some(operation.id), true);
            }
        }
        let mut known = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(lanes.into_iter().map(|(table, lane)| (table, Arc::new(AsyncMutex::new(lane)))));
        drop(known);
        Ok(spool)
    }

    async fn lane(&self, table: TableId) -> OwnedMutexGuard<Lane> {
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(lanes.entry(table).or_default())
        };
        lane.lock_owned().await
    }

    fn driver<'d>(&'d self, spool: &'d Spool) -> Driver<'d, B> {
        Driver {
            bulk: &self.bulk,
            store: &self.store,
            spool,
            bucket: &self.bucket,
            sequence: &self.sequence,
            keeps_dead_letters: self.settings.dead_letters,
        }
    }

    /// Settles what is under way, the oldest first.
    async fn finish(&self, spool: &Spool, lane: &mut Lane) -> EtlResult<()> {
        while let Some(operation) = lane.live.first().cloned() {
            let id = operation.id.clone();
            // What was stored since is what counts, should this be given up half-way.
            let settled = self.driver(spool).settle(operation).await;
            if let Err(error) = settled {
                self.read_again(lane).await?;
                return Err(error);
            }
            let (generation, last) = (lane.live[0].generation, lane.live[0].last);
            lane.live.remove(0);
            if generation == lane.generation && last >= lane.settled {
                lane.settled = last;
                if let Some(before) = lane.last.replace(id) {
                    self.store.forget_operation(before).await?;
                }
            }
        }
        Ok(())
    }

    /// Reads what is under way of the lane's table as it is stored.
    async fn read_again(&self, lane: &mut Lane) -> EtlResult<()> {
        let Some(table) = lane.live.first().map(|operation| operation.table) else { return Ok(()) };
        let operations = self.store.operations().await?;
        lane.live = operations.into_iter().filter(|of| of.table == table && !of.state.is_settled()).collect();
        Ok(())
    }

    async fn write(&self, unit: &WriteUnit, batch: &TableBatch) -> EtlResult<()> {
        let spool = self.spool().await?;
        let table = &batch.table;
        let mut lane = self.lane(table.id).await;
        self.begin(spool, &mut lane).await?;
        let copied = unit.chunk.map(|(_, chunk)| chunk.generation);
        if let Some(generation) = copied.filter(|generation| *generation != lane.generation) {
            lane.generation = generation;
            (lane.settled, lane.resumed, lane.last) = (Position::ZERO, Position::ZERO, None);
        }
        let mut rows = self.rows(table, &batch.rows)?;
        if copied.is_none() {
            let last = rows.last().map(|row| row.stamp.position);
            rows.retain(|row| row.stamp.position > lane.resumed);
            if last > Some(lane.resumed) {
                lane.resumed = Position::ZERO;
            }
        }
        let mut filled =
            Filling { writer: self, spool, table, lane: &mut lane, draft: Draft::new(self.bulk.frame(table)) };
        let mut bytes = Vec::new();
        for row in rows {
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
                Ok(()) => filled.push(known, &bytes).await?,
                Err(error) if error.kind() == ErrorKind::Value => self.unsendable(table, known, error).await?,
                Err(error) => return Err(error.with("table", &table.name).of_table(table.id)),
            }
        }
        filled.seal(None).await?;
        lane.is_writing = false;
        Ok(())
    }

    /// Settles what an earlier write has left, which may have been given up half-way, and notes up to where that is.
    async fn begin(&self, spool: &Spool, lane: &mut Lane) -> EtlResult<()> {
        self.read_again(lane).await?;
        self.finish(spool, lane).await?;
        if std::mem::replace(&mut lane.is_writing, true) {
            lane.resumed = lane.settled;
        }
        Ok(())
    }

    /// The source emptied the table: after all that came before, and once.
    async fn truncate(&self, table: &TargetTable, position: Position) -> EtlResult<()> {
        let spool = self.spool().await?;
        let mut lane = self.lane(table.id).await;
        self.begin(spool, &mut lane).await?;
        // What is settled beyond it was handed over after it.
        let is_done = position <= lane.resumed || self.bulk.truncate(table).await?;
        lane.is_writing = false;
        if is_done {
            return Ok(());
        }
        match self.settings.on_truncate {
            OnUnsupported::Ignore => {
                tracing::warn!(table = %table.name, "the source emptied the table, and the system keeps its rows");
                Ok(())
            }
            OnUnsupported::Error | OnUnsupported::Deliver => Err(unsupported(table, "a truncate")),
        }
    }

    /// The rows in the order of the history, so that what is settled is all up to a place.
    fn rows<'b>(&self, table: &'b TargetTable, rows: &'b BatchRows) -> EtlResult<Vec<BulkRow<'b>>> {
        let of = |row: &'b StampedRow| {
            let stamp = Stamp { change_type: row.change_type, position: row.position, at: row.at };
            BulkRow { table, row: &row.row, stamp, is_partial: row.change_type == ChangeType::Update }
        };
        let mut rows: Vec<BulkRow<'_>> = match rows {
            BatchRows::Copied { rows, position, at } => {
                let stamp = Stamp { change_type: ChangeType::Upsert, position: *position, at: *at };
                return Ok(rows.iter().map(|row| BulkRow { table, row, stamp, is_partial: false }).collect());
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
                    OnUnsupported::Ignore => gone.clear(),
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
        };
        rows.sort_by_key(|row| row.stamp.position);
        Ok(rows)
    }

    /// A row that cannot be handed over at all.
    async fn unsendable(&self, table: &TargetTable, row: ManifestRow, error: EtlError) -> EtlResult<()> {
        if !self.settings.dead_letters {
            return Err(error.with("table", &table.name).of_table(table.id));
        }
        let place = format!("{}-{:x}-{:x}", table.id, row.position.commit.0, row.position.ordinal);
        let key = row.key.as_ref().map(|key| key.join("\u{1f}")).unwrap_or_default();
        let letter = DeadLetter {
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
        };
        self.store.put_dead_letters(vec![letter]).await
    }
}

fn unsupported(table: &TargetTable, what: &str) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnsupported, format!("the system cannot take {what}"))
        .with("table", &table.name)
        .of_table(table.id)
}

/// What is kept of a row beside its bytes.
///
/// # Errors
/// `Value` where a value was not sent of a row that is new.
fn known(BulkRow { table, row, stamp, is_partial }: &BulkRow<'_>) -> EtlResult<ManifestRow> {
    let mut image = serde_json::Map::new();
    for (place, name) in table.columns.iter().enumerate() {
        if !is_partial || row.raw(place) != RawValue::Unchanged {
            let text = row.text(place)?;
            image.insert(name.to_string(), text.map_or(serde_json::Value::Null, |text| text.into_owned().into()));
        }
    }
    let key = table.source.has_key().then(|| {
        let text = |place: &u16| Ok(row.text(usize::from(*place))?.map_or_else(String::new, |text| text.into_owned()));
        table.source.key.iter().map(text).collect::<EtlResult<Box<[String]>>>()
    });
    Ok(ManifestRow {
        position: stamp.position,
        change_type: stamp.change_type.as_str().into(),
        key: key.transpose()?,
        row: image.into(),
        bytes: 0,
    })
}

/// What a unit has for one table.
enum Work<'u> {
    Truncate(&'u Truncated),
    Write(&'u TableBatch),
}

/// A batch of a table that is being filled.
struct Filling<'f, B> {
    writer: &'f Bulk<B>,
    spool: &'f Spool,
    table: &'f TargetTable,
    lane: &'f mut Lane,
    draft: Draft,
}

impl<B: BulkDestination> Filling<'_, B> {
    async fn push(&mut self, row: ManifestRow, bytes: &[u8]) -> EtlResult<()> {
        let limits = self.writer.bulk.limits();
        let is_full = self.draft.rows().len() as u64 >= u64::from(limits.max_rows)
            || self.draft.bytes_with(bytes.len()) > limits.max_bytes;
        if is_full && !self.draft.rows().is_empty() {
            self.seal(Some(row.position)).await?;
        }
        if self.draft.bytes_with(bytes.len()) > limits.max_bytes {
            let error = EtlError::new(ErrorKind::Value, "a row is larger than a batch may be")
                .with("bytes", bytes.len())
                .with("limit", limits.max_bytes);
            return self.writer.unsendable(self.table, row, error).await;
        }
        self.draft.push(row, bytes);
        Ok(())
    }

    /// Seals what there is, and settles it. `next` is the position of the row that comes after: where it is that of the
    /// last row, not all of that position is settled with this batch.
    async fn seal(&mut self, next: Option<Position>) -> EtlResult<()> {
        let frame = self.writer.bulk.frame(self.table);
        let draft = std::mem::replace(&mut self.draft, Draft::new(frame));
        let (Some(first), Some(last)) = (draft.rows().first(), draft.rows().last()) else { return Ok(()) };
        let (first, mut last) = (first.position, last.position);
        if next == Some(last) {
            last.ordinal = last.ordinal.saturating_sub(1);
        }
        let rows = draft.rows().len();
        let (manifest, body) = draft.finish();
        let bytes = body.len() as u64;
        let id = named(self.table.id, self.lane.generation, &manifest, &body);
        let operation = Operation {
            id: id.clone(),
            revision: 0,
            sequence: self.writer.sequence.fetch_add(1, Ordering::SeqCst) + 1,
            table: self.table.id,
            generation: self.lane.generation,
            first,
            last,
            rows: u32::try_from(rows).or_etl(ErrorKind::Internal, "count the rows of a batch")?,
            bytes,
            sealed_at: clock::now(),
            attempts: 0,
            state: OperationState::Sealed { not_before: None, reason: None },
        };
        let (spool, name) = (self.spool.clone(), id.clone());
        off_thread(move || spool.seal(&name, &body, &manifest)).await?;
        match self.writer.store.put_operation(None, operation.clone(), Vec::new()).await {
            Ok(revision) => self.lane.live.push(Operation { revision, ..operation }),
            // The very same rows were handed over before.
            Err(error) if error.kind() == ErrorKind::StoreConflict => return self.spool.remove(&id),
            Err(error) => return Err(error),
        }
        self.writer.finish(self.spool, self.lane).await
    }
}

impl<B: BulkDestination> TableWriter for Bulk<B> {
    fn name(&self) -> &str {
        self.bulk.name()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn needs_all_values(&self) -> bool {
        false
    }

    /// Tables wait for their own jobs alone: those of one unit go on side by side, each in its order.
    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        let mut lanes: BTreeMap<TableId, Vec<Work<'_>>> = BTreeMap::new();
        for step in &unit.steps {
            match step {
                // The system has no tables of its own.
                Step::Ensure(_) | Step::Alter(..) | Step::Fill(..) => {}
                Step::Truncate(tables) => {
                    for truncated in tables {
                        lanes.entry(truncated.table.id).or_default().push(Work::Truncate(truncated));
                    }
                }
                Step::Write(batch) => lanes.entry(batch.table.id).or_default().push(Work::Write(batch)),
            }
        }
        let lanes = lanes.into_values().map(|work| async {
            for work in work {
                match work {
                    Work::Truncate(truncated) => self.truncate(&truncated.table, truncated.position).await?,
                    Work::Write(batch) => self.write(&unit, batch).await?,
                }
            }
            Ok(())
        });
        // None is cut short by the failure of another: its request may be under way.
        join_all(lanes).await.into_iter().collect()
    }

    /// What is under way of the old rows is settled first: it would come after the new ones.
    async fn reset(&self, table: &Arc<TargetTable>) -> EtlResult<()> {
        let spool = self.spool().await?;
        let mut lane = self.lane(table.id).await;
        self.finish(spool, &mut lane).await?;
        if let Some(last) = lane.last.take() {
            self.store.forget_operation(last).await?;
        }
        (lane.settled, lane.resumed, lane.is_writing) = (Position::ZERO, Position::ZERO, false);
        if !self.bulk.truncate(table).await? && lane.generation > 0 {
            tracing::warn!(table = %table.name, "the table is copied anew over the rows that the system has of it");
        }
        Ok(())
    }

    async fn check_connection(&self) -> EtlResult<()> {
        self.bulk.check_connection().await
    }

    async fn startup(&self) -> EtlResult<()> {
        self.spool().await.map(drop)
    }

    async fn durable_position(&self, _cursor: CursorId) -> EtlResult<Option<Position>> {
        Ok(None)
    }
}
