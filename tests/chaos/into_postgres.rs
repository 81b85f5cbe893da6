//! Does the seeded workload end equal in another Postgres, whichever side is killed while it is copied and followed?

use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use harness::postgres::{client, dedicated};
use harness::workload::TABLES;
use tokio_postgres::Client;

use crate::faults::{kill_until, restart_until};
use crate::site::{Site, slots};
use crate::workload::{server, workload};

async fn site(source: &LocalPostgres, target: &LocalPostgres) -> Option<Site> {
    let destination = |_| format!("postgres: {{ url: {:?} }}", target.url());
    Site::into_destination(&source.url(), "copy: { chunk_bytes: 256KiB }", "{}", destination).await
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Catches up, then compares the texts of all rows.
async fn assert_equal(site: &Site, source: &LocalPostgres, target: &LocalPostgres) {
    site.catch_up().await;
    let (source, target) = (client(&source.url()).await, client(&target.url()).await);
    for table in TABLES {
        let columns = format!(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
              WHERE attrelid = 'public.{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
        );
        let columns = text(&source, &columns).await;
        let rows = format!(
            "SELECT count(*) || ' rows ' || coalesce(md5(string_agg(row, '' ORDER BY row COLLATE \"C\")), '')
               FROM (SELECT md5(ROW({columns})::text) AS row FROM public.{table}) rows"
        );
        let (sent, arrived) = (text(&source, &rows).await, text(&target, &rows).await);
        println!("{table}: {sent}");
        assert_eq!(arrived, sent, "{table}");
    }
    assert_eq!(slots(&source).await, 1, "one slot, whatever happened");
}

async fn servers(seed: u64) -> Option<(LocalPostgres, LocalPostgres)> {
    let source = server(&workload(seed)).await?;
    Some((source, dedicated(LocalPostgres::builder()).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_ends_equal_in_another_postgres_while_etl_is_killed() {
    let Some((source, target)) = servers(51).await else { return };
    let Some(site) = site(&source, &target).await else { return };
    let seed = harness::seed::seed(51);
    kill_until(&site.program, seed, async { workload(51).run(&source.url()).await.unwrap() }).await;
    assert_equal(&site, &source, &target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_ends_equal_in_another_postgres_while_that_crashes() {
    let Some((source, target)) = servers(52).await else { return };
    let Some(site) = site(&source, &target).await else { return };
    let seed = harness::seed::seed(52);
    let work = async { workload(52).run(&source.url()).await.unwrap() };
    Box::pin(restart_until(&site.program, &target, seed, work)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_equal(&site, &source, &target).await;
}
