//! How does a writer become a destination? Order, grouping, modes, names and retry are added here.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etl::clock::{self, Timestamp};
use etl::data::{CopiedRows, Event, TableRow};
use etl::destination::{Batch, Capabilities, CopyChunk, Destination, Replayed, StagedRun, TableChange, ValueLimits};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::retry::{RetryPolicy, retry};
use etl::schema::{TableExtras, TableId, TableName, TableSchema};
use etl::store::{DeadLetter, Phase, SharedStore};
use etl::{CursorId, Lsn, Position};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use self::lanes::Lanes;
use self::staged::Staging;
use crate::dead_rows::DeadLetterRules;
use crate::metadata_columns::ChangeType;
use crate::plan::{Planned, plan};
use crate::table_rules::TableRules;
use crate::target_tables::{Current, KnownTable, TargetTables};
use crate::write_mode::{OnSchemaChange, WriteMode};
use crate::writer::{BatchRows, KeyedChanges, StampedRow, Step, TableBatch, TableWriter, TargetTable, WriteUnit};

mod apart;
mod kept;
mod lanes;
mod rehearsed;
mod replayed;
mod staged;

/// How often a unit is made anew because another position was stored meanwhile.
const MOST_CONFLICTS: usize = 8;

/// What lasts longer is the engine's to wait for, and to tell.
const RETRY: RetryPolicy = RetryPolicy {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
    give_up_after: Some(Duration::from_secs(30)),
};

/// A destination made of a writer of tables.
pub struct TableDestination<W> {
    writer: W,
    store: SharedStore,
    tables: Mutex<TargetTables>,
    /// The positions that an atomic writer has stored, as far as they were asked for.
    stored: Mutex<HashMap<CursorId, Option<Position>>>,
    /// Held while what tables keep is stored.
    keeping: AsyncMutex<()>,
    /// The run whose rows are staged.
    staging: Mutex<Option<Staging>>,
    /// Whether rows that are refused are kept apart.
    dead_letters: Option<DeadLetterRules>,
    may_have_letters: OnceCell<bool>,
    /// Held by whoever writes a table of which there may be dead letters.
    replays: Mutex<HashMap<TableId, Arc<AsyncMutex<()>>>>,
    /// Where the tables of a writer wait that takes several batches at a time.
    lanes: Lanes,
    /// The main cursor has brought pieces, and not yet what comes after them.
    is_in_run: AtomicBool,
    retry: RetryPolicy,
}

impl<W: TableWriter> TableDestination<W> {
    /// The writer finds its tables' schemas in the store, and writes them as the rules say.
    pub fn new(writer: W, store: SharedStore, rules: TableRules) -> Self {
        let dead_letters = rules.defaults.dead_letters;
        let tables = TargetTables::new(rules, writer.name_rules()).keeping_every_change(writer.keeps_every_change());
        let tables = Mutex::new(tables);
        let (stored, keeping, staging) = (Mutex::default(), AsyncMutex::default(), Mutex::default());
        let (may_have_letters, replays) = (OnceCell::new(), Mutex::default());
        let (lanes, is_in_run, retry) = (Lanes::default(), AtomicBool::default(), RETRY);
        Self {
            writer,
            store,
            tables,
            stored,
            keeping,
            staging,
            dead_letters,
            may_have_letters,
            replays,
            lanes,
            is_in_run,
            retry,
        }
    }

    /// Says how long failures that may pass are tried again.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The writer.
    pub fn writer(&self) -> &W {
        &self.writer
    }

    fn tables(&self) -> MutexGuard<'_, TargetTables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn staging(&self) -> MutexGuard<'_, Option<Staging>> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored(&self) -> MutexGuard<'_, HashMap<CursorId, Option<Position>>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns the names of all tables where one is not known yet, or has changed.
    async fn meet(&self, mut tables: impl Iterator<Item = (TableId, Option<&TableName>)>) -> EtlResult<()> {
        self.recall_kept().await?;
        let is_new = |(id, name)| (!self.tables().knows(id, name)).then_some(id);
        let Some(first) = tables.find_map(is_new) else { return Ok(()) };
        let mut new: Vec<TableId> = std::iter::once(first).chain(tables.filter_map(is_new)).collect();
        new.sort_unstable();
        new.dedup();
        if self.learn_apart(&new).await? {
            return Ok(());
        }
        let states = self.store.table_states().await?;
        let mut ids: Vec<TableId> = states.iter().map(|(id, _)| *id).chain(new).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut known = Vec::with_capacity(ids.len());
        for id in ids {
            let kept = self.tables().kept_of(id).cloned();
            if let Some(schema) = kept.map_or(self.store.schema_at(id, END).await?, Some) {
                let is_gone = states.iter().any(|(state, at)| *state == id && at.phase == Phase::Removed);
                known.push(KnownTable { id, name: schema.name.clone(), since: schema.since, is_gone });
            }
        }
        let misnamed = self.tables().learn(known);
        if misnamed.is_empty() {
            return Ok(());
        }
        // They get their names, and keep their rows.
        let steps: Vec<Step> = misnamed.iter().map(|current| Step::Ensure(Arc::clone(&current.table))).collect();
        self.writer.apply(WriteUnit { steps, batch: None, stored: None, chunk: None }).await?;
        self.tables().settle(misnamed);
        Ok(())
    }

    /// Learns the names of new tables where no other table is concerned; whether that is so.
    async fn learn_apart(&self, new: &[TableId]) -> EtlResult<bool> {
        for id in new {
            let kept = self.tables().kept_of(*id).cloned();
            if let Some(schema) = kept.map_or(self.store.schema_at(*id, END).await?, Some)
                && !self.tables().learn_apart(*id, &schema.name)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn schema(&self, table: TableId, at: Position) -> EtlResult<Arc<TableSchema>> {
        let schema = self.store.schema_at(table, at).await?;
        schema.ok_or_else(|| {
            EtlError::new(ErrorKind::Internal, "no schema is stored for a table that is to be written")
                .with("table", table)
                .with("position", at)
        })
    }

    /// The schemas of tables that were not met yet, where they come without rows: as they were before they are truncated
    /// or changed.
    async fn unmet(&self, events: &[Event]) -> EtlResult<HashMap<TableId, Arc<TableSchema>>> {
        let mut schemas = HashMap::new();
        for event in events {
            let places: Vec<(TableId, Position)> = match event {
                Event::Truncate { tables, positions, .. } => {
                    tables.iter().copied().zip(positions.iter().copied()).collect()
                }
                Event::Relation { new, position } => vec![(new.id, before(*position))],
                _ => continue,
            };
            for (table, position) in places {
                if self.tables().get(table).is_none() && !schemas.contains_key(&table) {
                    schemas.insert(table, self.schema(table, position).await?);
                }
            }
        }
        Ok(schemas)
    }

    /// What the writer has stored of the cursor for a batch that begins there.
    async fn position(&self, cursor: CursorId, from: Position) -> EtlResult<Option<Position>> {
        if !self.writer.capabilities().atomic {
            return Ok(None);
        }
        let known = self.stored().get(&cursor).copied();
        // Pieces of a transaction that come again are not there any more.
        let is_taken_back = |known: &Option<Position>| known.is_some_and(|known| !known.is_boundary() && known > from);
        if let Some(known) = known.filter(|known| !is_taken_back(known)) {
            return Ok(known);
        }
        let position = self.writer.durable_position(cursor).await?;
        self.stored().insert(cursor, position);
        Ok(position)
    }

    /// Writes what is new in the events.
    async fn write(&self, batch: Option<&Batch>, events: &[Event]) -> EtlResult<()> {
        self.meet(events.iter().flat_map(named)).await?;
        let schemas = self.unmet(events).await?;
        let parts = if self.writer.alters_first() { parts(batch, events) } else { vec![(batch.cloned(), events)] };
        for (batch, events) in parts {
            self.unless_conflicting(|| self.write_new(batch.as_ref(), events, &schemas)).await?;
        }
        Ok(())
    }

    /// Writes what is new in the events, once. What trying again does not help against is the inner error.
    async fn try_to_write(&self, batch: &Batch, events: &[Event]) -> EtlResult<EtlResult<()>> {
        match self.write(Some(batch), events).await {
            // The engine goes on without a table that fails alone: nobody waits for it here.
            Err(error) if error.table().is_some() || error.message() == LOST_PIECES => Ok(Err(error)),
            written => written.map(Ok),
        }
    }

    /// Makes a unit of what is not stored yet, and applies it.
    async fn write_new(
        &self,
        batch: Option<&Batch>,
        events: &[Event],
        schemas: &HashMap<TableId, Arc<TableSchema>>,
    ) -> EtlResult<()> {
        let stored = match batch {
            Some(batch) => self.position(batch.cursor, batch.from).await?,
            None => None,
        };
        if let Some(batch) = batch.filter(|batch| self.has_lost_pieces(batch, stored)) {
            return Err(EtlError::new(ErrorKind::DestinationUnavailable, LOST_PIECES).with("cursor", batch.cursor));
        }
        let Planned { steps, tables } = plan(events, stored, &self.tables(), schemas)?;
        let covers = |batch: &Batch| stored.is_some_and(|stored| stored >= batch.upto);
        if batch.is_some_and(covers) && !steps.is_empty() {
            return Err(EtlError::new(ErrorKind::Internal, "a batch holds changes beyond its own end")
                .with("upto", batch.map_or(Position::ZERO, |batch| batch.upto))
                .hint("This is a defect of the engine; please report it"));
        }
        if batch.map_or(steps.is_empty(), |batch| covers(batch) && batch.moves.is_empty()) {
            return Ok(());
        }
        let _held = self.overtake(&steps).await?;
        let planned = Planned { steps, tables };
        let tables = self.apply_planned(planned, batch, events, stored, schemas).await?;
        let grown: Vec<Current> = tables.iter().filter(|current| self.has_grown(current)).cloned().collect();
        self.tables().settle(tables);
        self.applied(batch, stored);
        // What is forgotten here is found again, and is there then.
        for Current { table, .. } in grown {
            self.keep(table.id, Some(Arc::clone(&table.source))).await?;
        }
        Ok(())
    }

    /// Whether what the batch goes on from is gone: the transaction in which the pieces before it were written. Where no position
    /// is stored with the data, the writer says so itself.
    fn has_lost_pieces(&self, batch: &Batch, stored: Option<Position>) -> bool {
        let can = self.writer.capabilities();
        can.atomic
            && (can.whole_transactions || can.whole_runs)
            && !batch.from.is_boundary()
            && stored.is_none_or(|stored| stored < batch.from)
    }

    fn has_grown(&self, current: &Current) -> bool {
        match self.tables().kept_of(current.table.id) {
            Some(kept) => *kept != current.table.source,
            None => current.fit.is_some(),
        }
    }

    /// Tries again where somebody else was faster, with what is stored then.
    async fn unless_conflicting<F>(&self, attempt: impl Fn() -> F) -> EtlResult<()>
    where
        F: Future<Output = EtlResult<()>>,
    {
        let mut tried = 0;
        loop {
            let Err(error) = attempt().await else { return Ok(()) };
            self.stored().clear();
            tried += 1;
            if error.kind() != ErrorKind::StoreConflict {
                return Err(error);
            }
            if tried == MOST_CONFLICTS {
                let kind = ErrorKind::DestinationUnavailable;
                return Err(EtlError::new(kind, "somebody else writes to the destination at the same time")
                    .with("destination", self.writer.name())
                    .hint("Run one pipeline at a time on this destination")
                    .because(error));
            }
        }
    }

    fn applied(&self, batch: Option<&Batch>, stored: Option<Position>) {
        let Some(batch) = batch.filter(|_| self.writer.capabilities().atomic) else { return };
        let mut positions = self.stored();
        for (table, _) in &batch.moves {
            positions.remove(&CursorId::Table(*table));
        }
        positions.insert(batch.cursor, Some(stored.map_or(batch.upto, |stored| stored.max(batch.upto))));
    }

    async fn copy(&self, table: TableId, chunk: Option<CopyChunk>, rows: Arc<CopiedRows>) -> EtlResult<()> {
        if let Some(run) = self.staging_run() {
            return self.stage(&run, table, chunk, rows).await;
        }
        self.meet(std::iter::once((table, None))).await?;
        let schema = match rows.schema() {
            Some(schema) => Arc::clone(schema),
            None => self.schema(table, END).await?,
        };
        let known = self.tables().get(table).cloned();
        let known = known.filter(|known| known.seen == schema);
        let is_new = known.is_none();
        let current = known.unwrap_or_else(|| self.tables().make(&schema));
        let rows = fitted(&current, rows)?;
        self.apply_copied(table, chunk, &current, is_new, rows).await?;
        self.tables().settle([current]);
        Ok(())
    }

    async fn complete(&self, table: TableId, extras: &TableExtras) -> EtlResult<()> {
        self.meet(std::iter::once((table, None))).await?;
        let known = self.tables().get(table).map(|current| Arc::clone(&current.table));
        let target = match known {
            Some(target) => target,
            None => {
                let schema = self.schema(table, END).await?;
                self.tables().make(&schema).table
            }
        };
        self.writer.complete(&target, extras).await
    }

    async fn reset(&self, table: TableId) -> EtlResult<()> {
        // What cannot be named was never written.
        let Some(schema) = self.store.schema_at(table, END).await? else { return Ok(()) };
        self.meet(std::iter::once((table, Some(&schema.name)))).await?;
        // As it is to be from now on: one that was met before may have had another shape.
        let target = self.anew(&schema).await?;
        self.tables().forget(table);
        self.lanes.forget(table);
        self.overtake_all(table).await?;
        self.writer.reset(&target).await?;
        self.stored().remove(&CursorId::Table(table));
        Ok(())
    }

    /// The table that a copy begins with: with what its policy keeps of the one that is there.
    async fn anew(&self, schema: &Arc<TableSchema>) -> EtlResult<Arc<TargetTable>> {
        let keeps = matches!(self.tables().on_change(schema), OnSchemaChange::Widen | OnSchemaChange::Ignore);
        if self.tables().kept_of(schema.id).is_some() {
            let shape = keeps.then(|| Arc::clone(&self.tables().make(schema).table.source));
            self.keep(schema.id, shape).await?;
        }
        Ok(self.tables().make(schema).table)
    }
}

/// The tables of an event, and what they are called where it says so.
fn named(event: &Event) -> impl Iterator<Item = (TableId, Option<&TableName>)> {
    let name = match event {
        Event::Relation { new, .. } => Some(&new.name),
        _ => None,
    };
    event.table_ids().iter().map(move |id| (*id, name))
}

/// The rows as the table takes them.
fn fitted(current: &Current, rows: Arc<CopiedRows>) -> EtlResult<Arc<CopiedRows>> {
    match &current.fit {
        Some(fit) => Ok(Arc::new(fit.rows(rows.iter())?.into())),
        None => Ok(rows),
    }
}

/// Writes copied rows into the table; nothing where there are none.
fn copied(table: &Arc<TargetTable>, chunk: Option<CopyChunk>, rows: Arc<CopiedRows>) -> Option<Step> {
    if rows.is_empty() {
        return None;
    }
    let (position, at) = chunk.map_or((Position::ZERO, clock::now()), |chunk| (chunk.position, chunk.read_at));
    let position = Position::new(position.commit, 0);
    let rows = match chunk {
        Some(chunk) if chunk.replaces => replacing(&rows, position, at),
        _ => BatchRows::Copied { rows, position, at },
    };
    Some(Step::Write(TableBatch { table: Arc::clone(table), rows }))
}

/// Copied rows that take the place of older ones.
fn replacing(rows: &[TableRow], position: Position, at: Timestamp) -> BatchRows {
    let stamped = |row: &TableRow| StampedRow { row: row.clone(), change_type: ChangeType::Upsert, position, at };
    BatchRows::Keyed(KeyedChanges { upserts: rows.iter().map(stamped).collect(), ..KeyedChanges::default() })
}

/// Cuts a batch before each schema change that has something before it. All but the last part end at the position
/// before the change; tables move with the last.
fn parts<'e>(batch: Option<&Batch>, events: &'e [Event]) -> Vec<(Option<Batch>, &'e [Event])> {
    let mut parts = Vec::new();
    let (mut rest, mut from) = (events, batch.map(|batch| batch.from));
    let relation = |event: &Event| matches!(event, Event::Relation { .. });
    let writes = |event: &Event| matches!(event, Event::Change(_) | Event::Truncate { .. });
    while let Some(changed) = rest.iter().position(writes) {
        let Some(cut) = rest[changed..].iter().position(relation).map(|place| changed + place) else { break };
        let (head, after) = rest.split_at(cut);
        let Some(Event::Relation { position, .. }) = after.first() else { break };
        let upto = before(*position);
        let part = |batch: &Batch| Batch { from: from.unwrap_or(batch.from), upto, moves: Vec::new(), ..batch.clone() };
        parts.push((batch.map(part), head));
        (rest, from) = (after, Some(upto));
    }
    parts.push((batch.map(|batch| Batch { from: from.unwrap_or(batch.from), ..batch.clone() }), rest));
    parts
}

/// The position before the next one.
fn before(position: Position) -> Position {
    Position::new(position.commit, position.ordinal.saturating_sub(1))
}

/// Said to the engine, which then sends them again.
pub(crate) const LOST_PIECES: &str = "the open transaction is gone, with the pieces that were written before";

/// Beyond every position.
const END: Position = Position { commit: Lsn(u64::MAX), ordinal: Position::WHOLE };

impl<W: TableWriter> Destination for TableDestination<W> {
    async fn truncate_table(&self, table_id: TableId) -> EtlResult<()> {
        retry(self.retry, || self.unless_conflicting(|| self.reset(table_id))).await
    }

    async fn write_table_rows(&self, table_id: TableId, table_rows: Vec<TableRow>) -> EtlResult<()> {
        let rows = Arc::new(CopiedRows::from(table_rows));
        retry(self.retry, || self.unless_conflicting(|| self.copy(table_id, None, Arc::clone(&rows)))).await
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        retry(self.retry, || self.write(None, &events)).await
    }

    fn name(&self) -> &str {
        self.writer.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.writer.capabilities()
    }

    fn value_limits(&self) -> ValueLimits {
        self.writer.value_limits()
    }

    fn needs_all_values(&self, schema: &TableSchema) -> bool {
        self.writer.needs_all_values() && self.tables().write_mode(schema) == WriteMode::Append
    }

    /// By key, and guarded by the metadata columns.
    fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
        let target = self.tables().make(schema).table;
        target.is_keyed() && target.metadata.is_some()
    }

    async fn check_connection(&self) -> EtlResult<()> {
        self.writer.check_connection().await
    }

    async fn startup(&self) -> EtlResult<()> {
        retry(self.retry, || self.writer.startup()).await
    }

    async fn shutdown(&self) -> EtlResult<()> {
        self.writer.shutdown().await
    }

    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, rows: CopiedRows) -> EtlResult<()> {
        let rows = Arc::new(rows);
        retry(self.retry, || self.unless_conflicting(|| self.copy(table_id, Some(chunk), Arc::clone(&rows)))).await
    }

    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        let can = self.writer.capabilities();
        let is_of_run =
            can.whole_runs && batch.cursor == CursorId::Main && (batch.is_piece || self.is_in_run.load(Relaxed));
        if can.writes_in_flight > 1 && !is_of_run {
            return self.write_in_lanes(&batch, events).await;
        }
        self.is_in_run.fetch_or(is_of_run, Relaxed);
        self.lanes.mend(&batch, &events);
        retry(self.retry, || self.try_to_write(&batch, &events)).await??;
        self.is_in_run.fetch_and(batch.is_piece || batch.cursor != CursorId::Main, Relaxed);
        Ok(())
    }

    async fn allow_change(&self, change: TableChange) -> EtlResult<()> {
        self.allow(&change).await
    }

    async fn complete_table(&self, table_id: TableId, extras: TableExtras) -> EtlResult<()> {
        retry(self.retry, || self.complete(table_id, &extras)).await
    }

    async fn begin_run(&self, run: StagedRun) -> EtlResult<()> {
        retry(self.retry, || self.unless_conflicting(|| self.begin_staging(&run))).await
    }

    async fn finalize_run(&self, run: StagedRun) -> EtlResult<()> {
        retry(self.retry, || self.unless_conflicting(|| self.publish(&run))).await
    }

    async fn abandon_run(&self, run: StagedRun) -> EtlResult<()> {
        retry(self.retry, || self.unless_conflicting(|| self.abandon(&run))).await
    }

    async fn go_back(&self, to: Position) -> EtlResult<()> {
        self.stored().clear();
        retry(self.retry, || self.writer.go_back(to)).await
    }

    async fn replay(&self, letters: Vec<DeadLetter>) -> EtlResult<Replayed> {
        retry(self.retry, || self.replay_letters(letters.clone())).await
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        self.writer.durable_position(cursor).await
    }
}

impl<W: TableWriter> fmt::Debug for TableDestination<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableDestination").field("writer", &self.writer.name()).finish_non_exhaustive()
    }
}
