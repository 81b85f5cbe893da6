//! Does `parquet` keep its promises in a bucket, read by Amazon's client and DuckDB?

use std::collections::BTreeMap;
use std::sync::Arc;

use etl::destination::conformance::{Abilities, CASES, Subject, fold};
use etl::destination::{AnyDestination, Destination, TextRow};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, MemoryStore, SharedStore};
use etl::{ByteSize, ErrorKind, EtlResult, Secret};
use etl_destinations::parquet::{Parquet, ParquetConfig, ParquetInfinities};
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::duckdb::Reader;
use harness::parquet::{Which, current, query};
use harness::s3::Bucket;

use crate::names::Names;
use crate::parquet::{NAMES, stamped};
use crate::small_table::{TABLE, chunk, insert, row, schema, transaction, update};

struct Lake {
    reader: Reader,
    bucket: Bucket,
    names: Names,
}

impl Lake {
    fn config(&self) -> ParquetConfig {
        let options = [
            ("aws_endpoint", self.bucket.endpoint.as_str()),
            ("aws_allow_http", "true"),
            ("aws_region", "us-east-1"),
            ("aws_access_key_id", "test"),
            ("aws_secret_access_key", "test"),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), Secret::new(value)));
        let location = format!("s3://{}/some/where", self.bucket.name);
        ParquetConfig {
            options: BTreeMap::from(options),
            file_bytes: ByteSize(1 << 20),
            infinities: ParquetInfinities::DuckDb,
            ..ParquetConfig::new(location)
        }
    }
}

impl Subject for Lake {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async { Ok(AnyDestination::new(Parquet::with_config(self.config(), store, TableRules::default())?)) })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async {
            let dir = tempfile::tempdir().unwrap();
            self.bucket.mirror(dir.path()).await;
            let columns = self.names.of(table, NAMES).await?.columns;
            let place = dir.path().join("some/where");
            let rows = stamped(&self.reader, &place, table, &columns, Which::Log).await?;
            Ok(rows.map(|rows| fold(rows, table)))
        })
    }

    fn abilities(&self) -> Abilities {
        Abilities::default().with_log()
    }
}

async fn s3() -> Option<Lake> {
    let (reader, bucket) = (Reader::find_or_skip().await?, Bucket::make_or_skip().await?);
    Some(Lake { reader, bucket, names: Names::default() })
}

/// What asks something of a store that a directory answers otherwise; all of them where there is time.
const FEW: &[&str] = &[
    "a_copy_arrives_whole_and_a_repeated_chunk_changes_nothing",
    "a_new_copy_forgets_the_old_one",
    "odd_names_and_keys_are_kept",
    "what_is_delivered_again_changes_nothing",
    "one_large_batch_arrives",
    "ten_tables_are_copied_at_once_and_written_together",
    "a_write_that_is_given_up_and_made_again_changes_nothing",
];

#[tokio::test]
async fn a_bucket_keeps_the_promises() {
    let has_time = std::env::var_os("ETL_SOAK").is_some();
    for case in CASES.iter().filter(|case| has_time || FEW.contains(&case.name)) {
        let Some(subject) = s3().await else { return };
        case.run(&subject).await.unwrap_or_else(|broken| panic!("{}: {broken}", case.name));
    }
}

fn open(config: ParquetConfig, store: &SharedStore) -> etl_destinations::table_destination::TableDestination<Parquet> {
    let defaults = RuleSettings { write_mode: Some(WriteMode::Upsert), ..RuleSettings::default() };
    let rules = TableRules { defaults, rules: Vec::new() };
    Parquet::with_config(config, Arc::clone(store), rules).unwrap()
}

#[tokio::test]
async fn a_bucket_is_reached_with_the_options_and_no_other() {
    let Some(lake) = s3().await else { return };
    let store: SharedStore = Arc::new(MemoryStore::new());
    open(lake.config(), &store).check_connection().await.unwrap();
    let other = ParquetConfig { location: "s3://no-such-bucket/x".to_owned(), ..lake.config() };
    let error = open(other, &store).check_connection().await.unwrap_err();
    assert!(error.kind() == ErrorKind::DestinationRejected && error.hint_text().is_some(), "{error}");
    let mut unknown = lake.config();
    unknown.options.insert("aws_colour".to_owned(), Secret::new("hunter2"));
    let error = open(unknown, &store).check_connection().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("aws_colour"), "{error}");
}

#[tokio::test]
async fn a_bucket_is_taken_over_merged_and_compacted() {
    let Some(lake) = s3().await else { return };
    let store: SharedStore = Arc::new(MemoryStore::new());
    store.put_schema(schema()).await.unwrap();
    let (before, after) = (open(lake.config(), &store), open(lake.config(), &store));
    before.write_copy_chunk(TABLE, chunk(), vec![row(&schema(), ["a", "old"])].into()).await.unwrap();
    let write = async |to: &dyn Fn() -> (etl::destination::Batch, Vec<etl::data::Event>)| {
        let (batch, events) = to();
        after.write_batch(batch, events).await
    };
    for round in 2..20_u64 {
        write(&|| transaction(round * 100, vec![insert([&format!("k{round}"), "x"])])).await.unwrap();
    }
    let (batch, events) = transaction(5000, vec![update(["a", "?"])]);
    let error = before.write_batch(batch.clone(), events.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    after.write_batch(batch, events).await.unwrap();
    assert!(after.writer().merge().await.unwrap() > 16);
    assert_eq!(after.writer().compact().await.unwrap()[0].rows, 19);
    let dir = tempfile::tempdir().unwrap();
    lake.bucket.mirror(dir.path()).await;
    let from = current(&dir.path().join("some/where"), "public", "t");
    let rows = query(&lake.reader, &format!("SELECT v, _LSN FROM {from} WHERE k = 'a'")).await;
    assert_eq!(rows, [[Some("old".to_owned()), Some("5000".to_owned())].to_vec()]);
}
