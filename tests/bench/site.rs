//! What is measured, and against what? One server, the binary `etl`, and a directory with a config a run.

use std::env;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use harness::kill::Program;

use crate::Result;
use crate::measured::{self, Measured};
use crate::page::Page;

/// Connections that a copy and its limit use.
pub(crate) const CONNECTIONS: u32 = 2;

/// A server, and what reads it.
pub(crate) struct Bench {
    pub(crate) server: LocalPostgres,
    pub(crate) etl: Program,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) runs: u32,
    pub(crate) page: Mutex<Page>,
}

/// A pipeline that is to be measured.
#[derive(Debug, Clone)]
pub(crate) struct Site<'s> {
    /// Of the pipeline, and so of its slot.
    pub(crate) id: String,
    pub(crate) publication: &'s str,
    /// The section `destination`, on one line.
    pub(crate) destination: String,
    /// More of the section `pipeline`, a key a line, or nothing.
    pub(crate) pipeline: &'s str,
    /// The same of the section `source.postgres`.
    pub(crate) source: &'s str,
}

impl<'s> Site<'s> {
    /// A pipeline that decodes everything, and drops it.
    pub(crate) fn into_null(id: String, publication: &'s str) -> Self {
        Self { id, publication, destination: "\"null\": {}".to_owned(), pipeline: "", source: "" }
    }
}

impl Bench {
    /// What is printed and kept.
    pub(crate) fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One statement after the other, each a transaction.
    pub(crate) async fn script(&self, script: &str, rows: u32) -> Result<()> {
        for statement in script.replace("{rows}", &rows.to_string()).split(";\n") {
            self.server.psql(statement).await?;
        }
        Ok(())
    }

    pub(crate) fn pgbench(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.server.tool("pgbench").ok_or("pgbench is not on this machine")?;
        let output = command.args(arguments).output()?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
    }

    /// Each pipeline has a slot and a data directory of its own.
    pub(crate) fn text(&self, site: &Site<'_>) -> String {
        let Site { id, publication, destination, pipeline, source } = site;
        let data: &Path = &self.dir.path().join(format!("data-{id}"));
        let age = if pipeline.contains("batch:") { "" } else { "\n  batch: { max_age: 100ms }" };
        format!(
            "pipeline:\n  id: {id}\n  data_dir: {data:?}{age}\n  \
             copy: {{ tables_in_parallel: 1, connections_per_table: {CONNECTIONS} }}\n{pipeline}\
             source:\n  postgres:\n    url: {}\n    tls: {{ mode: disable }}\n    publication: {publication}\n{source}\
             destination:\n  {destination}\n",
            self.server.url()
        )
    }

    pub(crate) fn config(&self, site: &Site<'_>) -> Result<PathBuf> {
        let path = self.dir.path().join(format!("{}.yaml", site.id));
        std::fs::write(&path, self.text(site))?;
        Ok(path)
    }

    /// Runs until everything is there.
    pub(crate) fn measure(&self, site: &Site<'_>) -> Result<Measured> {
        measured::run(self.etl.path(), &self.config(site)?)
    }

    /// Drops the slot of a pipeline that has ended, once the server has noticed.
    pub(crate) async fn drop_slot(&self, id: &str) -> Result<()> {
        let is_used = format!("select active from pg_replication_slots where slot_name = 'etl_{id}'");
        while self.server.psql(&is_used).await? == "t" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.server.psql(&format!("select pg_drop_replication_slot('etl_{id}')")).await.map(drop).map_err(Into::into)
    }
}

/// A number from the environment.
pub(crate) fn setting<T: FromStr>(name: &str, usual: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The one in the middle.
pub(crate) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
