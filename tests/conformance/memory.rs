//! Does the reference keep its promises?

use etl::EtlResult;
use etl::conformance_tests;
use etl::destination::conformance::Subject;
use etl::destination::{AnyDestination, MemoryDestination, Mode, StampedText, TextRow};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, SharedStore};

use crate::table::told;

struct Memory(MemoryDestination);

impl Subject for Memory {
    fn open(&self, _store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async { Ok(AnyDestination::new(self.0.clone())) })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async { Ok(self.0.rows(table.id)) })
    }

    fn modes(&self) -> &[Mode] {
        &Mode::ALL
    }

    fn held_in(&self) -> &[Mode] {
        &[Mode::SoftDelete, Mode::Append]
    }

    fn open_in(&self, mode: Mode, _store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async move { Ok(AnyDestination::new(self.0.clone().in_mode(mode))) })
    }

    fn stamped_rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<StampedText>>>> {
        Box::pin(async { Ok(stamped_rows(&self.0, table)) })
    }
}

/// The rows in their mode; a truncate is a row of nulls, as many as there are columns.
pub(crate) fn stamped_rows(memory: &MemoryDestination, table: &TableSchema) -> Option<Vec<StampedText>> {
    let mut rows = memory.stamped_rows(table.id)?;
    rows.iter_mut().for_each(|row| row.values.resize(table.columns.len(), None));
    Some(rows)
}

async fn memory() -> Option<Memory> {
    Some(Memory(MemoryDestination::new()))
}

conformance_tests!(memory, told);
