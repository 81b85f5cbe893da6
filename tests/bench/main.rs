//! How fast is it, against the limits of the same machine in the same run?
//!
//! `engine`: first copies and drains with `null`, in memory and through the relay's disk. W1 and W3: `pgbench -i` and 4
//! clients of `pgbench -N`. W2 and W4: sixteen columns of many types, and large transactions of inserts, updates and
//! deletes. `destinations`: the same into real ones, against the slower of source and destination. `latency`: commit to
//! durable. `bounds`: memory and growth. `ETL_BENCH_PARTS` names some of these; limit and `etl` run in turn on the same
//! server, so that only the ratio counts. `ETL_BENCH_SCALE` (of pgbench, default 20), `ETL_BENCH_TRANSACTIONS` (default
//! 100000), `ETL_BENCH_ROWS` (of W2, default 400000) and `ETL_BENCH_RUNS` (default 3, medians) set the size;
//! with `ETL_BENCH_WRITE=1` the figures go to `docs/performance.md`.

mod bounds;
mod busy;
mod destinations;
mod engine;
mod latency;
mod limit;
mod measured;
mod page;
mod recorded;
mod site;

use std::env;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use harness::kill::Program;

use self::engine::{HEAD, PGBENCH, WIDE};
use self::page::Page;
use self::site::{Bench, setting};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let parts = env::var("ETL_BENCH_PARTS").unwrap_or_else(|_| "engine,destinations,latency,bounds".to_owned());
    let wants = |part: &str| parts.split(',').any(|wanted| wanted.trim() == part);
    let scale: u32 = setting("ETL_BENCH_SCALE", 20);
    let transactions: u32 = setting("ETL_BENCH_TRANSACTIONS", 100_000);
    let rows: u32 = setting("ETL_BENCH_ROWS", 400_000);
    let server = LocalPostgres::builder()
        .setting("shared_buffers", "1GB")
        .setting("max_wal_size", "16GB")
        .setting("autovacuum", "off")
        .setting("max_replication_slots", "50")
        .notice(|text| eprintln!("{text}"))
        .start()
        .await?;
    let etl = Program::etl(["run", "--until-caught-up"]).await;
    let bench = Bench {
        server,
        etl,
        dir: tempfile::tempdir()?,
        runs: setting("ETL_BENCH_RUNS", 3),
        page: Mutex::new(Page::default()),
    };
    let version = bench.server.psql("show server_version").await?;
    bench.page().say(format!(
        "PostgreSQL {version}; medians of {} runs; {}.",
        bench.runs,
        size(scale, transactions, rows)
    ));

    bench.pgbench(&["-i", "-q", "-s", &scale.to_string()])?;
    bench.server.psql("create publication bench_pub for all tables").await?;
    if wants("engine") {
        bench.page().head(HEAD);
        bench.copy(&PGBENCH, &format!("W1 copy, pgbench -s {scale}")).await?;
        bench.pgbench(&["-N", "-n", "-c", "4", "-t", &(transactions / 4).to_string()])?;
        bench.drain(&PGBENCH, &format!("W3 drain, {transactions} transactions")).await?;
    }
    bench.server.psql("drop publication bench_pub; create publication bench_pub for table pgbench_accounts").await?;
    bench.script(include_str!("wide.sql"), rows).await?;
    if wants("engine") {
        bench.copy(&WIDE, &format!("W2 copy, {rows} rows of 16 columns")).await?;
        bench.script(include_str!("wide_backlog.sql"), rows).await?;
        bench.drain(&WIDE, &format!("W4 drain, {} changes in 6 transactions", rows / 100 * 135)).await?;
    }
    if wants("destinations") {
        bench.destinations(rows).await?;
    }
    if wants("latency") {
        bench.latency(Duration::from_secs(setting("ETL_BENCH_SECONDS", 20))).await?;
    }
    if wants("bounds") {
        bench.bounds(rows * 5).await?;
    }
    match env::var_os("ETL_BENCH_WRITE") {
        Some(_) => bench.page().write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")),
        None => Ok(()),
    }
}

/// How what was measured is measured again.
fn size(scale: u32, transactions: u32, rows: u32) -> String {
    format!("`ETL_BENCH_SCALE={scale} ETL_BENCH_TRANSACTIONS={transactions} ETL_BENCH_ROWS={rows} make bench`")
}
