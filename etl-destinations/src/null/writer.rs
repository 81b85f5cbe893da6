//! What is there to write? Every value is decoded into record batches, and nothing is kept.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use etl::destination::{Capabilities, ValueLimits};
use etl::error::EtlResult;
use etl::store::SharedStore;

use crate::columnar::{ArrowLimits, ArrowTable, Infinities, copied_pieces, pieces};
use crate::table_destination::TableDestination;
use crate::table_rules::TableRules;
use crate::writer::{BatchRows, StampedRow, Step, TableBatch, TableWriter, TargetTable, WriteUnit};

/// Whatever is dropped may be infinite.
const LIMITS: ArrowLimits = ArrowLimits {
    infinities: Some(Infinities { dates: (i32::MIN, i32::MAX), timestamps: (i64::MIN, i64::MAX) }),
    ..ArrowLimits::ARROW
};

/// Builds record batches and drops them, for measuring the source's side.
#[derive(Debug, Clone, Copy, Default)]
pub struct Null;

impl Null {
    /// A destination that follows the rules as any other does.
    pub fn open(store: SharedStore, rules: TableRules) -> TableDestination<Self> {
        TableDestination::new(Self, store, rules)
    }
}

impl TableWriter for Null {
    fn name(&self) -> &str {
        "null"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_schema_changes()
    }

    fn value_limits(&self) -> ValueLimits {
        LIMITS.values()
    }

    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        for step in &unit.steps {
            if let Step::Write(batch) = step {
                build(batch)?;
            }
        }
        Ok(())
    }

    async fn reset(&self, _table: &Arc<TargetTable>) -> EtlResult<()> {
        Ok(())
    }

    async fn check_connection(&self) -> EtlResult<()> {
        Ok(())
    }
}

/// One record batch after the other, none of which is kept.
fn build(TableBatch { table, rows }: &TableBatch) -> EtlResult<()> {
    let arrow = ArrowTable::new(table, LIMITS);
    let stamped = |rows: &[StampedRow]| {
        pieces(rows, |stamped| &stamped.row).try_for_each(|piece| arrow.stamped(piece).map(forget))
    };
    match rows {
        BatchRows::Copied { rows, position, at } => {
            copied_pieces(rows).try_for_each(|piece| arrow.copied(piece, *position, *at).map(forget))
        }
        BatchRows::Log(rows) => stamped(rows),
        BatchRows::Keyed(set) => {
            let updates: Vec<_> = set.updates.iter().map(|update| update.new.clone()).collect();
            pieces(&updates, |stamped| &stamped.row).try_for_each(|piece| arrow.partial(piece).map(forget))?;
            [&set.deletes, &set.vacated, &set.upserts].into_iter().try_for_each(|rows| stamped(rows))
        }
        BatchRows::Keyless(set) => {
            [&set.removals, &set.marks, &set.inserts].into_iter().try_for_each(|rows| stamped(rows))
        }
    }
}

/// Drops a record batch; that it was made cannot be left out.
fn forget(batch: RecordBatch) {
    drop(std::hint::black_box(batch));
}
