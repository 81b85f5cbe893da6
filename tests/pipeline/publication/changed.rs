//! Is a table copied again when what is published of it changes, or its rows, and nothing in the stream says so?

use harness::postgres::database;

use super::{ALWAYS, When, equal, find, generation, looked, meanwhile, until};
use crate::running::{World, caught_up, stop};
use crate::watched::Call;

const TABLES: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE TYPE pair AS (a int, b text);
CREATE TABLE t (id int PRIMARY KEY, v text, n int, m mood, p pair);
INSERT INTO t SELECT g, 'v' || g, g, (ARRAY['sad', 'ok', 'happy'])[g % 3 + 1]::mood, (g, 'b')::pair FROM generate_series(1, 300) g;
CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1);
CREATE PUBLICATION p FOR TABLE t, other";

/// Nothing of this is sent.
const SILENT: &[&str] = &[
    "ALTER TABLE t ADD COLUMN r float8 DEFAULT random()",
    "ALTER TABLE t ALTER COLUMN n TYPE bigint USING n * 10",
    "ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'",
    "ALTER TYPE pair ADD ATTRIBUTE c int",
    "ALTER PUBLICATION p SET (publish = 'insert'); UPDATE t SET v = 'unsent'; DELETE FROM t WHERE id = 3;
     ALTER PUBLICATION p SET (publish = 'insert, update, delete, truncate')",
    "ALTER PUBLICATION p DROP TABLE t; UPDATE t SET v = 'unsent'; ALTER PUBLICATION p ADD TABLE t",
];

async fn found(when: When) {
    for sql in SILENT {
        let Some(database) = database().await else { return };
        let client = database.client().await;
        let world = World::new(database.name(), &database.url());
        println!("{when:?}: {sql}");
        let running = meanwhile(&world, &database, TABLES, when, sql).await;
        equal(&world, &running, &client, &["t", "other"]).await;
        client.batch_execute("UPDATE t SET v = 'after' WHERE id % 2 = 0").await.unwrap();
        equal(&world, &running, &client, &["t"]).await;
        stop(running).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_what_is_not_sent_is_found_and_copied() {
    found(When::Live).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_what_is_not_sent_during_a_copy_is_found_and_copied() {
    found(When::Copying).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_what_was_not_sent_between_two_runs_is_found_and_copied() {
    found(When::Down).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_another_filter_or_column_list_copies_its_table_and_no_other() {
    for when in ALWAYS {
        let Some(database) = database().await else { return };
        let client = database.client().await;
        let version: i32 =
            client.query_one("SELECT current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
        if version < 150_000 {
            return;
        }
        let world = World::new(database.name(), &database.url());
        let tables = "CREATE TABLE t (id int PRIMARY KEY, v text, n int); CREATE TABLE other (id int PRIMARY KEY);
            INSERT INTO t SELECT g, 'v' || g, g FROM generate_series(1, 100) g; CREATE TABLE busy (id serial PRIMARY KEY, v int);
            CREATE PUBLICATION p FOR TABLE t WHERE (id > 50), other";
        let sql =
            "ALTER PUBLICATION p SET TABLE t (id, v) WHERE (id > 20), other, busy; UPDATE t SET n = -n WHERE id > 90";
        let running = meanwhile(&world, &database, tables, when, sql).await;
        client.batch_execute("CREATE VIEW seen AS SELECT id, v FROM t WHERE id > 20").await.unwrap();
        let id = find(&running, "t").unwrap().id;
        let rows = async || {
            let rows = client.query("SELECT id, v FROM seen", &[]).await.unwrap();
            let mut rows: Vec<_> = rows
                .iter()
                .map(|row| vec![Some(row.get::<_, i32>(0).to_string()), Some(row.get::<_, String>(1))])
                .collect();
            rows.sort();
            rows
        };
        until("the filter", &running, async || world.memory.rows(id) == Some(rows().await)).await;
        client.batch_execute("UPDATE t SET v = 'after' WHERE id % 2 = 0; DELETE FROM t WHERE id = 60").await.unwrap();
        caught_up(&running).await;
        assert_eq!(world.memory.rows(id).unwrap(), rows().await, "{when:?}");
        assert_eq!(generation(&world, &client, "other").await, 1, "{when:?}");
        stop(running).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_rewrite_is_told_as_stale_until_the_table_is_copied_again() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = World::new(database.name(), &database.url());
    let running = meanwhile(&world, &database, TABLES, When::Live, "SELECT 1").await;
    world.destination.hold(Call::CopyBegins);
    let before: String = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap().get(0);
    looked().await;
    client.batch_execute("ALTER TABLE t ADD COLUMN r float8 DEFAULT random()").await.unwrap();
    until("stale", &running, async || find(&running, "t").unwrap().stale_since.is_some()).await;
    let since = find(&running, "t").unwrap().stale_since.unwrap();
    let after: String = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap().get(0);
    assert!(before.parse::<etl::Lsn>().unwrap() <= since && since < after.parse().unwrap(), "{before} {since} {after}");
    assert_eq!(find(&running, "other").unwrap().stale_since, None);
    world.destination.release();
    equal(&world, &running, &client, &["t", "other"]).await;
    until("fresh", &running, async || find(&running, "t").unwrap().stale_since.is_none()).await;
    assert_eq!(generation(&world, &client, "t").await, 2);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_or_changes_no_row_needs_no_copy() {
    for when in [When::Live, When::Down] {
        let Some(database) = database().await else { return };
        let client = database.client().await;
        let world = World::new(database.name(), &database.url());
        let running = meanwhile(&world, &database, TABLES, when, "ALTER TYPE mood ADD VALUE 'glad'").await;
        // VACUUM is a transaction of its own.
        client.batch_execute("VACUUM FULL t").await.unwrap();
        client.batch_execute("CLUSTER other USING other_pkey").await.unwrap();
        client.batch_execute("CREATE TABLE more (id int); ALTER PUBLICATION p ADD TABLE more").await.unwrap();
        client
            .batch_execute("UPDATE t SET m = 'glad' WHERE id = 1; TRUNCATE other; INSERT INTO other VALUES (9)")
            .await
            .unwrap();
        looked().await;
        client
            .batch_execute("ALTER TABLE t ALTER v SET STATISTICS 10; ANALYZE t; CREATE INDEX ON t (v)")
            .await
            .unwrap();
        looked().await;
        equal(&world, &running, &client, &["t", "other", "more"]).await;
        for table in ["t", "other"] {
            assert_eq!(generation(&world, &client, table).await, 1, "{when:?} {table}");
        }
        stop(running).await;
    }
}
