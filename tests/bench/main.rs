//! How far from the physical limit are the first copy (W1) and the drain of a backlog (W3), both with `null`?
//!
//! Limit and `etl` run one after the other on the same server, so that only the ratio counts. `ETL_BENCH_SCALE` (pgbench
//! scale, default 20), `ETL_BENCH_TRANSACTIONS` (default 100000) and `ETL_BENCH_RUNS` (default 3, medians) set the size.

mod limit;
mod measured;

use std::{env, path::Path, str::FromStr};

use etl_local_postgres::LocalPostgres;
use harness::kill::Program;
use measured::Measured;

/// Connections that the copy and its limit use.
const CONNECTIONS: u32 = 2;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let scale: u32 = setting("ETL_BENCH_SCALE", 20);
    let transactions: u32 = setting("ETL_BENCH_TRANSACTIONS", 100_000);
    let runs: u32 = setting("ETL_BENCH_RUNS", 3);
    let server = LocalPostgres::builder()
        .setting("shared_buffers", "1GB")
        .setting("max_wal_size", "16GB")
        .setting("autovacuum", "off")
        .notice(|text| eprintln!("{text}"))
        .start()
        .await?;
    pgbench(&server, &["-i", "-q", "-s", &scale.to_string()])?;
    server.psql("create publication bench_pub for all tables").await?;
    let etl = Program::etl(["run", "--until-caught-up"]).await;
    let dir = tempfile::tempdir()?;

    println!("| workload | limit s | etl s | ratio | etl CPU s | etl peak MiB |\n|---|--:|--:|--:|--:|--:|");
    let (mut limits, mut ours) = (Vec::new(), Vec::new());
    for run in 0..runs {
        server.psql("select pg_drop_replication_slot(slot_name) from pg_replication_slots").await?;
        limits.push(limit::copy(&server, CONNECTIONS).await?);
        ours.push(measured::run(etl.path(), &config(dir.path(), &server, run)?)?);
    }
    report(&format!("W1 copy, pgbench -s {scale}"), limits, ours);

    let rows = (transactions / 4).to_string();
    pgbench(&server, &["-N", "-n", "-c", "4", "-t", &rows])?;
    let last = server.psql("select pg_current_wal_flush_lsn()").await?;
    let slot = format!("etl_bench{}", runs - 1);
    let mut limits = Vec::new();
    for _ in 0..runs {
        limits.push(limit::drain(&server, &slot, &last).await?);
    }
    // The backlog is there once: it is gone when it has been confirmed.
    let ours = vec![measured::run(etl.path(), &config(dir.path(), &server, runs - 1)?)?];
    report(&format!("W3 drain, {transactions} transactions"), limits, ours);
    Ok(())
}

fn setting<T: FromStr>(name: &str, usual: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn pgbench(server: &LocalPostgres, arguments: &[&str]) -> Result<()> {
    let mut command = server.tool("pgbench").ok_or("pgbench is not on this machine")?;
    let output = command.args(arguments).output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

/// Each run has a pipeline, a slot and a data directory of its own.
fn config(dir: &Path, server: &LocalPostgres, run: u32) -> Result<std::path::PathBuf> {
    let path = dir.join(format!("{run}.yaml"));
    let text = format!(
        "pipeline:\n  id: bench{run}\n  data_dir: {}\n  batch: {{ max_age: 100ms }}\n  \
         copy: {{ tables_in_parallel: 1, connections_per_table: {CONNECTIONS} }}\n\
         source:\n  postgres:\n    url: {}\n    tls: {{ mode: disable }}\n    publication: bench_pub\n\
         destination:\n  \"null\": {{}}\n",
        dir.join(format!("data{run}")).display(),
        server.url()
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

fn report(workload: &str, mut limits: Vec<f64>, mut ours: Vec<Measured>) {
    limits.sort_by(f64::total_cmp);
    ours.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    let (limit, etl) = (limits[limits.len() / 2], &ours[ours.len() / 2]);
    let (wall, cpu, peak) = (etl.wall, etl.cpu, etl.peak_mib);
    println!("| {workload} | {limit:.2} | {wall:.2} | {:.2} | {cpu:.2} | {peak:.0} |", wall / limit);
}
