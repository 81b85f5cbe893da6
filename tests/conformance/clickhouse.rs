//! Does `clickhouse` keep its promises, read by ClickHouse itself, over a network that fails?

use std::sync::Arc;

use etl::conformance_tests;
use etl::data::decode;
use etl::destination::conformance::{Fault, Subject};
use etl::destination::{AnyDestination, Mode, StampedText, TextRow};
use etl::schema::{Kind, TableSchema};
use etl::store::{BoxFuture, MemoryStore, SharedStore};
use etl::{ErrorKind, EtlError, EtlResult};
use etl_destinations::clickhouse::{ClickHouse, ClickHouseConfig};
use etl_destinations::table_name::NameRules;
use etl_destinations::table_rules::TableRules;
use etl_destinations::writer::TableWriter;
use harness::clickhouse::{self, as_postgres, clickhouse, quoted};
use harness::proxy::Proxy;

use crate::names::{Named, Names};
use crate::network;
use crate::rules::{STAMPS, all_in, stamped};
use crate::table::told;

struct Place {
    server: clickhouse::ClickHouse,
    proxy: Proxy,
    names: Names,
}

fn failed(error: String) -> EtlError {
    EtlError::new(ErrorKind::Internal, error)
}

impl Place {
    fn config(&self) -> ClickHouseConfig {
        let url = format!("http://127.0.0.1:{}", self.proxy.port());
        ClickHouseConfig { database_prefix: self.server.prefix().to_owned(), ..ClickHouseConfig::new(url) }
    }

    fn opened(&self, rules: TableRules, store: SharedStore) -> EtlResult<AnyDestination> {
        self.names.are_of(&store);
        Ok(AnyDestination::new(ClickHouse::with_config(self.config(), store, rules)?))
    }

    fn name_rules(&self) -> EtlResult<NameRules> {
        let any: SharedStore = Arc::new(MemoryStore::new());
        Ok(ClickHouse::with_config(self.config(), any, TableRules::default())?.writer().name_rules())
    }

    async fn named(&self, table: &TableSchema) -> EtlResult<(String, Named)> {
        let named = self.names.of(table, self.name_rules()?).await?;
        Ok((format!("{}{}", self.server.prefix(), named.table.schema), named))
    }

    /// The columns before, then those of the table: of its view, where it has one.
    async fn read(&self, table: &TableSchema, before: &[&str]) -> EtlResult<Option<Vec<TextRow>>> {
        let (database, named) = self.named(table).await?;
        let literal = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let view = format!("{}_current", named.table.name);
        let sql = format!(
            "SELECT name FROM system.tables WHERE database = {} AND name IN ({}, {}) ORDER BY engine = 'View' DESC",
            literal(&database),
            literal(&named.table.name),
            literal(&view)
        );
        let found = self.server.query(&sql).await.map_err(failed)?;
        let Some(name) = found.into_iter().next().and_then(|row| row.into_iter().next().flatten()) else {
            return Ok(None);
        };
        let own = named.columns.iter().zip(&table.columns);
        let own = own.map(|(name, column)| as_postgres(&quoted(name), &column.type_name));
        let columns: Vec<String> = before.iter().map(|name| format!("toString({})", quoted(name))).chain(own).collect();
        let sql = format!("SELECT {} FROM {}.{}", columns.join(", "), quoted(&database), quoted(&name));
        let rows = self.server.query(&sql).await.map_err(failed)?;
        let spelled = |mut row: TextRow| {
            for (value, column) in row.iter_mut().skip(before.len()).zip(&table.columns) {
                *value = value.take().map(|text| number(text, &column.kind));
            }
            row
        };
        Ok(Some(rows.into_iter().map(spelled).collect()))
    }
}

impl Subject for Place {
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
        if std::env::var_os("ETL_SOAK").is_some() { &[Mode::SoftDelete, Mode::Append] } else { &[] }
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
        network::suffers(&self.proxy, fault, b"FORMAT ArrowStream");
        Box::pin(async { Ok(true) })
    }

    /// By a table that somebody else made.
    fn obstruct<'a>(&'a self, table: &'a TableSchema, obstructed: bool) -> BoxFuture<'a, EtlResult<bool>> {
        Box::pin(async move {
            let (database, named) = self.named(table).await?;
            let name = format!("{}.{}", quoted(&database), quoted(&named.table.name));
            let run = async |sql: String| self.server.run(&sql).await.map_err(failed);
            if obstructed {
                run(format!("CREATE DATABASE IF NOT EXISTS {}", quoted(&database))).await?;
                run(format!("CREATE TABLE {name} ENGINE = Memory AS SELECT 42 AS answer")).await?;
            } else {
                run(format!("DROP TABLE {name}")).await?;
            }
            Ok(true)
        })
    }
}

/// A float as Postgres writes it; other values are as they are.
fn number(text: String, kind: &Kind) -> String {
    let mut number = String::new();
    match (kind, text.parse::<f32>(), text.parse::<f64>()) {
        (Kind::Float4, Ok(value), _) => decode::write_float4(value, &mut number),
        (Kind::Float8, _, Ok(value)) => decode::write_float8(value, &mut number),
        _ => return text,
    }
    number
}

async fn place() -> Option<Place> {
    let server = clickhouse().await?;
    let proxy = Proxy::start(server.address()).await.unwrap();
    Some(Place { server, proxy, names: Names::default() })
}

conformance_tests!(place, told);
