//! Does `file` keep its promises, its files read by Python and DuckDB and folded into rows?

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etl::conformance_tests;
use etl::destination::conformance::{Abilities, CASES, Subject};
use etl::destination::{AnyDestination, TextRow};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, SharedStore};
use etl::{ErrorKind, EtlError, EtlResult};
use etl_destinations::file::{FileConfig, FileFormat, Files};
use etl_destinations::table_rules::TableRules;
use harness::change_log::{fold, read};
use harness::duckdb::Reader;

/// A directory of files in one format.
struct Shelf {
    reader: Reader,
    dir: tempfile::TempDir,
    format: FileFormat,
}

/// What no text of a case is.
const NULL_MARKER: &str = "<null>";

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

    fn table(&self, table: &TableSchema) -> PathBuf {
        self.dir.path().join("files").join(&*table.name.schema).join(&*table.name.name)
    }
}

impl Subject for Shelf {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async move {
            loop {
                let files = Files::with_config(self.config(), Arc::clone(&store), TableRules::default())?;
                // What was dropped a moment ago may still be finishing what it began.
                match etl::destination::Destination::startup(&files).await {
                    Err(error) if error.kind() == ErrorKind::Locked => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err(error) => return Err(error),
                    Ok(()) => return Ok(AnyDestination::new(files)),
                }
            }
        })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async {
            let log = read(&self.reader, &self.table(table), NULL_MARKER).await;
            let log = log.map_err(|error| EtlError::new(ErrorKind::Internal, error))?;
            let columns: Vec<&str> = table.columns.iter().map(|column| &*column.name).collect();
            let key: Vec<&str> = table.key.iter().map(|place| columns[usize::from(*place)]).collect();
            Ok(log.map(|log| fold(log, &key, &columns)))
        })
    }

    fn abilities(&self) -> Abilities {
        Abilities::default().with_log()
    }
}

async fn shelf(format: FileFormat) -> Option<Shelf> {
    Some(Shelf { reader: Reader::find_or_skip().await?, dir: tempfile::tempdir().unwrap(), format })
}

async fn jsonl() -> Option<Shelf> {
    shelf(FileFormat::Jsonl).await
}

conformance_tests!(jsonl);

/// The cases in which every value is sent: a record of CSV has no place for one that was not.
const CSV: &[&str] = &[
    "an_empty_copy_makes_an_empty_table",
    "a_copy_arrives_whole_and_a_repeated_chunk_changes_nothing",
    "a_new_copy_forgets_the_old_one",
    "every_kind_of_value_arrives_exactly",
    "inserts_updates_and_deletes_end_in_the_current_state",
    "rows_without_a_key_are_kept_as_they_are",
    "an_old_row_hits_exactly_one_equal_row",
    "schema_changes_are_followed_within_a_batch",
];

#[tokio::test]
async fn csv_keeps_the_promises_that_need_no_unsent_value() {
    for name in CSV {
        let Some(subject) = shelf(FileFormat::Csv).await else { return };
        let case = CASES.iter().find(|case| case.name == *name).expect("a case of that name");
        case.run(&subject).await.unwrap_or_else(|broken| panic!("{name}: {broken}"));
    }
}
