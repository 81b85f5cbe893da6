//! What becomes of dead letters that are handed over again? What a newer version has overtaken goes, the rest is written.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use etl::Position;
use etl::data::{RawValue, RowBuilder, TableRow};
use etl::destination::Replayed;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::TableId;
use etl::store::{DeadLetter, DeadLetterId};
use serde_json::Value;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{END, TableDestination};
use crate::metadata_columns::ChangeType;
use crate::row_image::{image, key};
use crate::write_mode::WriteMode;
use crate::writer::{
    BatchRows, KeyedChanges, KeylessChanges, RowUpdate, StampedRow, Step, TableBatch, TableWriter, TargetTable,
    WriteUnit,
};

/// How many letters are read at a time.
const PAGE: u32 = 500;

impl<W: TableWriter> TableDestination<W> {
    /// Whether there may be dead letters: they are kept, or some were kept once.
    async fn may_have_letters(&self) -> EtlResult<bool> {
        let asked = || async {
            let has = self.dead_letters.is_some() || !self.store.dead_letters(None, None, 1).await?.is_empty();
            Ok::<_, EtlError>(has)
        };
        self.may_have_letters.get_or_try_init(asked).await.copied()
    }

    /// What is about to be written overtakes the letters of older versions of the same rows. Noted before it is written: it
    /// comes again until it is, and a letter must not come after it. The tables are held until this is dropped.
    pub(super) async fn overtake(&self, steps: &[Step]) -> EtlResult<Vec<OwnedMutexGuard<()>>> {
        let mut held = Vec::new();
        if !self.may_have_letters().await? {
            return Ok(held);
        }
        let touched = |step: &Step| match step {
            Step::Write(batch) => vec![batch.table.id],
            Step::Truncate(several) => several.iter().map(|truncated| truncated.table.id).collect(),
            _ => Vec::new(),
        };
        let mut tables: Vec<TableId> = steps.iter().flat_map(touched).collect();
        tables.sort_unstable();
        tables.dedup();
        for table in tables {
            held.push(self.hold(table).await);
            let letters = self.letters_of(table).await?;
            if letters.is_empty() {
                continue;
            }
            let changed = overtaken(letters, steps, table)?;
            if !changed.is_empty() {
                self.store.put_dead_letters(changed).await?;
            }
        }
        Ok(held)
    }

    /// The table is copied anew: with what it has now.
    pub(super) async fn overtake_all(&self, table: TableId) -> EtlResult<()> {
        if !self.may_have_letters().await? {
            return Ok(());
        }
        let _held = self.hold(table).await;
        let mut letters = self.letters_of(table).await?;
        letters.retain(|letter| !letter.is_overtaken);
        letters.iter_mut().for_each(|letter| letter.is_overtaken = true);
        self.store.put_dead_letters(letters).await
    }

    /// Hands letters over again, the older ones of a table first.
    pub(super) async fn replay_letters(&self, letters: Vec<DeadLetter>) -> EtlResult<Replayed> {
        let mut tables: BTreeMap<TableId, Vec<DeadLetterId>> = BTreeMap::new();
        for letter in letters {
            tables.entry(letter.table).or_default().push(letter.id);
        }
        let mut replayed = Replayed::default();
        for (table, mut wanted) in tables {
            wanted.sort_unstable();
            let _held = self.hold(table).await;
            let mut letters = self.letters_of(table).await?;
            letters.retain(|letter| wanted.binary_search(&letter.id).is_ok());
            let gone = take_overtaken(&mut letters);
            replayed.overtaken += gone.len() as u64;
            self.store.remove_dead_letters(gone).await?;
            let of = letters.len();
            let done = if letters.is_empty() { Vec::new() } else { self.replay_table(table, letters).await? };
            replayed.delivered += done.len() as u64;
            replayed.left += (of - done.len()) as u64;
            self.store.remove_dead_letters(done).await?;
        }
        Ok(replayed)
    }

    async fn replay_table(&self, table: TableId, letters: Vec<DeadLetter>) -> EtlResult<Vec<DeadLetterId>> {
        self.meet(std::iter::once((table, None))).await?;
        let known = self.tables().get(table).cloned();
        let current = match known {
            Some(known) => known,
            None => {
                let schema = self.schema(table, END).await?;
                self.tables().make(&schema)
            }
        };
        let rows = batch_of(&current.table, &letters)?;
        let batch = TableBatch { table: Arc::clone(&current.table), rows };
        let steps = vec![Step::Ensure(Arc::clone(&current.table)), Step::Write(batch)];
        self.writer.replay(WriteUnit { steps, batch: None, stored: None, chunk: None }, letters).await
    }

    async fn hold(&self, table: TableId) -> OwnedMutexGuard<()> {
        let lock: Arc<AsyncMutex<()>> = {
            let mut locks = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(table).or_default())
        };
        lock.lock_owned().await
    }

    async fn letters_of(&self, table: TableId) -> EtlResult<Vec<DeadLetter>> {
        let mut letters: Vec<DeadLetter> = Vec::new();
        loop {
            let after = letters.last().map(|letter| letter.id.clone());
            let page = self.store.dead_letters(Some(table), after, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            letters.extend(page);
            if is_last {
                return Ok(letters);
            }
        }
    }
}

/// What is written of a row after a letter of it.
enum Newer {
    /// All of it, or nothing.
    Whole(Position),
    /// Some of its values, and what its key is then.
    Part(Position, Value, Option<Box<[String]>>),
}

/// The letters that the steps change: those of rows of which all is written, and those of which a part is, which they then
/// have too.
fn overtaken(letters: Vec<DeadLetter>, steps: &[Step], table: TableId) -> EtlResult<Vec<DeadLetter>> {
    let (mut newer, mut emptied): (HashMap<Box<[String]>, Vec<Newer>>, _) = (HashMap::new(), Position::ZERO);
    for step in steps {
        match step {
            Step::Truncate(several) => {
                let own = several.iter().filter(|truncated| truncated.table.id == table);
                emptied = own.map(|truncated| truncated.position).fold(emptied, Position::max);
            }
            Step::Write(TableBatch { table: target, rows: BatchRows::Keyed(set) }) if target.id == table => {
                for row in set.deletes.iter().chain(&set.vacated).chain(&set.upserts) {
                    if let Some(key) = key(target, &row.row)? {
                        newer.entry(key).or_default().push(Newer::Whole(row.position));
                    }
                }
                for RowUpdate { base, new, .. } in &set.updates {
                    if let Some(known) = key(target, base)? {
                        let part = Newer::Part(new.position, image(target, &new.row, true)?, key(target, &new.row)?);
                        newer.entry(known).or_default().push(part);
                    }
                }
            }
            _ => {}
        }
    }
    let mut changed = Vec::new();
    for mut letter in letters.into_iter().filter(|letter| !letter.is_overtaken) {
        let is_emptied = emptied > letter.position;
        let found = letter.key.as_ref().and_then(|key| newer.get(key));
        let mut is_changed = is_emptied;
        letter.is_overtaken = is_emptied;
        for newer in found.into_iter().flatten() {
            is_changed |= overtake_by(&mut letter, newer);
        }
        if is_changed {
            changed.push(letter);
        }
    }
    Ok(changed)
}

fn overtake_by(letter: &mut DeadLetter, newer: &Newer) -> bool {
    match newer {
        Newer::Whole(position) if *position > letter.position => {
            letter.is_overtaken = true;
            true
        }
        Newer::Part(position, values, key) if *position > letter.position => {
            let (Some(row), Some(values)) = (letter.row.as_object_mut(), values.as_object()) else { return false };
            letter.is_overtaken = letter.is_partial && row.keys().all(|column| values.contains_key(column));
            row.extend(values.iter().map(|(column, value)| (column.clone(), value.clone())));
            letter.position = *position;
            letter.key.clone_from(key);
            true
        }
        _ => false,
    }
}

/// Takes out the letters that were overtaken, by what was delivered or by another letter of the same row; the others are in
/// the order of their positions.
fn take_overtaken(letters: &mut Vec<DeadLetter>) -> Vec<DeadLetterId> {
    letters.sort_by(|a, b| (a.position, &a.id).cmp(&(b.position, &b.id)));
    let mut last: HashMap<Box<[String]>, DeadLetterId> = HashMap::new();
    for letter in letters.iter().filter(|letter| !letter.is_overtaken && !letter.is_partial) {
        if let Some(key) = &letter.key {
            last.insert(key.clone(), letter.id.clone());
        }
    }
    let is_gone = |letter: &DeadLetter| {
        let is_log = letter.is_logged;
        let newest = letter.key.as_ref().and_then(|key| last.get(key));
        letter.is_overtaken || (!is_log && !letter.is_partial && newest.is_some_and(|newest| *newest != letter.id))
    };
    letters.extract_if(.., |letter| is_gone(letter)).map(|letter| letter.id).collect()
}

fn batch_of(table: &TargetTable, letters: &[DeadLetter]) -> EtlResult<BatchRows> {
    let mut rows = Vec::with_capacity(letters.len());
    for letter in letters {
        let change_type = ChangeType::of(&letter.change_type).ok_or_else(|| {
            EtlError::new(ErrorKind::Store, "a dead letter says of its row what nobody knows")
                .with("dead letter", &letter.id)
                .with("change", &letter.change_type)
        })?;
        let row = StampedRow { row: row_of(table, letter)?, change_type, position: letter.position, at: letter.at };
        rows.push((row, letter.is_partial));
    }
    if table.write_mode == WriteMode::Append {
        return Ok(BatchRows::Log(rows.into_iter().map(|(row, _)| row).collect()));
    }
    if !table.is_keyed() {
        let inserts = rows.into_iter().map(|(row, _)| row).collect();
        return Ok(BatchRows::Keyless(KeylessChanges { inserts, ..KeylessChanges::default() }));
    }
    let mut set = KeyedChanges::default();
    for (row, is_partial) in rows {
        match row.change_type {
            ChangeType::Delete => set.deletes.push(row),
            _ if is_partial => set.updates.push(RowUpdate { base: row.row.clone(), new: row, moves: false }),
            _ => set.upserts.push(row),
        }
    }
    Ok(BatchRows::Keyed(set))
}

/// The row of a letter, in the shape that its table has now: what it has no value for is null, or was not sent.
fn row_of(table: &TargetTable, letter: &DeadLetter) -> EtlResult<TableRow> {
    let value = |name: &str| match letter.row.get(name) {
        Some(Value::String(text)) => RawValue::Text(text.as_bytes()),
        None if letter.is_partial => RawValue::Unchanged,
        _ => RawValue::Null,
    };
    let mut builder = RowBuilder::new();
    builder.push_raw(&table.source, table.columns.iter().map(|name| value(name)))?;
    builder.finish().pop().ok_or_else(|| EtlError::new(ErrorKind::Internal, "a row that was made is not there"))
}
