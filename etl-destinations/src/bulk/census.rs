//! What is under way, as metrics show it?

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use etl::clock::{self, Timestamp};
use etl::metrics::OperationMetrics;
use etl::schema::TableId;
use etl::store::{Accounting, Operation, OperationId, OperationState};

use crate::writer::TargetTable;

/// Counts operations. What it shows of them is as of the last one that moved.
#[derive(Debug, Default)]
pub(super) struct Census {
    metrics: OnceLock<OperationMetrics>,
    unknown: OperationMetrics,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    under_way: BTreeMap<OperationId, UnderWay>,
    names: HashMap<TableId, String>,
}

#[derive(Debug)]
struct UnderWay {
    state: &'static str,
    table: TableId,
    bytes: u64,
    sealed_at: Timestamp,
}

impl Census {
    /// Whose operations they are.
    pub(super) fn begin(&self, pipeline: &str, destination: &str) {
        self.metrics.get_or_init(|| OperationMetrics::new(pipeline, destination));
    }

    /// Where they are counted.
    pub(super) fn metrics(&self) -> &OperationMetrics {
        self.metrics.get().unwrap_or(&self.unknown)
    }

    /// What the table is called at the source.
    pub(super) fn met(&self, table: &TargetTable) {
        self.counted().names.entry(table.id).or_insert_with(|| table.source.source_name().to_string());
    }

    /// An operation is stored as this.
    pub(super) fn saw(&self, operation: &Operation) {
        let mut counted = self.counted();
        if operation.state.is_settled() {
            counted.under_way.remove(&operation.id);
        } else {
            let Operation { table, bytes, sealed_at, .. } = *operation;
            let under_way = UnderWay { state: operation.state.name(), table, bytes, sealed_at };
            counted.under_way.insert(operation.id.clone(), under_way);
        }
        self.show(&counted);
    }

    /// Nobody has to know of an operation any more.
    pub(super) fn forgot(&self, operation: &OperationId) {
        self.counted().under_way.remove(operation);
        self.show(&self.counted());
    }

    /// What is under way of a table is this, and nothing else.
    pub(super) fn saw_all(&self, table: TableId, live: &[Operation]) {
        self.counted().under_way.retain(|_, known| known.table != table);
        live.iter().for_each(|operation| self.saw(operation));
        self.show(&self.counted());
    }

    /// An operation is settled.
    pub(super) fn settled(&self, operation: &Operation, accounting: Accounting) {
        self.saw(operation);
        let metrics = self.metrics();
        metrics.settled(clock::now().since(operation.sealed_at));
        let Accounting { succeeded, warned, retried, dead, unattributed } = accounting;
        let outcomes = [
            ("succeeded", succeeded),
            ("warned", warned),
            ("retried", retried),
            ("dead", dead),
            ("unattributed", unattributed),
        ];
        let table = self.name(operation.table);
        for (outcome, rows) in outcomes.into_iter().filter(|(_, rows)| *rows > 0) {
            metrics.rows(&table, outcome, rows);
        }
        if dead > 0 {
            metrics.dead_letters(&table, "rejected", dead);
        }
    }

    /// The table's name, where it was met.
    pub(super) fn name(&self, table: TableId) -> String {
        self.counted().names.get(&table).cloned().unwrap_or_else(|| table.to_string())
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, counted: &Counted) {
        let metrics = self.metrics();
        for state in OperationState::NAMES.iter().filter(|state| **state != "settled") {
            let count = counted.under_way.values().filter(|known| known.state == *state).count();
            metrics.under_way(state, count as u64);
        }
        let held = counted.under_way.values().filter(|known| known.state == "held").map(|known| known.table);
        metrics.tables_held(held.collect::<BTreeSet<_>>().len() as u64);
        metrics.spool_bytes(counted.under_way.values().map(|known| known.bytes).sum());
        let oldest = counted.under_way.values().map(|known| known.sealed_at).min();
        metrics.oldest_age(oldest.map_or_else(Default::default, |oldest| clock::now().since(oldest)));
    }
}
