//! Does `check_connection` pass where a place can be written to, and say what is wrong and what to do where it cannot?

use std::path::Path;
use std::sync::Arc;

use etl::destination::{AnyDestination, Destination};
use etl::store::MemoryStore;
use etl::{ErrorKind, EtlResult};
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::file::{FileConfig, Files};
use etl_destinations::parquet::{Parquet, ParquetConfig};
use etl_destinations::postgres::{Postgres, PostgresTargetConfig};
use etl_destinations::table_rules::TableRules;
use harness::postgres::database;

/// That the destination is refused with an error of this kind, which names something and says what to do.
async fn refused(opened: EtlResult<AnyDestination>, kind: ErrorKind, names: &str) {
    let checked = match opened {
        Ok(destination) => destination.check_connection().await,
        Err(error) => Err(error),
    };
    let Err(error) = checked else { panic!("it was not refused, though: {names}") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(format!("{error:?} {error}").contains(names), "{names}: {error}");
    assert!(error.hint_text().is_some(), "it does not say what to do: {error}");
}

fn duckdb(path: &Path) -> EtlResult<AnyDestination> {
    let config = DuckDbConfig::new(path);
    Ok(AnyDestination::new(DuckDb::with_config(config, Arc::new(MemoryStore::new()), TableRules::default())))
}

#[tokio::test]
async fn a_duckdb_file_is_looked_at_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let good = duckdb(&dir.path().join("good.duckdb")).unwrap();
    good.check_connection().await.unwrap();
    assert!(!dir.path().join("good.duckdb").exists(), "a look makes nothing");
    good.startup().await.unwrap();
    good.check_connection().await.unwrap();

    refused(duckdb(&dir.path().join("no/such/place.duckdb")), ErrorKind::Config, "no/such").await;
    let text = dir.path().join("text.duckdb");
    std::fs::write(&text, "this is no database, but a text that is long enough to be taken for one").unwrap();
    refused(duckdb(&text), ErrorKind::Config, "text.duckdb").await;
    refused(duckdb(dir.path()), ErrorKind::Disk, &dir.path().display().to_string()).await;
}

fn files(path: &Path) -> EtlResult<AnyDestination> {
    let files = Files::with_config(FileConfig::new(path), Arc::new(MemoryStore::new()), TableRules::default())?;
    Ok(AnyDestination::new(files))
}

#[tokio::test]
async fn a_directory_for_files_is_looked_at_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("files");
    let good = files(&place).unwrap();
    good.check_connection().await.unwrap();
    assert!(!place.exists(), "a look makes nothing");
    good.startup().await.unwrap();
    good.check_connection().await.unwrap();

    refused(files(&place), ErrorKind::Locked, "files").await;
    refused(files(&dir.path().join("no/such/place")), ErrorKind::Config, "no/such").await;
    let occupied = dir.path().join("occupied");
    std::fs::write(&occupied, "a file").unwrap();
    refused(files(&occupied), ErrorKind::Config, "occupied").await;
}

fn parquet(path: &Path) -> EtlResult<AnyDestination> {
    let config = ParquetConfig::new(path.display().to_string());
    Ok(AnyDestination::new(Parquet::with_config(config, Arc::new(MemoryStore::new()), TableRules::default())?))
}

#[tokio::test]
async fn a_location_of_parquet_files_is_looked_at_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("lake");
    let good = parquet(&place).unwrap();
    good.check_connection().await.unwrap();
    assert!(!place.exists(), "a look makes nothing");
    good.startup().await.unwrap();
    good.check_connection().await.unwrap();

    refused(parquet(&dir.path().join("no/such/place")), ErrorKind::Config, "no/such").await;
    let damaged = dir.path().join("damaged");
    std::fs::create_dir_all(damaged.join(".etl/log")).unwrap();
    std::fs::write(damaged.join(".etl/log/00000000000000000001.json"), "not a manifest").unwrap();
    refused(parquet(&damaged), ErrorKind::DestinationRejected, "manifest").await;
    let unknown = Path::new("ftp://host/lake");
    refused(parquet(unknown), ErrorKind::Config, "ftp://").await;
}

fn postgres(url: &str) -> EtlResult<AnyDestination> {
    let config = PostgresTargetConfig::new(url);
    Ok(AnyDestination::new(Postgres::with_config(config, Arc::new(MemoryStore::new()), TableRules::default())?))
}

#[tokio::test]
async fn a_target_is_asked_what_is_allowed_before_it_is_written() {
    let Some(target) = database().await else { return };
    let client = target.client().await;
    postgres(&target.url()).unwrap().check_connection().await.unwrap();
    let sql = "SELECT count(*) FROM pg_namespace WHERE nspname = '_etl'";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0, "a look makes nothing");

    refused(postgres("postgres://nobody@127.0.0.1:1/nowhere"), ErrorKind::DestinationUnavailable, "127.0.0.1").await;
    refused(postgres("no url"), ErrorKind::Config, "").await;
    let name = target.name();
    let stranger = target.url().replace(&format!("/{name}"), "/no_such_database");
    refused(postgres(&stranger), ErrorKind::Config, "no_such_database").await;
    client.batch_execute(&format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = on")).await.unwrap();
    refused(postgres(&target.url()), ErrorKind::Config, "cannot be written").await;
}
