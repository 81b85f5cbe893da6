//! Does each table of a hierarchy arrive as the publication says, whether it is published by its root or not?

use etl::schema::TableId;
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::published::{assert_rows, version};
use crate::running::{World, caught_up, stop};

const HIERARCHY: &str = "
CREATE TABLE top (id int, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE middle PARTITION OF top FOR VALUES IN (1, 2) PARTITION BY LIST (part);
CREATE TABLE leaf PARTITION OF middle FOR VALUES IN (1);
CREATE TABLE leaf2 PARTITION OF middle FOR VALUES IN (2);
CREATE TABLE apart PARTITION OF top FOR VALUES IN (3);
INSERT INTO top SELECT g, g % 3 + 1, 'v' FROM generate_series(1, 3000) g;";

/// What is published, whether by its root, and the tables that arrive.
const PUBLISHED: &[(&str, bool, &[&str])] = &[
    ("top", true, &["top"]),
    ("top", false, &["leaf", "leaf2", "apart"]),
    ("middle", true, &["middle"]),
    ("middle", false, &["leaf", "leaf2"]),
    ("leaf", true, &["leaf"]),
    ("leaf", false, &["leaf"]),
];

const ALL: &[&str] = &["top", "middle", "leaf", "leaf2", "apart"];

async fn begun(sql: &str) -> Option<(Database, Client, World)> {
    let database = database().await?;
    let client = database.client().await;
    client.batch_execute(sql).await.unwrap();
    let world = World::new(database.name(), &database.url());
    Some((database, client, world))
}

async fn has_arrived(world: &World, client: &Client, table: &str) -> bool {
    let id: u32 = client.query_one("SELECT $1::text::regclass::oid", &[&table]).await.unwrap().get(0);
    world.memory.rows(TableId(id)).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_each_level_of_a_hierarchy_is_published_by_its_root_or_by_its_leaves() {
    for (published, by_root, expected) in PUBLISHED {
        let publication =
            format!("CREATE PUBLICATION p FOR TABLE {published} WITH (publish_via_partition_root = {by_root})");
        let Some((_database, client, world)) = begun(&format!("{HIERARCHY} {publication}")).await else { return };
        println!("{publication}");
        let running = world.start().await;
        caught_up(&running).await;
        world.assert_equal(&client, expected).await;
        // Some rows go from one partition to another.
        let write = "UPDATE top SET v = 'w' WHERE id % 2 = 0; UPDATE top SET part = part % 3 + 1 WHERE id <= 300; DELETE FROM top WHERE id > 2900;
            INSERT INTO top SELECT g, g % 3 + 1, 'new' FROM generate_series(4000, 4100) g";
        client.batch_execute(write).await.unwrap();
        caught_up(&running).await;
        world.assert_equal(&client, expected).await;
        client
            .batch_execute("TRUNCATE top; INSERT INTO top VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')")
            .await
            .unwrap();
        caught_up(&running).await;
        world.assert_equal(&client, expected).await;
        stop(running).await;
        for table in ALL {
            assert_eq!(has_arrived(&world, &client, table).await, expected.contains(table), "{publication}: {table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_filter_holds_at_each_level_of_a_hierarchy_over_one_connection_and_several() {
    for (published, by_root, expected) in PUBLISHED.iter().filter(|(name, by_root, _)| *by_root || *name == "leaf") {
        for connections in [1, 4] {
            let Some((_database, client, mut world)) = begun(HIERARCHY).await else { return };
            if version(&client).await < 150_000 {
                return harness::skip::inapplicable("row filters begin with version 15");
            }
            let publication = format!(
                "CREATE PUBLICATION p FOR TABLE {published} WHERE (id > 1000) WITH (publish_via_partition_root = {by_root})"
            );
            client.batch_execute(&publication).await.unwrap();
            world.settings.copy.connections_per_table = connections;
            let running = world.start().await;
            caught_up(&running).await;
            let filtered = format!("SELECT * FROM {published} WHERE id > 1000");
            assert_rows(&world, &client, published, &filtered).await;
            let write = "UPDATE top SET v = 'w' WHERE id % 2 = 0; UPDATE top SET id = id + 5000 WHERE id < 50; UPDATE top SET id = -id WHERE id = 2000;
                UPDATE top SET part = part % 3 + 1 WHERE id BETWEEN 900 AND 1100; DELETE FROM top WHERE id = 2500";
            client.batch_execute(write).await.unwrap();
            caught_up(&running).await;
            stop(running).await;
            assert_rows(&world, &client, published, &filtered).await;
            assert_eq!(*expected, [*published]);
        }
    }
}

const PARTS: &str = "
CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE t0 PARTITION OF t FOR VALUES FROM (0) TO (100); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (100) TO (200);
INSERT INTO t SELECT g, 'v' FROM generate_series(0, 199) g;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_partition_is_a_table_of_its_own_where_the_publication_has_it() {
    for (of, goes_on) in [("TABLE t", false), ("ALL TABLES", true), ("TABLES IN SCHEMA public", true)] {
        let Some((_database, client, world)) = begun(PARTS).await else { return };
        if version(&client).await < 150_000 && of.contains("SCHEMA") {
            continue;
        }
        client
            .batch_execute(&format!("CREATE PUBLICATION p FOR {of} WITH (publish_via_partition_root)"))
            .await
            .unwrap();
        let running = world.start().await;
        caught_up(&running).await;
        let write = "ALTER TABLE t DETACH PARTITION t1; INSERT INTO t1 VALUES (1000, 'apart'); UPDATE t SET v = 'in' WHERE id = 7";
        client.batch_execute(write).await.unwrap();
        let tables: &[&str] = if goes_on { &["t", "t1"] } else { &["t"] };
        crate::publication::equal(&world, &running, &client, tables).await;
        client.batch_execute("DELETE FROM t1 WHERE id < 150; INSERT INTO t1 VALUES (1001, 'more')").await.unwrap();
        crate::publication::equal(&world, &running, &client, tables).await;
        stop(running).await;
        assert_eq!(has_arrived(&world, &client, "t1").await, goes_on, "{of}");
    }
}

/// Each is told by the root, for all partitions.
const ALTERED: &[(&str, &str)] = &[
    ("ALTER TABLE t ADD COLUMN c text", "UPDATE t SET c = 'c' WHERE id % 2 = 0"),
    ("ALTER TABLE t ADD COLUMN d int DEFAULT 7", "INSERT INTO t (id) VALUES (1000)"),
    ("ALTER TABLE t RENAME COLUMN v TO w", "UPDATE t SET w = 'w' WHERE id = 101"),
    ("ALTER TABLE t ALTER COLUMN d TYPE bigint", "UPDATE t SET d = 5000000000 WHERE id = 102"),
    ("ALTER TABLE t DROP COLUMN c", "DELETE FROM t WHERE id = 103"),
    ("ALTER TABLE t1 RENAME TO t_one", "UPDATE t SET w = 'renamed' WHERE id = 104"),
    ("ALTER TABLE t RENAME TO t_all; ALTER TABLE t_all RENAME TO t", "UPDATE t SET w = 'back' WHERE id = 105"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_partitioned_table_is_altered_live_and_between_two_runs() {
    let tables = format!(
        "{PARTS} CREATE TABLE t9 PARTITION OF t DEFAULT; CREATE PUBLICATION p FOR TABLE t WITH (publish_via_partition_root)"
    );
    let Some((_database, client, world)) = begun(&tables).await else { return };
    let mut running = world.start().await;
    caught_up(&running).await;
    for (number, (alteration, write)) in ALTERED.iter().enumerate() {
        println!("{alteration}");
        let is_down = number % 2 == 1;
        if is_down {
            stop(running).await;
            client.batch_execute(alteration).await.unwrap();
            client.batch_execute(write).await.unwrap();
            running = world.start().await;
        } else {
            client.batch_execute(alteration).await.unwrap();
            client.batch_execute(write).await.unwrap();
        }
        crate::publication::equal(&world, &running, &client, &["t"]).await;
    }
    stop(running).await;
}
