//! Does `null` take whatever comes, and refuse what cannot be made into Arrow?

use etl::EtlResult;
use etl::conformance_tests;
use etl::destination::conformance::{Abilities, Subject};
use etl::destination::{AnyDestination, TextRow};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, SharedStore};
use etl_destinations::null::Null;
use etl_destinations::table_rules::TableRules;

use crate::table::told;

struct Nowhere;

impl Subject for Nowhere {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async { Ok(AnyDestination::new(Null::open(store, TableRules::default()))) })
    }

    fn rows<'a>(&'a self, _table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async { Ok(None) })
    }

    fn abilities(&self) -> Abilities {
        Abilities::default().without_rows()
    }
}

async fn nowhere() -> Option<Nowhere> {
    Some(Nowhere)
}

conformance_tests!(nowhere, told);
