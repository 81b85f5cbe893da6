//! How fast can the server give, to a client that throws everything away?

use std::time::Instant;

use etl_local_postgres::LocalPostgres;
use futures_util::{StreamExt, pin_mut};
use tokio::task::JoinSet;

use crate::Result;

/// Seconds of `COPY ... (FORMAT binary)` of a table by ctid ranges, one a connection.
pub(crate) async fn copy(server: &LocalPostgres, table: &str, connections: u32) -> Result<f64> {
    let blocks: u64 = server.psql(&format!("select pg_relation_size('{table}') / 8192")).await?.parse()?;
    let part = blocks / u64::from(connections) + 1;
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(harness::postgres::client(&server.url()).await);
    }
    let began = Instant::now();
    let mut reading = JoinSet::new();
    for (client, at) in clients.into_iter().zip(0_u64..) {
        let (from, to) = (at * part, (at + 1) * part);
        let sql = format!(
            "copy (select * from {table} where ctid >= '({from},0)' and ctid < '({to},0)') to stdout (format binary)"
        );
        reading.spawn(async move {
            let chunks = client.copy_out(&sql).await?;
            pin_mut!(chunks);
            while let Some(chunk) = chunks.next().await {
                std::hint::black_box(chunk?);
            }
            Ok::<_, tokio_postgres::Error>(())
        });
    }
    while let Some(read) = reading.join_next().await {
        read??;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Seconds of `pg_recvlogical` for everything that a copy of the slot holds.
pub(crate) async fn drain(
    server: &LocalPostgres,
    slot: &str,
    last: &str,
    publication: &str,
    binary: bool,
) -> Result<f64> {
    server.psql(&format!("select pg_copy_logical_replication_slot('{slot}', 'bench_limit')")).await?;
    let mut command = server.tool("pg_recvlogical").ok_or("pg_recvlogical is not on this machine")?;
    // The way that `etl` takes, too.
    command.env("PGHOST", server.host());
    command.args(["-d", "postgres", "--start", "--slot", "bench_limit", "--no-loop", "-f", "/dev/null"]);
    command.args(["--endpos", last, "-o", "proto_version=1", "-o", &format!("publication_names={publication}")]);
    if binary {
        command.args(["-o", "binary=true"]);
    }
    let began = Instant::now();
    let output = command.output()?;
    let took = began.elapsed().as_secs_f64();
    server.psql("select pg_drop_replication_slot('bench_limit')").await?;
    if output.status.success() { Ok(took) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}
