//! Does `file` keep its promises, its files read by Python and DuckDB and folded into rows?

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etl::conformance_tests;
use etl::destination::conformance::{Abilities, Subject, UNSENT, fold};
use etl::destination::{AnyDestination, Destination, Mode, StampedText, TextRow};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, SharedStore};
use etl::{ErrorKind, EtlError, EtlResult, Lsn, Position};
use etl_destinations::file::{FileConfig, FileFormat, Files};
use etl_destinations::table_name::{Case, NameRules};
use etl_destinations::table_rules::TableRules;
use harness::change_log::{Logged, read};
use harness::duckdb::Reader;

use crate::names::Names;
use crate::rules::all_in;
use crate::table::told;

/// A directory of files in one format.
pub(crate) struct Shelf {
    reader: Reader,
    dir: tempfile::TempDir,
    format: FileFormat,
    names: Names,
}

/// What no text of a case is.
const NULL_MARKER: &str = "<null>";

/// What file systems can hold.
const NAMES: NameRules = NameRules {
    case: Case::Ignored,
    allows: |character| !character.is_control() && !matches!(character, '/' | '\\' | '.'),
    longest: 200,
    width: char::len_utf8,
};

impl Shelf {
    fn config(&self) -> FileConfig {
        FileConfig {
            format: self.format,
            null_marker: NULL_MARKER.to_owned(),
            // So that files are completed all the time.
            max_bytes: etl::ByteSize(64),
            max_age: Duration::from_secs(600),
            ..FileConfig::new(self.dir.path().join("files"))
        }
    }

    async fn opened(&self, rules: TableRules, store: SharedStore) -> EtlResult<AnyDestination> {
        self.names.are_of(&store);
        loop {
            let files = Files::with_config(self.config(), Arc::clone(&store), rules.clone())?;
            // What was dropped a moment ago may still be finishing what it began.
            match files.startup().await {
                Err(error) if error.kind() == ErrorKind::Locked => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(AnyDestination::new(files)),
            }
        }
    }

    /// Where the files of a table are, and what its columns are called there.
    async fn place(&self, table: &TableSchema) -> EtlResult<(PathBuf, Vec<String>)> {
        let named = self.names.of(table, NAMES).await?;
        let path = self.dir.path().join("files").join(&*named.table.schema).join(&*named.table.name);
        Ok((path, named.columns))
    }

    async fn stamped(&self, table: &TableSchema) -> EtlResult<Option<Vec<StampedText>>> {
        let (path, columns) = self.place(table).await?;
        let log = read(&self.reader, &path, NULL_MARKER).await;
        let log = log.map_err(|error| EtlError::new(ErrorKind::Internal, error))?;
        Ok(log.map(|log| log.into_iter().map(|logged| stamped(logged, &columns)).collect()))
    }
}

fn stamped(mut logged: Logged, columns: &[String]) -> StampedText {
    let unsent = || Some(UNSENT.to_owned());
    let values = columns.iter().map(|name| logged.values.remove(name).unwrap_or_else(unsent)).collect();
    let (commit, ordinal) = logged.position;
    StampedText { position: Position::new(Lsn(commit), ordinal), change_type: logged.change_type, values }
}

impl Subject for Shelf {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(self.opened(TableRules::default(), store))
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async { Ok(self.stamped(table).await?.map(|log| fold(log, table))) })
    }

    fn abilities(&self) -> Abilities {
        let abilities = Abilities::default().with_log();
        if self.format == FileFormat::Csv { abilities.without_unsent() } else { abilities }
    }

    fn modes(&self) -> &[Mode] {
        &[Mode::Append]
    }

    fn open_in(&self, mode: Mode, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(self.opened(all_in(mode), store))
    }

    fn stamped_rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<StampedText>>>> {
        Box::pin(self.stamped(table))
    }

    /// By a file that has the name of the table's directory.
    fn obstruct<'a>(&'a self, table: &'a TableSchema, obstructed: bool) -> BoxFuture<'a, EtlResult<bool>> {
        Box::pin(async move {
            let (path, _) = self.place(table).await?;
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

pub(crate) async fn shelf(format: FileFormat) -> Option<Shelf> {
    let (reader, dir) = (Reader::find_or_skip().await?, tempfile::tempdir().unwrap());
    Some(Shelf { reader, dir, format, names: Names::default() })
}

async fn jsonl() -> Option<Shelf> {
    shelf(FileFormat::Jsonl).await
}

conformance_tests!(jsonl, told);
