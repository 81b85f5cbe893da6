//! Does the seeded workload end equal in ClickHouse, however often the program is killed while it copies and follows?

use harness::clickhouse::{clickhouse, equal};
use harness::postgres::client;
use harness::workload::TABLES;

use crate::faults::kill_until;
use crate::site::{Site, slots};
use crate::workload::{server, workload};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_ends_equal_in_clickhouse_while_etl_is_killed() {
    let Some(source) = server(&workload(61)).await else { return };
    let Some(place) = clickhouse().await else { return };
    let destination = |_| format!("clickhouse: {{ url: {:?}, database_prefix: {:?} }}", place.url(), place.prefix());
    let Some(site) = Site::into_destination(&source.url(), "copy: { chunk_bytes: 256KiB }", "{}", destination).await
    else {
        return;
    };
    let seed = harness::seed::seed(61);
    kill_until(&site.program, seed, async { workload(61).run(&source.url()).await.unwrap() }).await;
    site.catch_up().await;
    let source = client(&source.url()).await;
    for table in TABLES {
        let rows = equal(&source, &place, table).await.unwrap_or_else(|different| panic!("{different}"));
        println!("{table}: {rows} rows on both sides");
    }
    assert_eq!(slots(&source).await, 1, "one slot, whatever happened");
}
