//! `etl demo`: does it work? A throwaway Postgres with a sample shop, live in a DuckDB file, compared in the end.

mod comparison;
mod shop;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use etl::clock;
use etl::pipeline::PipelineHandle;
use etl_config::{AppConfig, Environment};
use etl_local_postgres::LocalPostgres;
use tokio_postgres::Client;

use self::comparison::Digest;
use self::shop::Sizes;
use crate::args::Demo;
use crate::failure::Failure;
use crate::progress::{Lines, Progress};
use crate::run::Signals;
use crate::stdout::say;
use crate::telemetry;

pub(crate) async fn demo(args: &Demo) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    tokio::select! {
        done = show(args) => done,
        () = signals.next() => Err(Failure::Other("the demo was stopped".to_owned())),
    }
}

async fn show(args: &Demo) -> Result<ExitCode, Failure> {
    let began = clock::monotonic();
    let place = Place::new(args.keep.as_deref())?;
    let sizes = Sizes::of(args.rows);

    say("1. A throwaway Postgres, and a shop in it");
    let server = LocalPostgres::builder()
        .setting("max_wal_size", "4GB")
        .notice(|text| say(&format!("   {text}")))
        .start()
        .await
        .map_err(|error| Failure::Other(error.to_string()))?;
    let client = server.connect("postgres").await.map_err(|error| Failure::Other(error.to_string()))?;
    shop::fill(&client, sizes).await?;
    say(&format!("   {} rows in {} tables", count(&client).await?, shop::TABLES.len()));

    say("2. Copied into DuckDB, and followed");
    let config = write_config(&place, &server.url())?;
    let progress = Progress::new(Lines::Said);
    telemetry::start(config.telemetry.log, None, &progress.bars, progress.is_terminal);
    let running = config.connect().await?.start().await?;
    let handle = running.handle();
    let transactions = tokio::select! {
        transactions = live(&handle, &client, sizes, args) => transactions?,
        never = progress.follow(&handle) => match never {},
    };
    running.shutdown(Duration::from_secs(60)).await?;
    say(&format!("   {transactions} transactions with {} changes followed", handle.status().changes_written));

    say("3. Counted and added up by SQL on each side");
    let is_equal = compare(&client, &place.file()).await?;
    if let Some(kept) = &args.keep {
        say(&format!("The DuckDB file and its config are in {}", kept.display()));
    }
    let seconds = clock::monotonic().saturating_duration_since(began).as_secs();
    if is_equal {
        say(&format!("Equal, after {seconds} s. Next: `etl init`, then `etl run` with your own database."));
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::Other("the two sides differ, which is a bug: please report it".to_owned()))
    }
}

/// Waits for the copy, opens the shop, and waits for the last change.
async fn live(handle: &PipelineHandle, client: &Client, sizes: Sizes, args: &Demo) -> Result<u64, Failure> {
    let began = clock::monotonic();
    handle.caught_up().await?;
    let took = clock::monotonic().saturating_duration_since(began);
    say(&format!("   copied in {:.1} s; the shop is open for {} s", took.as_secs_f64(), args.seconds));
    let transactions = shop::open(client, sizes, Duration::from_secs(args.seconds)).await?;
    handle.caught_up().await?;
    Ok(transactions)
}

async fn count(client: &Client) -> Result<String, Failure> {
    let parts: Vec<String> = shop::TABLES.iter().map(|table| format!("(SELECT count(*) FROM {table})")).collect();
    let row = client.query_one(&format!("SELECT ({})::text", parts.join(" + ")), &[]).await;
    row.map(|row| row.get(0)).map_err(|error| shop::failed("count its rows", &error))
}

async fn compare(client: &Client, file: &Path) -> Result<bool, Failure> {
    let duckdb = comparison::open(file)?;
    say(&format!("   {:<12} {:>10} {:>10}  {:<26} {:<26}", "table", "Postgres", "DuckDB", "Postgres", "DuckDB"));
    let mut is_equal = true;
    for table in shop::TABLES {
        let texts = comparison::texts(client, table).await?;
        let source = comparison::in_postgres(client, table, &texts).await?;
        let copy = comparison::in_duckdb(&duckdb, table, &texts)?;
        is_equal &= source == copy;
        say(&line(table, &source, &copy));
    }
    Ok(is_equal)
}

fn line(table: &str, source: &Digest, copy: &Digest) -> String {
    let verdict = if source == copy { "equal" } else { "DIFFERENT" };
    let (a, b) = (&source.checksum, &copy.checksum);
    format!("   {table:<12} {:>10} {:>10}  {a:<26} {b:<26} {verdict}", source.rows, copy.rows)
}

/// Where the demo writes: a directory that goes away, or one to keep.
struct Place {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn new(keep: Option<&Path>) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::Other(format!("the demo has no place to write to: {error}"));
        let Some(path) = keep else {
            let temporary = tempfile::Builder::new().prefix("etl-demo-").tempdir().map_err(failed)?;
            return Ok(Self { path: temporary.path().to_owned(), _temporary: Some(temporary) });
        };
        std::fs::create_dir_all(path).map_err(failed)?;
        let place = Self { path: path.to_owned(), _temporary: None };
        if place.file().exists() || place.data_dir().exists() {
            let shown = path.display();
            return Err(Failure::Usage(format!("{shown} holds an earlier demo; name another directory for --keep")));
        }
        Ok(place)
    }

    fn file(&self) -> PathBuf {
        self.path.join("shop.duckdb")
    }

    fn data_dir(&self) -> PathBuf {
        self.path.join("etl-data")
    }
}

/// Writes the config of the demo, as a user would, and reads it.
fn write_config(place: &Place, url: &str) -> Result<AppConfig, Failure> {
    let text = format!(
        "pipeline: {{ id: demo, data_dir: {data_dir:?} }}\n\
         source: {{ postgres: {{ url: \"${{DATABASE_URL}}\", publication: shop_pub }} }}\n\
         destination: {{ duckdb: {{ path: {file:?} }} }}\n\
         telemetry: {{ log: {{ level: warn }} }}\n",
        data_dir = place.data_dir(),
        file = place.file(),
    );
    let path = place.path.join("etl.yaml");
    std::fs::write(&path, &text)
        .map_err(|error| Failure::Other(format!("{} cannot be written: {error}", path.display())))?;
    let environment: Environment = [("DATABASE_URL".to_owned(), url.to_owned())].into_iter().collect();
    Ok(AppConfig::from_text(&path.display().to_string(), &text, &environment)?)
}
