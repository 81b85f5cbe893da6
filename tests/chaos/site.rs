//! What does a pipeline of the binary need? A directory with a config, a DuckDB file, and who reads it.

use std::path::PathBuf;
use std::time::Duration;

use harness::compare::Pair;
use harness::duckdb::Reader;
use harness::kill::Program;
use tokio_postgres::Client;

/// Says that tables are to be copied again where the source is another than it was.
pub(crate) const RESYNC_AFFECTED: &str = "--resync-affected";

/// A pipeline from one publication into one DuckDB file.
pub(crate) struct Site {
    pub(crate) program: Program,
    until_caught_up: Program,
    pub(crate) reader: Reader,
    pub(crate) slot: String,
    dir: tempfile::TempDir,
}

impl Site {
    /// Reads the publication `p` of the database; `None` counts as a skip.
    pub(crate) async fn new(url: &str) -> Option<Self> {
        Self::acknowledging(url, "destination").await
    }

    /// The same, where the source may forget what is there.
    pub(crate) async fn acknowledging(url: &str, ack: &str) -> Option<Self> {
        Self::configured(url, ack, "{}").await
    }

    /// The same, with these settings of the relay.
    pub(crate) async fn configured(url: &str, ack: &str, relay: &str) -> Option<Self> {
        Self::with_copy(url, ack, relay, "copy: { chunk_bytes: 1MiB }").await
    }

    /// The same, with these settings of copies.
    pub(crate) async fn with_copy(url: &str, ack: &str, relay: &str, copy: &str) -> Option<Self> {
        Self::into_destination(url, &format!("ack: {ack}\n  {copy}"), relay, |file| {
            format!("duckdb: {{ path: {file:?}, threads: 2 }}")
        })
        .await
    }

    /// The same, into another destination than a DuckDB file.
    pub(crate) async fn into_destination(
        url: &str,
        pipeline: &str,
        relay: &str,
        destination: impl FnOnce(PathBuf) -> String,
    ) -> Option<Self> {
        let reader = Reader::find_or_skip().await?;
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("etl.yaml");
        // Slots are the server's, and sites may have one in common.
        let id = format!("chaos_{:08x}", rand::random::<u32>());
        let text = format!(
            "pipeline:
  id: {id}
  data_dir: {data_dir:?}
  batch: {{ max_age: 100ms }}
  {pipeline}
relay: {relay}
source:
  postgres:
    url: {url:?}
    tls: {{ mode: disable }}
    publication: p
destination:
  {destination}
",
            data_dir = dir.path().join("data"),
            destination = destination(dir.path().join("file/copy.duckdb")),
        );
        std::fs::create_dir(dir.path().join("file")).unwrap();
        std::fs::write(&config, text).unwrap();
        let config = config.display().to_string();
        let program = Program::etl(["-c", &config, "run"]).await;
        let until_caught_up = Program::etl(["-c", &config, "run", "--until-caught-up"]).await;
        Some(Self { program, until_caught_up, reader, slot: format!("etl_{id}"), dir })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.file_dir().join("copy.duckdb")
    }

    /// Where the DuckDB file is, and nothing else.
    pub(crate) fn file_dir(&self) -> PathBuf {
        self.dir.path().join("file")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn config(&self) -> String {
        self.beside("etl.yaml").display().to_string()
    }

    /// Keeps a copy of the directory beside the program's output, where somebody wants to look into it (`ETL_KEEP`).
    fn keep(&self) {
        if let Some(to) = std::env::var_os("ETL_KEEP") {
            let copied = std::process::Command::new("cp").arg("-r").arg(self.dir.path()).arg(to).status();
            println!("kept: {copied:?}");
        }
    }

    /// A file for whatever is said to the program.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs until everything is there, and ends.
    pub(crate) async fn catch_up(&self) {
        let mut running = self.until_caught_up.start().unwrap();
        let ended = running.end(Duration::from_secs(300)).await.unwrap();
        assert!(ended.success(), "{ended}\n{}", running.output());
    }

    /// Runs until everything is there, whatever has to be copied again for it.
    pub(crate) async fn resync_affected(&self) {
        let mut running = self.until_caught_up.clone().argument(RESYNC_AFFECTED).start().unwrap();
        let ended = running.end(Duration::from_secs(300)).await.unwrap();
        assert!(ended.success(), "{ended}\n{}", running.output());
    }

    /// Runs until everything is there, and ends; then compares every table, and counts the slots. Says how many rows
    /// there are.
    pub(crate) async fn assert_equal(&self, client: &Client, tables: &[&str]) -> u64 {
        self.catch_up().await;
        let mut all = 0;
        for table in tables {
            let pair = Pair::new(format!("public.{table}"), format!("public.{table}"));
            let compared = pair.compare(client, &self.reader, &self.file()).await;
            let rows = compared.unwrap_or_else(|different| {
                self.keep();
                panic!("{table}: {different}")
            });
            println!("{table}: {rows} rows on both sides");
            all += rows;
        }
        assert_eq!(slots(client).await, 1, "one slot, whatever happened");
        all
    }
}

/// How many slots the database has.
pub(crate) async fn slots(client: &Client) -> i64 {
    let query = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    client.query_one(query, &[]).await.unwrap().get(0)
}
