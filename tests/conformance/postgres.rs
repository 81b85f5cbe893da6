//! Does `postgres` keep its promises, read by psql?

use etl::conformance_tests;
use etl::destination::conformance::Subject;
use etl::destination::{AnyDestination, TextRow};
use etl::postgres::{quote_ident, quote_literal};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, SharedStore};
use etl::{ErrorKind, EtlError, EtlResult};
use etl_destinations::postgres::Postgres;
use harness::postgres::{Database, database};
use tokio_postgres::SimpleQueryMessage;

struct Target {
    database: Database,
}

/// What values look like depends on it, as at the source.
const SETTINGS: &str =
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET extra_float_digits = 3; SET bytea_output = 'hex'";

impl Subject for Target {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async move { Ok(AnyDestination::new(Postgres::open(&self.database.url(), store).await?)) })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async {
            let client = self.database.client().await;
            let failed = |error| EtlError::new(ErrorKind::Internal, "could not read the target").because(error);
            client.batch_execute(SETTINGS).await.map_err(failed)?;
            let name = format!("{}.{}", quote_ident(&table.name.schema), quote_ident(&table.name.name));
            let exists = format!("SELECT 1 WHERE to_regclass({}) IS NOT NULL", quote_literal(&name));
            if rows(client.simple_query(&exists).await.map_err(failed)?).is_empty() {
                return Ok(None);
            }
            let columns: Vec<String> = table.columns.iter().map(|column| quote_ident(&column.name)).collect();
            let query = format!("SELECT {} FROM {name}", columns.join(", "));
            Ok(Some(rows(client.simple_query(&query).await.map_err(failed)?)))
        })
    }
}

/// What a query gave.
pub(crate) fn rows(messages: Vec<SimpleQueryMessage>) -> Vec<TextRow> {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

async fn postgres() -> Option<Target> {
    Some(Target { database: database().await? })
}

conformance_tests!(postgres);
