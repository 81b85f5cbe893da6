//! Can the source be stopped while changes of it are not yet safe?

use std::time::{Duration, Instant};

use etl_local_postgres::{LocalPostgres, Shutdown};
use harness::postgres::dedicated;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

/// A server that walsenders hold up is not stopped before this.
const SECONDS: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r16_a_fast_shutdown_ends_while_the_destination_hangs() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    server.psql("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let world = World::new("r16", &server.url());
    let running = world.start().await;
    caught_up(&running).await;
    world.destination.hold(Call::Batch);
    server.psql("INSERT INTO t SELECT generate_series(1, 10)").await.unwrap();
    world.destination.is_held(Call::Batch).await;
    let began = Instant::now();
    server.stop(Shutdown::Fast).await.unwrap();
    assert!(began.elapsed() < SECONDS, "{:?}", began.elapsed());
    server.start().await.unwrap();
    server.psql("INSERT INTO t VALUES (11)").await.unwrap();
    world.destination.release();
    caught_up(&running).await;
    world.assert_equal(&server.connect("postgres").await.unwrap(), &["t"]).await;
    stop(running).await;
}
