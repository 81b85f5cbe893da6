//! Does `duckdb` keep its promises, read by DuckDB's own Python package?

use std::path::PathBuf;
use std::sync::Arc;

use etl::conformance_tests;
use etl::destination::conformance::Subject;
use etl::destination::{AnyDestination, Destination, Mode, StampedText, TextRow};
use etl::schema::{Kind, TableSchema};
use etl::store::{BoxFuture, SharedStore};
use etl::{ErrorKind, EtlError, EtlResult};
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::table_name::{Case, NameRules};
use etl_destinations::table_rules::TableRules;
use harness::duckdb::Reader;
use harness::duckdb_text::{expression, quoted, spelled};

use crate::names::Names;
use crate::rules::{STAMPS, all_in, stamped};
use crate::table::told;

struct Duck {
    reader: Reader,
    dir: tempfile::TempDir,
    names: Names,
}

/// Upper and lower case do not tell names apart.
const NAMES: NameRules =
    NameRules { case: Case::Ignored, allows: |_| true, longest: usize::MAX, width: char::len_utf8 };

impl Duck {
    fn file(&self) -> PathBuf {
        self.dir.path().join("copy.duckdb")
    }

    /// What was dropped a moment ago may still be finishing what it began.
    async fn opened(&self, rules: TableRules, store: SharedStore) -> EtlResult<AnyDestination> {
        self.names.are_of(&store);
        loop {
            let destination = DuckDb::with_config(DuckDbConfig::new(self.file()), Arc::clone(&store), rules.clone());
            match destination.startup().await {
                Err(error) if error.kind() == ErrorKind::Locked => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(AnyDestination::new(destination)),
            }
        }
    }

    /// The columns before, then those of the table.
    async fn read(&self, table: &TableSchema, before: &[&str]) -> EtlResult<Option<Vec<TextRow>>> {
        let named = self.names.of(table, NAMES).await?;
        let kinds: Vec<_> = table.columns.iter().map(|column| &column.kind).collect();
        let own = named.columns.iter().zip(&kinds).map(|(name, kind)| expression(kind, &quoted(name)));
        let columns: Vec<String> = before.iter().map(|name| quoted(name)).chain(own).collect();
        let name = format!("{}.{}", quoted(&named.table.schema), quoted(&named.table.name));
        let query = format!("SELECT {} FROM {name}", columns.join(", "));
        let mut rows = match self.reader.query(&self.file(), &query).await {
            Ok(rows) => rows,
            Err(error) if error.contains("does not exist") => return Ok(None),
            Err(error) => return Err(EtlError::new(ErrorKind::Internal, error)),
        };
        for row in &mut rows {
            for (kind, value) in kinds.iter().zip(&mut row[before.len()..]) {
                *value = value.take().map(|text| spelled(kind, &text));
            }
        }
        Ok(Some(rows))
    }
}

impl Subject for Duck {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(self.opened(TableRules::default(), store))
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
        Box::pin(self.opened(all_in(mode), store))
    }

    fn stamped_rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<StampedText>>>> {
        Box::pin(async {
            let rows = self.read(table, &STAMPS).await?;
            Ok(rows.map(|rows| rows.into_iter().map(stamped).collect()))
        })
    }

    /// DuckDB does not keep the sign of a zero when it compresses a column.
    fn holds_for(&self, kind: &Kind, value: &str) -> Option<String> {
        (matches!(kind, Kind::Float4 | Kind::Float8) && value == "-0").then(|| "0".to_owned())
    }

    /// By a table that somebody else made.
    fn obstruct<'a>(&'a self, table: &'a TableSchema, obstructed: bool) -> BoxFuture<'a, EtlResult<bool>> {
        Box::pin(async move {
            let (schema, name) = (quoted(&table.name.schema), quoted(&table.name.name));
            let sql = if obstructed {
                format!("CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE {schema}.{name} AS SELECT 42 AS answer")
            } else {
                format!("DROP TABLE {schema}.{name}")
            };
            self.reader.write(&self.file(), &sql).await;
            Ok(true)
        })
    }
}

async fn duckdb() -> Option<Duck> {
    Some(Duck { reader: Reader::find_or_skip().await?, dir: tempfile::tempdir().unwrap(), names: Names::default() })
}

conformance_tests!(duckdb, told);
