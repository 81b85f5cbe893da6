//! Does the reference keep its promises?

use etl::EtlResult;
use etl::conformance_tests;
use etl::destination::conformance::Subject;
use etl::destination::{AnyDestination, MemoryDestination, TextRow};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, SharedStore};

struct Memory(MemoryDestination);

impl Subject for Memory {
    fn open(&self, _store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async { Ok(AnyDestination::new(self.0.clone())) })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async { Ok(self.0.rows(table.id)) })
    }
}

async fn memory() -> Option<Memory> {
    Some(Memory(MemoryDestination::new()))
}

conformance_tests!(memory);
