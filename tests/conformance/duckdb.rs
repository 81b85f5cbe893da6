//! Does `duckdb` keep its promises, read by DuckDB's own Python package?

use std::path::PathBuf;
use std::sync::Arc;

use etl::conformance_tests;
use etl::destination::conformance::Subject;
use etl::destination::{AnyDestination, TextRow};
use etl::schema::{Kind, TableSchema};
use etl::store::{BoxFuture, SharedStore};
use etl::{ErrorKind, EtlError, EtlResult};
use etl_destinations::duckdb::DuckDb;
use harness::duckdb::Reader;

struct Duck {
    reader: Reader,
    dir: tempfile::TempDir,
}

impl Duck {
    fn file(&self) -> PathBuf {
        self.dir.path().join("copy.duckdb")
    }
}

impl Subject for Duck {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async { Ok(AnyDestination::new(open(self.file(), store).await?)) })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async {
            let columns: Vec<String> =
                table.columns.iter().map(|column| text(&quoted(&column.name), &column.kind)).collect();
            let name = format!("{}.{}", quoted(&table.name.schema), quoted(&table.name.name));
            let query = format!("SELECT {} FROM {name}", columns.join(", "));
            match self.reader.query(&self.file(), &query).await {
                Ok(rows) => Ok(Some(rows)),
                Err(error) if error.contains("does not exist") => Ok(None),
                Err(error) => Err(EtlError::new(ErrorKind::Internal, error)),
            }
        })
    }
}

/// What was dropped a moment ago may still be finishing what it began.
async fn open(file: PathBuf, store: SharedStore) -> EtlResult<impl etl::destination::Destination> {
    for _ in 0..12000 {
        match DuckDb::open(&file, Arc::clone(&store)).await {
            Err(error) if error.kind() == ErrorKind::Locked => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            opened => return opened,
        }
    }
    DuckDb::open(&file, store).await
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The value as Postgres writes it.
fn text(name: &str, kind: &Kind) -> String {
    match kind {
        Kind::Bool => format!("CASE {name} WHEN true THEN 't' WHEN false THEN 'f' END"),
        Kind::Float4 | Kind::Float8 => format!(
            "CASE WHEN isnan({name}) THEN 'NaN' WHEN isinf({name}) THEN replace({name}::VARCHAR, 'inf', 'Infinity') \
             ELSE {name}::VARCHAR END"
        ),
        Kind::Bytea => format!("'\\x' || lower(hex({name}))"),
        Kind::TimestampTz => format!(
            "CASE WHEN isinf({name}) THEN {name}::VARCHAR ELSE ({name} AT TIME ZONE 'UTC')::VARCHAR || '+00' END"
        ),
        Kind::Array(_) => format!(
            "'{{' || array_to_string(list_transform({name}, lambda x: coalesce(x::VARCHAR, 'NULL')), ',') || '}}'"
        ),
        _ => format!("{name}::VARCHAR"),
    }
}

async fn duckdb() -> Option<Duck> {
    Some(Duck { reader: Reader::find_or_skip().await?, dir: tempfile::tempdir().unwrap() })
}

conformance_tests!(duckdb);
