//! Do the tables of pgbench end equal in DuckDB, when they are written while they are copied?

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use etl_local_postgres::LocalPostgres;
use harness::postgres::{client, dedicated};
use harness::proxy::Proxy;
use harness::skip::skip;

use crate::faults::{cut_until, kill_until, restart_until};
use crate::site::Site;

const TABLES: &[&str] = &["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];

/// The scale and the seconds: small in `make test`, those of a real trial in `make soak`.
fn size() -> (&'static str, Duration) {
    match std::env::var_os("ETL_SOAK") {
        Some(_) => ("20", Duration::from_secs(60)),
        None => ("1", Duration::from_secs(6)),
    }
}

/// A server with the tables of pgbench; `None` counts as a skip.
async fn server() -> Option<LocalPostgres> {
    let server = dedicated(LocalPostgres::builder()).await?;
    let (scale, _) = size();
    if !pgbench(&server, &["-i", "-q", "-s", scale]).await {
        skip("there is no pgbench here");
        return None;
    }
    let client = client(&server.url()).await;
    client.batch_execute(&format!("CREATE PUBLICATION p FOR TABLE {}", TABLES.join(", "))).await.unwrap();
    Some(server)
}

/// Whether it ran to its end.
async fn pgbench(server: &LocalPostgres, arguments: &[&str]) -> bool {
    let Some(tool) = server.tool("pgbench") else { return false };
    let mut command = tokio::process::Command::from(tool);
    command.args(arguments).arg(server.url()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.status().await.is_ok_and(|status| status.success())
}

/// Writes for as long as it should; begins again when the server takes its connections away.
async fn write(server: &LocalPostgres) {
    let (_, lasts) = size();
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        let left = (until - Instant::now()).as_secs().max(1).to_string();
        if !pgbench(server, &["-n", "-c", "4", "-T", &left]).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbench_ends_equal_while_etl_is_killed() {
    let Some(server) = server().await else { return };
    let Some(site) = Site::new(&server.url()).await else { return };
    kill_until(&site.program, harness::seed::seed(21), write(&server)).await;
    site.assert_equal(&client(&server.url()).await, TABLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbench_ends_equal_while_the_server_crashes() {
    let Some(server) = server().await else { return };
    let Some(site) = Site::new(&server.url()).await else { return };
    restart_until(&site.program, &server, harness::seed::seed(22), write(&server)).await;
    site.assert_equal(&client(&server.url()).await, TABLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbench_ends_equal_while_connections_are_cut() {
    let Some(server) = server().await else { return };
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
    let proxy = Proxy::start(target).await.unwrap();
    let Some(site) = Site::new(&proxy.url(&server.url())).await else { return };
    cut_until(&site.program, proxy.control(), harness::seed::seed(23), write(&server)).await;
    site.assert_equal(&client(&server.url()).await, TABLES).await;
}
