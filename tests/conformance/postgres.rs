//! Does `postgres` keep its promises, read by somebody else's client, over a network that fails?

use etl::conformance_tests;
use etl::destination::conformance::{Fault, Subject};
use etl::destination::{AnyDestination, Mode, StampedText, TextRow};
use etl::postgres::{quote_ident, quote_literal};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, SharedStore};
use etl::{ErrorKind, EtlError, EtlResult};
use etl_destinations::postgres::{Postgres, PostgresTargetConfig};
use etl_destinations::table_rules::TableRules;
use harness::postgres::{Database, database};
use harness::proxy::Proxy;
use tokio_postgres::SimpleQueryMessage;

use crate::network;
use crate::rules::{STAMPS, all_in, stamped};
use crate::table::told;

struct Target {
    database: Database,
    proxy: Proxy,
}

/// What values look like depends on it, as at the source.
const SETTINGS: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres';
    SET extra_float_digits = 3; SET bytea_output = 'hex'";

fn name_of(table: &TableSchema) -> String {
    format!("{}.{}", quote_ident(&table.name.schema), quote_ident(&table.name.name))
}

impl Target {
    fn opened(&self, rules: TableRules, store: SharedStore) -> EtlResult<AnyDestination> {
        let config = PostgresTargetConfig::new(self.proxy.url(&self.database.url()));
        Ok(AnyDestination::new(Postgres::with_config(config, store, rules)?))
    }

    /// The columns before, then those of the table.
    async fn read(&self, table: &TableSchema, before: &[&str]) -> EtlResult<Option<Vec<TextRow>>> {
        let client = self.database.client().await;
        let failed = |error| EtlError::new(ErrorKind::Internal, "could not read the target").because(error);
        client.batch_execute(SETTINGS).await.map_err(failed)?;
        let name = name_of(table);
        let exists = format!("SELECT 1 WHERE to_regclass({}) IS NOT NULL", quote_literal(&name));
        if rows(client.simple_query(&exists).await.map_err(failed)?).is_empty() {
            return Ok(None);
        }
        let own = table.columns.iter().map(|column| &*column.name);
        let columns: Vec<String> = before.iter().copied().chain(own).map(quote_ident).collect();
        let query = format!("SELECT {} FROM {name}", columns.join(", "));
        Ok(Some(rows(client.simple_query(&query).await.map_err(failed)?)))
    }
}

impl Subject for Target {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async { self.opened(TableRules::default(), store) })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(self.read(table, &[]))
    }

    fn modes(&self) -> &[Mode] {
        &Mode::ALL
    }

    fn held_in(&self) -> &[Mode] {
        &[Mode::SoftDelete, Mode::Append]
    }

    fn open_in(&self, mode: Mode, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async move { self.opened(all_in(mode), store) })
    }

    fn stamped_rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<StampedText>>>> {
        Box::pin(async {
            let rows = self.read(table, &STAMPS).await?;
            Ok(rows.map(|rows| rows.into_iter().map(stamped).collect()))
        })
    }

    /// The network between them.
    fn suffer(&self, fault: Option<Fault>) -> BoxFuture<'_, EtlResult<bool>> {
        network::suffers(&self.proxy, fault, b"COMMIT");
        Box::pin(async { Ok(true) })
    }

    /// By a table that somebody else made.
    fn obstruct<'a>(&'a self, table: &'a TableSchema, obstructed: bool) -> BoxFuture<'a, EtlResult<bool>> {
        Box::pin(async move {
            let (schema, name) = (quote_ident(&table.name.schema), name_of(table));
            let sql = if obstructed {
                format!("CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE {name} AS SELECT 42 AS answer")
            } else {
                format!("DROP TABLE {name}")
            };
            let done = self.database.client().await.batch_execute(&sql).await;
            done.map(|()| true).map_err(|error| EtlError::new(ErrorKind::Internal, "obstruct a table").because(error))
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
    let database = database().await?;
    let proxy = Proxy::start(database.address()).await.unwrap();
    Some(Target { database, proxy })
}

conformance_tests!(postgres, told);
