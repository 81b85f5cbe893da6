//! How far from the physical limit are first copies and the drains of backlogs, with `null`?
//!
//! W1 and W3: `pgbench -i` and 4 clients of `pgbench -N`. W2 and W4: sixteen columns of many types, and large
//! transactions of inserts, updates and deletes. Limit and `etl` run in turn on the same server, so that only the ratio
//! counts. `ETL_BENCH_SCALE` (of pgbench, default 20), `ETL_BENCH_TRANSACTIONS` (default 100000), `ETL_BENCH_ROWS` (of
//! W2, default 400000) and `ETL_BENCH_RUNS` (default 3, medians) set the size.

mod limit;
mod measured;

use std::path::{Path, PathBuf};
use std::{env, str::FromStr};

use etl_local_postgres::LocalPostgres;
use harness::kill::Program;
use measured::Measured;

/// Connections that the copy and its limit use.
const CONNECTIONS: u32 = 2;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A table that is copied, and then the backlog of its publication.
struct Workload {
    id: &'static str,
    table: &'static str,
    publication: &'static str,
    /// Whether the limit of the drain is read in binary, as `etl` reads it.
    binary: bool,
}

const PGBENCH: Workload = Workload { id: "narrow", table: "pgbench_accounts", publication: "bench_pub", binary: false };
const WIDE: Workload = Workload { id: "wide", table: "wide", publication: "wide_pub", binary: true };

struct Bench {
    server: LocalPostgres,
    etl: Program,
    dir: tempfile::TempDir,
    runs: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let scale: u32 = setting("ETL_BENCH_SCALE", 20);
    let transactions: u32 = setting("ETL_BENCH_TRANSACTIONS", 100_000);
    let rows: u32 = setting("ETL_BENCH_ROWS", 400_000);
    let server = LocalPostgres::builder()
        .setting("shared_buffers", "1GB")
        .setting("max_wal_size", "16GB")
        .setting("autovacuum", "off")
        .notice(|text| eprintln!("{text}"))
        .start()
        .await?;
    let etl = Program::etl(["run", "--until-caught-up"]).await;
    let bench = Bench { server, etl, dir: tempfile::tempdir()?, runs: setting("ETL_BENCH_RUNS", 3) };
    let version = bench.server.psql("show server_version").await?;
    println!("PostgreSQL {version}; medians of {} runs\n", bench.runs);
    println!("| workload | limit s | etl s | ratio | etl CPU s | etl peak MiB |\n|---|--:|--:|--:|--:|--:|");

    pgbench(&bench.server, &["-i", "-q", "-s", &scale.to_string()])?;
    bench.server.psql("create publication bench_pub for all tables").await?;
    bench.copy(&PGBENCH, &format!("W1 copy, pgbench -s {scale}")).await?;
    pgbench(&bench.server, &["-N", "-n", "-c", "4", "-t", &(transactions / 4).to_string()])?;
    bench.drain(&PGBENCH, &format!("W3 drain, {transactions} transactions")).await?;

    bench.server.psql("drop publication bench_pub").await?;
    bench.script(include_str!("wide.sql"), rows).await?;
    bench.copy(&WIDE, &format!("W2 copy, {rows} rows of 16 columns")).await?;
    bench.script(include_str!("wide_backlog.sql"), rows).await?;
    bench.drain(&WIDE, &format!("W4 drain, {} changes in 6 transactions", rows / 100 * 135)).await
}

impl Bench {
    /// One statement after the other, each a transaction.
    async fn script(&self, script: &str, rows: u32) -> Result<()> {
        for statement in script.replace("{rows}", &rows.to_string()).split(";\n") {
            self.server.psql(statement).await?;
        }
        Ok(())
    }

    async fn copy(&self, workload: &Workload, label: &str) -> Result<()> {
        let (mut limits, mut ours) = (Vec::new(), Vec::new());
        for run in 0..self.runs {
            limits.push(limit::copy(&self.server, workload.table, CONNECTIONS).await?);
            ours.push(measured::run(self.etl.path(), &self.config(workload, run)?)?);
        }
        report(label, limits, ours);
        Ok(())
    }

    /// Each pipeline that has copied drains the same backlog once; its slot goes with it.
    async fn drain(&self, workload: &Workload, label: &str) -> Result<()> {
        let last = self.server.psql("select pg_current_wal_flush_lsn()").await?;
        let (mut limits, mut ours) = (Vec::new(), Vec::new());
        for run in 0..self.runs {
            let slot = format!("etl_{}{run}", workload.id);
            limits.push(limit::drain(&self.server, &slot, &last, workload.publication, workload.binary).await?);
            ours.push(measured::run(self.etl.path(), &self.config(workload, run)?)?);
            self.server.psql(&format!("select pg_drop_replication_slot('{slot}')")).await?;
        }
        report(label, limits, ours);
        Ok(())
    }

    /// Each run has a pipeline, a slot and a data directory of its own.
    fn config(&self, workload: &Workload, run: u32) -> Result<PathBuf> {
        let (id, publication) = (format!("{}{run}", workload.id), workload.publication);
        let path = self.dir.path().join(format!("{id}.yaml"));
        let data: &Path = &self.dir.path().join(format!("data-{id}"));
        let text = format!(
            "pipeline:\n  id: {id}\n  data_dir: {data:?}\n  batch: {{ max_age: 100ms }}\n  \
             copy: {{ tables_in_parallel: 1, connections_per_table: {CONNECTIONS} }}\n\
             source:\n  postgres:\n    url: {}\n    tls: {{ mode: disable }}\n    publication: {publication}\n\
             destination:\n  \"null\": {{}}\n",
            self.server.url()
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

fn setting<T: FromStr>(name: &str, usual: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn pgbench(server: &LocalPostgres, arguments: &[&str]) -> Result<()> {
    let mut command = server.tool("pgbench").ok_or("pgbench is not on this machine")?;
    let output = command.args(arguments).output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

fn report(workload: &str, mut limits: Vec<f64>, mut ours: Vec<Measured>) {
    limits.sort_by(f64::total_cmp);
    ours.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    let (limit, etl) = (limits[limits.len() / 2], &ours[ours.len() / 2]);
    let (wall, cpu, peak) = (etl.wall, etl.cpu, etl.peak_mib);
    println!("| {workload} | {limit:.2} | {wall:.2} | {:.2} | {cpu:.2} | {peak:.0} |", wall / limit);
}
