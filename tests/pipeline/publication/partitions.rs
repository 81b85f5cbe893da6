//! Are partitions followed that come, go and are emptied without a word in the stream?

use etl::source::OnPartitionGone;
use harness::postgres::database;

use super::{When, equal, find, generation, looked, meanwhile};
use crate::running::{World, caught_up, stop};

const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE t0 PARTITION OF t FOR VALUES FROM (0) TO (100);
CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (100) TO (200);
CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (200) TO (300) PARTITION BY RANGE (id);
CREATE TABLE t20 PARTITION OF t2 FOR VALUES FROM (200) TO (250);
INSERT INTO t SELECT g, 'old' FROM generate_series(0, 249) g;
CREATE TABLE t3 (id int PRIMARY KEY, v text); INSERT INTO t3 SELECT g, 'loaded' FROM generate_series(300, 399) g;
CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1);
CREATE PUBLICATION p FOR TABLE t, other WITH (publish_via_partition_root)";

/// Nothing of this is sent.
const SILENT: &[&str] = &[
    "ALTER TABLE t ATTACH PARTITION t3 FOR VALUES FROM (300) TO (400)",
    "ALTER TABLE t DETACH PARTITION t1",
    "DROP TABLE t1",
    "INSERT INTO t3 VALUES (999, 'apart'); DELETE FROM t3 WHERE id = 999; SELECT pg_sleep(0.3);
     ALTER TABLE t ATTACH PARTITION t3 FOR VALUES FROM (300) TO (400); UPDATE t SET v = 'in' WHERE id = 333",
    "ALTER TABLE t DETACH PARTITION t1; SELECT pg_sleep(1.5); UPDATE t1 SET v = 'apart'",
    "TRUNCATE t1",
    "TRUNCATE t1; INSERT INTO t VALUES (150, 'new')",
    "ALTER TABLE t2 DETACH PARTITION t20",
    "ALTER TABLE t DETACH PARTITION t1; UPDATE t1 SET v = 'apart'; DELETE FROM t1 WHERE id = 105;
     ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM (100) TO (200)",
    "CREATE TABLE t4 (LIKE t INCLUDING ALL); INSERT INTO t4 VALUES (401, 'loaded');
     ALTER TABLE t ATTACH PARTITION t4 FOR VALUES FROM (400) TO (500); INSERT INTO t VALUES (402, 'sent')",
    "ALTER TABLE t ADD COLUMN r float8 DEFAULT random()",
];

async fn followed(when: When) {
    for sql in SILENT {
        let Some(database) = database().await else { return };
        let client = database.client().await;
        let world = World::new(database.name(), &database.url());
        println!("{when:?}: {sql}");
        let running = meanwhile(&world, &database, TABLES, when, sql).await;
        equal(&world, &running, &client, &["t", "other"]).await;
        client.batch_execute("UPDATE t SET v = 'after' WHERE id % 2 = 0; INSERT INTO other VALUES (2)").await.unwrap();
        equal(&world, &running, &client, &["t", "other"]).await;
        assert_eq!(generation(&world, &client, "other").await, 1);
        stop(running).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_partitions_attached_detached_truncated_and_dropped_are_followed() {
    followed(When::Live).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_partitions_that_come_and_go_during_a_copy_are_followed() {
    followed(When::Copying).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_partitions_that_came_and_went_between_two_runs_are_followed() {
    followed(When::Down).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_a_new_partition_without_rows_copies_nothing() {
    for when in [When::Live, When::Down] {
        let Some(database) = database().await else { return };
        let client = database.client().await;
        let world = World::new(database.name(), &database.url());
        let sql = "CREATE TABLE t5 PARTITION OF t FOR VALUES FROM (500) TO (600)";
        let running = meanwhile(&world, &database, TABLES, when, sql).await;
        looked().await;
        client
            .batch_execute("INSERT INTO t VALUES (501, 'new'), (502, 'new'); DELETE FROM t WHERE id = 502")
            .await
            .unwrap();
        caught_up(&running).await;
        looked().await;
        world.assert_equal(&client, &["t", "other"]).await;
        assert_eq!(generation(&world, &client, "t").await, 1, "{when:?}");
        stop(running).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_partitions_that_are_published_themselves_come_and_go_as_tables() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = World::new(database.name(), &database.url());
    let tables = TABLES.replace(" WITH (publish_via_partition_root)", "");
    let sql = "ALTER TABLE t ATTACH PARTITION t3 FOR VALUES FROM (300) TO (400)";
    let running = meanwhile(&world, &database, &tables, When::Live, sql).await;
    equal(&world, &running, &client, &["t0", "t1", "t20", "t3", "other"]).await;
    client
        .batch_execute("ALTER TABLE t DETACH PARTITION t1; TRUNCATE t0; INSERT INTO t VALUES (10, 'x')")
        .await
        .unwrap();
    super::until("gone", &running, async || super::find(&running, "t1").is_none()).await;
    equal(&world, &running, &client, &["t0", "t20", "t3", "other"]).await;
    for table in ["t0", "t20", "t3"] {
        assert_eq!(generation(&world, &client, table).await, 1, "{table}");
    }
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_rows_of_partitions_that_are_gone_stay_where_that_is_wanted() {
    for when in [When::Live, When::Down] {
        for sql in ["DROP TABLE t1", "ALTER TABLE t DETACH PARTITION t1", "TRUNCATE t1"] {
            let Some(database) = database().await else { return };
            let client = database.client().await;
            let mut world = World::new(database.name(), &database.url());
            world.on_partition_gone = OnPartitionGone::Keep;
            // What maintains partitions makes the next one at the same time.
            let sql = format!("BEGIN; {sql}; CREATE TABLE t9 PARTITION OF t FOR VALUES FROM (900) TO (1000); COMMIT");
            let running = meanwhile(&world, &database, TABLES, when, &sql).await;
            looked().await;
            client
                .batch_execute("UPDATE t SET v = 'after' WHERE id < 50; INSERT INTO t VALUES (901, 'new')")
                .await
                .unwrap();
            client
                .batch_execute("ALTER TABLE t RENAME COLUMN v TO w; UPDATE t SET w = 'w' WHERE id = 1")
                .await
                .unwrap();
            caught_up(&running).await;
            looked().await;
            caught_up(&running).await;
            let id = find(&running, "t").unwrap().id;
            let version: i32 =
                client.query_one("SELECT current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
            let kept = if version < 150_000 { 0 } else { 100 };
            let rows: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
            assert_eq!(world.memory.rows(id).unwrap().len() as i64, rows + kept, "{when:?} {sql}");
            if version >= 150_000 {
                assert_eq!(generation(&world, &client, "t").await, 1, "{when:?} {sql}");
            }
            stop(running).await;
        }
    }
}
