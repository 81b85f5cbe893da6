//! Does what a publication says about rows, columns, children and partitions hold in the copy as in the stream?

use etl::destination::TextRow;
use etl::schema::TableId;
use etl::source::{SourceConfig, check};
use harness::postgres::database;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::running::{World, caught_up, stop};

/// The rows of a query, and those that arrived of a table.
pub(crate) async fn assert_rows(world: &World, client: &Client, table: &str, query: &str) {
    let id = client.query_one("SELECT $1::text::regclass::oid", &[&table]).await.unwrap().get(0);
    let found = world.memory.rows(TableId(id)).unwrap_or_else(|| panic!("{table} never arrived"));
    let mut expected: Vec<TextRow> = Vec::new();
    for message in client.simple_query(query).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            expected.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
        }
    }
    expected.sort();
    assert_eq!(found, expected, "{table}");
}

pub(crate) async fn version(client: &Client) -> i32 {
    let version: String = client.query_one("SHOW server_version_num", &[]).await.unwrap().get(0);
    version.parse().unwrap()
}

/// A table and its children are tables of their own, in the publication as in the destination.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_by_inheritance_are_tables_of_their_own() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let tables = "CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child (PRIMARY KEY (id), more int) INHERITS (parent);
        INSERT INTO parent SELECT g, 'p' FROM generate_series(1, 3000) g;
        INSERT INTO child SELECT g, 'c', g FROM generate_series(1, 3000) g; CREATE PUBLICATION p FOR TABLE parent";
    client.batch_execute(tables).await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    // Without ONLY both tables are written.
    let write = "UPDATE parent SET v = 'both' WHERE id < 10; DELETE FROM ONLY parent WHERE id = 20; DELETE FROM child WHERE id = 21;
        INSERT INTO child VALUES (5000, 'new', 1); TRUNCATE ONLY parent; INSERT INTO parent VALUES (1, 'again')";
    client.batch_execute(write).await.unwrap();
    caught_up(&running).await;
    stop(running).await;
    assert_rows(&world, &client, "parent", "SELECT * FROM ONLY parent").await;
    assert_rows(&world, &client, "child", "SELECT * FROM child").await;
}

/// An update that takes a row out of the filter deletes it, one that brings it in inserts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_and_go_as_the_filter_of_the_publication_says() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    if version(&client).await < 150_000 {
        return harness::skip::inapplicable("row filters begin with version 15");
    }
    let tables = "CREATE TABLE t (id int PRIMARY KEY, kind text, big text); ALTER TABLE t REPLICA IDENTITY FULL;
        ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
        INSERT INTO t SELECT g, CASE g % 3 WHEN 0 THEN 'keep' ELSE 'drop' END, repeat('x', 9000) FROM generate_series(1, 600) g;
        CREATE PUBLICATION p FOR TABLE t WHERE (kind = 'keep')";
    client.batch_execute(tables).await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    let kept = "SELECT * FROM t WHERE kind = 'keep'";
    assert_rows(&world, &client, "t", kept).await;
    let write = "UPDATE t SET kind = 'drop' WHERE id <= 90 AND kind = 'keep'; UPDATE t SET kind = 'keep' WHERE id BETWEEN 200 AND 299;
        UPDATE t SET id = id + 10000 WHERE id > 550; UPDATE t SET kind = 'keep', id = -id WHERE id = 1; UPDATE t SET kind = NULL WHERE id = 300;
        BEGIN; UPDATE t SET kind = 'keep' WHERE id = 2; UPDATE t SET kind = 'drop' WHERE id = 2; DELETE FROM t WHERE id = 303; COMMIT;
        INSERT INTO t VALUES (20000, 'keep', 'in'), (20001, 'drop', 'out')";
    client.batch_execute(write).await.unwrap();
    caught_up(&running).await;
    stop(running).await;
    assert_rows(&world, &client, "t", kept).await;
}

/// Columns that are not in the list are nowhere; changes of them alone are harmless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_list_holds_in_the_copy_and_in_the_stream() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    if version(&client).await < 150_000 {
        return harness::skip::inapplicable("column lists begin with version 15");
    }
    let tables = "CREATE TABLE t (secret text, id int PRIMARY KEY, a text, b int); CREATE TABLE u (id int, v text, UNIQUE (id));
        ALTER TABLE u ALTER id SET NOT NULL; ALTER TABLE u REPLICA IDENTITY USING INDEX u_id_key;
        INSERT INTO t SELECT 'hidden', g, 'a', g FROM generate_series(1, 3000) g; INSERT INTO u SELECT g, 'v' FROM generate_series(1, 50) g;
        CREATE PUBLICATION p FOR TABLE t (b, id), u (id)";
    client.batch_execute(tables).await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    let write = "UPDATE t SET secret = 'still hidden' WHERE id < 100; UPDATE t SET b = -b WHERE id BETWEEN 50 AND 150; UPDATE u SET v = 'w';
        DELETE FROM t WHERE id = 7; UPDATE t SET id = 9000 WHERE id = 8; UPDATE u SET id = -1 WHERE id = 1; INSERT INTO t VALUES ('s', 9001, 'a', 1)";
    client.batch_execute(write).await.unwrap();
    caught_up(&running).await;
    stop(running).await;
    assert_rows(&world, &client, "t", "SELECT id, b FROM t").await;
    assert_rows(&world, &client, "u", "SELECT id FROM u").await;
}

/// The rows of a foreign partition are at another server: they are not published, so they are not copied either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_partition_is_left_out_and_said() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    // Nobody can read it: whoever tried to would fail.
    let tables = "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
        CREATE TABLE t (id int, v text) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (1000); CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (1000) TO (2000);
        CREATE FOREIGN TABLE t3 PARTITION OF t FOR VALUES FROM (2000) TO (3000) SERVER far;
        ALTER TABLE t1 REPLICA IDENTITY FULL; ALTER TABLE t2 REPLICA IDENTITY FULL; ALTER TABLE t REPLICA IDENTITY FULL;
        INSERT INTO t SELECT g, 'v' FROM generate_series(1, 1999) g;
        CREATE PUBLICATION p FOR TABLE t WITH (publish_via_partition_root)";
    client.batch_execute(tables).await.unwrap();
    let source = SourceConfig::from_url(&database.url()).unwrap().publication("p");
    let findings = check(&source, "etl_nowhere").await.unwrap();
    let is_told = findings.iter().any(|finding| finding.what.contains("public.t3") && finding.what.contains("foreign"));
    assert!(is_told, "{findings:?}");
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    client
        .batch_execute(
            "UPDATE t1 SET v = 'w' WHERE id = 5; UPDATE t2 SET v = 'w' WHERE id = 1005; INSERT INTO t VALUES (0, 'x')",
        )
        .await
        .unwrap();
    caught_up(&running).await;
    stop(running).await;
    assert_rows(&world, &client, "t", "SELECT * FROM t1 UNION ALL SELECT * FROM t2").await;
}
