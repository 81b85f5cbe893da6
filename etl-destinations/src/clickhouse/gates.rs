//! Who writes to a table, and how far has it come? One at a time, except that the chunks of a copy go side by side.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etl::Position;
use etl::schema::{TableId, TableName};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::writer::{BatchRows, Step, WriteUnit};

/// The tables that this process has met.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<HashMap<TableId, Arc<Gate>>>);

/// One table.
#[derive(Debug, Default)]
pub(super) struct Gate {
    known: Arc<RwLock<Known>>,
    /// How often the table was emptied. A chunk that was begun before does not come after.
    emptied: AtomicU64,
    /// What it is called in ClickHouse, once that is known.
    name: Mutex<Option<TableName>>,
    /// Since when it has its shape, where that was changed: everything before is in it.
    shaped: Mutex<Position>,
}

/// What is known of a table's rows.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The last change that a table without a key, or a log, holds; nothing before it was asked for, and after a failure.
    pub(super) reached: Option<Option<Position>>,
}

/// The tables of one unit, for as long as it is written.
#[derive(Debug)]
pub(super) enum Held {
    /// Alone.
    Alone(BTreeMap<TableId, OwnedRwLockWriteGuard<Known>>),
    /// With other chunks of the copy.
    Together(#[expect(dead_code, reason = "held, not read")] Option<OwnedRwLockReadGuard<Known>>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gates {
    /// The table's gate.
    pub(super) fn of(&self, table: TableId) -> Arc<Gate> {
        Arc::clone(lock(&self.0).entry(table).or_default())
    }

    /// Waits until the unit's tables can be written, in the order of their ids.
    pub(super) async fn hold(&self, unit: &WriteUnit) -> Held {
        let is_chunk =
            |step: &Step| matches!(step, Step::Write(batch) if matches!(batch.rows, BatchRows::Copied { .. }));
        if unit.steps.iter().all(is_chunk) {
            let table = unit.steps.iter().find_map(|step| match step {
                Step::Write(batch) => Some(batch.table.id),
                _ => None,
            });
            return Held::Together(match table {
                Some(table) => Some(Arc::clone(&self.of(table).known).read_owned().await),
                None => None,
            });
        }
        let mut tables: Vec<TableId> = Vec::new();
        for step in &unit.steps {
            match step {
                Step::Ensure(table) | Step::Alter(table, _) | Step::Fill(table, _) => tables.push(table.id),
                Step::Truncate(several) => tables.extend(several.iter().map(|truncated| truncated.table.id)),
                Step::Write(batch) => tables.push(batch.table.id),
            }
        }
        tables.sort_unstable();
        tables.dedup();
        let mut held = BTreeMap::new();
        for table in tables {
            held.insert(table, self.of(table).alone().await);
        }
        Held::Alone(held)
    }
}

impl Gate {
    /// Waits until nobody else writes to the table.
    pub(super) async fn alone(&self) -> OwnedRwLockWriteGuard<Known> {
        Arc::clone(&self.known).write_owned().await
    }

    pub(super) fn times_emptied(&self) -> u64 {
        self.emptied.load(Ordering::Acquire)
    }

    /// Whoever began before is too late from now on.
    pub(super) fn is_emptied(&self) {
        self.emptied.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn name(&self) -> Option<TableName> {
        lock(&self.name).clone()
    }

    pub(super) fn is_called(&self, name: Option<TableName>) {
        *lock(&self.name) = name;
    }
}

impl Gate {
    /// Since when the table has its shape.
    pub(super) fn shaped(&self) -> Position {
        *lock(&self.shaped)
    }

    pub(super) fn is_shaped(&self, since: Position) {
        *lock(&self.shaped) = since;
    }
}

impl Held {
    /// What is known of a table that is held alone.
    pub(super) fn known(&mut self, table: TableId) -> Option<&mut Known> {
        match self {
            Self::Alone(held) => held.get_mut(&table).map(|known| &mut **known),
            Self::Together(_) => None,
        }
    }

    /// What was known is to be asked for again.
    pub(super) fn forget(&mut self) {
        if let Self::Alone(held) = self {
            held.values_mut().for_each(|known| known.reached = None);
        }
    }
}
