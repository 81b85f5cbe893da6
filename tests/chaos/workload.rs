//! Does the seeded workload end equal in DuckDB, whatever is killed while it is copied and followed?

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use harness::postgres::{client, dedicated};
use harness::proxy::Proxy;
use harness::workload::{TABLES, Workload};

use crate::faults::{cut_until, kill_until, restart_until};
use crate::site::Site;

/// How long the workload goes on: seconds in `make test`, minutes in `make soak`.
fn lasts() -> Duration {
    Duration::from_secs(if std::env::var_os("ETL_SOAK").is_some() { 120 } else { 8 })
}

pub(crate) fn workload(seed: u64) -> Workload {
    Workload::new(harness::seed::seed(seed)).connections(3).preloaded(3000).lasting(lasts())
}

/// A server of one's own, with the tables of the workload published.
pub(crate) async fn server(workload: &Workload) -> Option<LocalPostgres> {
    let server = dedicated(LocalPostgres::builder()).await?;
    let client = client(&server.url()).await;
    workload.create(&client).await.unwrap();
    client.batch_execute(&format!("CREATE PUBLICATION p FOR TABLE {}", TABLES.join(", "))).await.unwrap();
    Some(server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_ends_equal_while_etl_is_killed() {
    let workload = workload(11);
    let Some(server) = server(&workload).await else { return };
    let Some(site) = Site::new(&server.url()).await else { return };
    let seed = harness::seed::seed(11);
    kill_until(&site.program, seed, async { workload.run(&server.url()).await.unwrap() }).await;
    site.assert_equal(&client(&server.url()).await, TABLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_ends_equal_while_etl_is_killed_that_acknowledges_what_is_in_the_relay() {
    let workload = workload(14);
    let Some(server) = server(&workload).await else { return };
    let Some(site) = Site::acknowledging(&server.url(), "relay").await else { return };
    let seed = harness::seed::seed(14);
    kill_until(&site.program, seed, async { workload.run(&server.url()).await.unwrap() }).await;
    site.assert_equal(&client(&server.url()).await, TABLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_ends_equal_while_the_server_crashes() {
    let workload = workload(12);
    let Some(server) = server(&workload).await else { return };
    let Some(site) = Site::new(&server.url()).await else { return };
    let seed = harness::seed::seed(12);
    let work = async { workload.run(&server.url()).await.unwrap() };
    Box::pin(restart_until(&site.program, &server, seed, work)).await;
    site.assert_equal(&client(&server.url()).await, TABLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_ends_equal_while_connections_are_cut() {
    let workload = workload(13);
    let Some(server) = server(&workload).await else { return };
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
    let proxy = Proxy::start(target).await.unwrap();
    let Some(site) = Site::new(&proxy.url(&server.url())).await else { return };
    let seed = harness::seed::seed(13);
    let work = async { workload.run(&server.url()).await.unwrap() };
    cut_until(&site.program, proxy.control(), seed, work).await;
    site.assert_equal(&client(&server.url()).await, TABLES).await;
}
