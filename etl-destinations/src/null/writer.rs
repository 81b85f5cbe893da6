//! What is there to write? Every value is decoded into record batches, and nothing is kept.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use etl::destination::Capabilities;
use etl::error::EtlResult;
use etl::store::SharedStore;

use crate::columnar::{ArrowLimits, ArrowTable, Infinities};
use crate::table_destination::TableDestination;
use crate::table_rules::TableRules;
use crate::writer::{BatchRows, Step, TableBatch, TableWriter, TargetTable, WriteUnit};

/// Whatever is dropped may be infinite.
const LIMITS: ArrowLimits =
    ArrowLimits { infinities: Some(Infinities { dates: (i32::MIN, i32::MAX), timestamps: (i64::MIN, i64::MAX) }) };

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
        Capabilities::default()
    }

    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        for step in &unit.steps {
            if let Step::Write(batch) = step {
                std::hint::black_box(build(batch)?);
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

fn build(TableBatch { table, rows }: &TableBatch) -> EtlResult<Vec<RecordBatch>> {
    let arrow = ArrowTable::new(table, LIMITS);
    Ok(match rows {
        BatchRows::Copied { rows, position, at } => vec![arrow.copied(rows, *position, *at)?],
        BatchRows::Log(rows) => vec![arrow.stamped(rows)?],
        BatchRows::Keyed(set) => {
            let updates: Vec<_> = set.updates.iter().map(|update| update.new.clone()).collect();
            let mut batches = vec![arrow.partial(&updates)?];
            for rows in [&set.deletes, &set.vacated, &set.upserts] {
                batches.push(arrow.stamped(rows)?);
            }
            batches
        }
        BatchRows::Keyless(set) => {
            let parts = [&set.removals, &set.marks, &set.inserts];
            parts.into_iter().map(|rows| arrow.stamped(rows)).collect::<EtlResult<_>>()?
        }
    })
}
