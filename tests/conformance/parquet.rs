//! Does `parquet` keep its promises, its log and its current states read by DuckDB by what the manifests count?

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use etl::conformance_tests;
use etl::destination::conformance::{Abilities, Subject, UNSENT, fold};
use etl::destination::{AnyDestination, Destination, Mode, StampedText, TextRow};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, SharedStore};
use etl::{ByteSize, ErrorKind, EtlError, EtlResult, Lsn, Position};
use etl_destinations::parquet::{Parquet, ParquetConfig, ParquetInfinities};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_name::{Case, NameRules};
use harness::duckdb::Reader;
use harness::duckdb_text::{expression, quoted, spelled};
use harness::parquet::{Stamped, Which, read};

use crate::names::Names;
use crate::rules::all_in;
use crate::table::told;

struct Lake {
    reader: Reader,
    dir: tempfile::TempDir,
    names: Names,
    open: Mutex<Option<(Mode, SharedStore)>>,
}

/// What readers tell apart.
pub(crate) const NAMES: NameRules =
    NameRules { case: Case::Ignored, allows: |_| true, longest: 80, width: char::len_utf8 };

impl Lake {
    fn place(&self) -> PathBuf {
        self.dir.path().join("lake")
    }

    fn config(&self) -> ParquetConfig {
        ParquetConfig {
            infinities: ParquetInfinities::DuckDb,
            // So that a large unit has several files.
            file_bytes: ByteSize(1 << 20),
            ..ParquetConfig::new(self.place().display().to_string())
        }
    }

    async fn destination(&self, mode: Mode, store: SharedStore) -> EtlResult<TableDestination<Parquet>> {
        let parquet = Parquet::with_config(self.config(), store, all_in(mode))?;
        parquet.startup().await?;
        Ok(parquet)
    }

    async fn opened(&self, mode: Mode, store: SharedStore) -> EtlResult<AnyDestination> {
        self.names.are_of(&store);
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some((mode, Arc::clone(&store)));
        Ok(AnyDestination::new(self.destination(mode, store).await?))
    }

    async fn stamped(&self, table: &TableSchema) -> EtlResult<Option<Vec<StampedText>>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut which = Which::Log;
        if let Some((mode, store)) = open.filter(|(mode, _)| *mode != Mode::Append) {
            self.destination(mode, store).await?.writer().compact().await?;
            which = Which::Current;
        }
        let columns = self.names.of(table, NAMES).await?.columns;
        stamped(&self.reader, &self.place(), table, &columns, which).await
    }
}

/// The rows of a table, as Postgres writes their values.
pub(crate) async fn stamped(
    reader: &Reader,
    place: &Path,
    table: &TableSchema,
    columns: &[String],
    which: Which,
) -> EtlResult<Option<Vec<StampedText>>> {
    let named = columns.iter().zip(&table.columns);
    let wanted: Vec<(String, String)> =
        named.map(|(name, column)| (name.clone(), expression(&column.kind, &quoted(name)))).collect();
    let rows = read(reader, place, &table.id.to_string(), which, &wanted).await;
    let rows = rows.map_err(|error| EtlError::new(ErrorKind::Internal, error))?;
    let row = |Stamped { change_type, position, unchanged, values }: Stamped| {
        let value = |((name, value), column): ((&String, Option<String>), &etl::schema::Column)| {
            let is_unsent = unchanged.contains(name);
            if is_unsent { Some(UNSENT.to_owned()) } else { value.map(|text| spelled(&column.kind, &text)) }
        };
        let values = columns.iter().zip(values).zip(&table.columns).map(value).collect();
        StampedText { position: Position::new(Lsn(position.0), position.1), change_type, values }
    };
    Ok(rows.map(|rows| rows.into_iter().map(row).collect()))
}

impl Subject for Lake {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(self.opened(Mode::Append, store))
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async {
            let rows = self.stamped(table).await?;
            let is_log = self
                .open
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .is_none_or(|open| open.0 == Mode::Append);
            Ok(rows.map(|rows| match is_log {
                true => fold(rows, table),
                false => rows.into_iter().map(|row| row.values).collect(),
            }))
        })
    }

    fn abilities(&self) -> Abilities {
        Abilities::default().with_log()
    }

    fn modes(&self) -> &[Mode] {
        &Mode::ALL
    }

    fn open_in(&self, mode: Mode, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(self.opened(mode, store))
    }

    fn stamped_rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<StampedText>>>> {
        Box::pin(self.stamped(table))
    }

    /// By a file that has the name of the table's directory.
    fn obstruct<'a>(&'a self, table: &'a TableSchema, obstructed: bool) -> BoxFuture<'a, EtlResult<bool>> {
        Box::pin(async move {
            let path = self.place().join(&*table.name.schema).join(&*table.name.name);
            let done = match (obstructed, path.parent()) {
                (true, Some(parent)) => {
                    std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&path, "occupied"))
                }
                _ => std::fs::remove_file(&path),
            };
            done.map(|()| true).map_err(|error| EtlError::new(ErrorKind::Disk, "obstruct a table").because(error))
        })
    }
}

async fn lake() -> Option<Lake> {
    let (reader, dir) = (Reader::find_or_skip().await?, tempfile::tempdir().unwrap());
    Some(Lake { reader, dir, names: Names::default(), open: Mutex::default() })
}

conformance_tests!(lake, told);
