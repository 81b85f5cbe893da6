//! Is every row found again by what identifies it, whatever that is?

use harness::postgres::database;

use crate::running::{World, caught_up, stop};
use crate::watched::Told;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_an_identity_by_index_follows_changes_of_the_primary_key_and_of_the_identity() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, v text);
             CREATE UNIQUE INDEX by_code ON t (code); ALTER TABLE t REPLICA IDENTITY USING INDEX by_code;
             INSERT INTO t SELECT g, 'c' || g, 'v' FROM generate_series(1, 20) g; CREATE PUBLICATION p FOR TABLE t",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    for change in [
        "UPDATE t SET id = id + 100 WHERE id <= 5",
        "UPDATE t SET code = code || 'x' WHERE id BETWEEN 6 AND 10",
        "UPDATE t SET id = id + 100, code = code || 'y', v = 'w' WHERE id BETWEEN 11 AND 13",
        "DELETE FROM t WHERE id IN (103, 7, 112, 20)",
        // What was one row's primary key is another's now, and the keys change places.
        "UPDATE t SET id = 20 WHERE id = 101; INSERT INTO t VALUES (101, 'new', NULL)",
        "UPDATE t SET code = 'z' WHERE code = 'c18'; UPDATE t SET code = 'c18' WHERE code = 'c19'",
    ] {
        client.batch_execute(change).await.unwrap();
        caught_up(&running).await;
        world.assert_equal(&client, &["t"]).await;
    }
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_a_key_of_several_columns_in_another_order_than_the_tables_is_followed() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (v text, a int, big text, b text, PRIMARY KEY (b, a));
             ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
             INSERT INTO t SELECT 'v', g, repeat('b' || g, 2000), 'k' || g % 4 FROM generate_series(1, 40) g;
             CREATE PUBLICATION p FOR TABLE t",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    for change in [
        "SELECT",
        "UPDATE t SET v = 'w' WHERE a < 10",
        "UPDATE t SET a = a + 100 WHERE a % 4 = 1; UPDATE t SET b = b || 'x' WHERE a % 4 = 2",
        "UPDATE t SET a = -a, b = 'k0', v = NULL WHERE b = 'k3'; DELETE FROM t WHERE a > 120 OR b = 'k2x'",
    ] {
        client.batch_execute(change).await.unwrap();
        caught_up(&running).await;
        world.assert_equal(&client, &["t"]).await;
    }
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_under_full_the_key_is_the_primary_key_and_the_old_row_fills_what_was_not_sent() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (v text, id int, big text, PRIMARY KEY (id)); ALTER TABLE t REPLICA IDENTITY FULL;
             ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
             INSERT INTO t SELECT 'v', g, repeat('b' || g, 3000) FROM generate_series(1, 10) g;
             CREATE TABLE d (v text, id int PRIMARY KEY, big text); ALTER TABLE d ALTER big SET STORAGE EXTERNAL;
             INSERT INTO d SELECT * FROM t; CREATE PUBLICATION p FOR TABLE t, d",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    for table in ["t", "d"] {
        let changes = format!(
            "UPDATE {table} SET v = 'w' WHERE id = 1; UPDATE {table} SET v = NULL WHERE id = 2;
             UPDATE {table} SET id = -id WHERE id = 3; DELETE FROM {table} WHERE id = 4"
        );
        client.batch_execute(&changes).await.unwrap();
    }
    caught_up(&running).await;
    world.assert_equal(&client, &["t", "d"]).await;
    let row = client.query_one("SELECT 't'::regclass::oid, 'd'::regclass::oid", &[]).await.unwrap();
    let (full, default) = (row.get::<_, u32>(0), row.get::<_, u32>(1));
    let told = world.destination.told();
    let unknown = |table: u32| {
        let is_unknown = |told: &&Told| told.row.iter().any(|value| value.as_deref() == Some("<unchanged>"));
        told.iter().filter(|told| told.table.0 == table).filter(is_unknown).count()
    };
    assert_eq!(unknown(full), 0);
    assert_eq!(unknown(default), 3, "the values are long enough to be left out");
    stop(running).await;
}
