//! Is the workload what it says: the same for the same seed, and of every kind?

use super::*;
use crate::postgres::{client, database};

/// Counts and checksums of every table, whatever the order of its rows.
async fn fingerprint(client: &Client) -> Vec<(String, i64, Option<String>)> {
    let mut all = Vec::new();
    for table in TABLES {
        let sql = format!(
            "select count(*), md5(string_agg(md5(t::text), '' order by md5(t::text) collate \"C\")) from {table} t"
        );
        let row = client.query_one(&sql, &[]).await.expect("a fingerprint");
        all.push(((*table).to_owned(), row.get(0), row.get(1)));
    }
    all
}

async fn end_of(workload: &Workload) -> Option<(Summary, Vec<(String, i64, Option<String>)>)> {
    let database = database().await?;
    let client = database.client().await;
    workload.create(&client).await.expect("tables");
    let summary = workload.run(&database.url()).await.expect("a run");
    Some((summary, fingerprint(&client).await))
}

#[tokio::test]
async fn the_same_seed_ends_in_the_same_tables() {
    let workload = Workload::new(7).connections(3).preloaded(300).rounds(6, 25);
    let Some(first) = end_of(&workload).await else { return };
    let Some(second) = end_of(&workload).await else { return };
    assert_eq!(first, second);
    assert_eq!((first.0.transactions, first.0.unknown), (3 * 6 * 25, 0));
    assert!(first.0.truncates > 0 && first.1.iter().all(|(_, count, _)| *count > 0), "{first:?}");
    let Some(other) = end_of(&Workload::new(8).connections(3).preloaded(300).rounds(6, 25)).await else { return };
    assert_ne!(first.1, other.1);
}

#[tokio::test]
async fn alterations_are_of_every_kind_and_end_the_same() {
    let workload = Workload::new(5).connections(2).preloaded(100).rounds(60, 2).altering(0.9);
    let Some(first) = end_of(&workload).await else { return };
    let Some(second) = end_of(&workload).await else { return };
    assert_eq!(first, second);
    assert!(first.0.alterations > 30 && first.0.unknown == 0, "{first:?}");
    let (mut rng, mut alterations) = (numbers(5, 0), Alterations::default());
    let all: Vec<String> = (0..100).map(|_| alterations.transaction(&mut rng)).collect();
    for kind in ["add column", "random()", "drop column", "rename x", "type bigint", "execute $q$update"] {
        assert!(all.iter().any(|sql| sql.contains(kind)), "no `{kind}`");
    }
}

#[test]
fn transactions_are_of_every_kind() {
    let mut lane = Lane::new(1, 0, 1, 100);
    let all: Vec<String> = (0..400).map(|_| lane.transaction()).collect();
    for kind in
        ["insert into w_toast", "update w_full set id", "update w_toast set other", "rollback to s0", "rollback;"]
    {
        assert!(all.iter().any(|sql| sql.contains(kind)), "no `{kind}`");
    }
    let steps: Vec<usize> = all.iter().map(|sql| sql.matches(";\n").count()).collect();
    assert!(steps.iter().any(|steps| *steps > 100) && steps.iter().any(|steps| *steps < 4));
}

#[tokio::test]
async fn a_run_of_limited_time_ends_in_time() {
    let Some(database) = database().await else { return };
    let workload = Workload::new(3).lasting(Duration::from_millis(700));
    workload.create(&client(&database.url()).await).await.expect("tables");
    let began = Instant::now();
    let summary = workload.run(&database.url()).await.expect("a run");
    assert!(began.elapsed() < Duration::from_secs(60) && summary.transactions > 0, "{summary:?}");
}

#[tokio::test]
async fn a_crash_of_the_server_does_not_end_the_workload() {
    let builder = etl_local_postgres::LocalPostgres::builder();
    let Some(server) = crate::postgres::dedicated(builder).await else { return };
    let workload = Workload::new(4).lasting(Duration::from_secs(4));
    workload.create(&client(&server.url()).await).await.expect("tables");
    let url = server.url();
    // One crash may come late on a busy machine.
    let crashes = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            server.restart_immediate().await.expect("a restart");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let summary = tokio::select! {
        summary = workload.run(&url) => summary.expect("a run that goes on"),
        never = crashes => never,
    };
    assert!(summary.unknown > 0 && summary.transactions > 0, "{summary:?}");
}
