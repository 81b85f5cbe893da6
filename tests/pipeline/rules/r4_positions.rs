//! Is every change applied once, and at the same position whenever it comes?

use etl::CursorId;
use harness::postgres::database;
use tokio_postgres::Client;

use crate::running::{World, caught_up, received, stop};
use crate::watched::{Call, Told, Watched};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_what_the_snapshot_has_seen_is_not_applied_again() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE log (n int, v text); CREATE TABLE counted (n int); ALTER TABLE counted REPLICA IDENTITY FULL;
             INSERT INTO log VALUES (0, 'before'); INSERT INTO counted VALUES (0);
             CREATE PUBLICATION p FOR TABLE log, counted",
        )
        .await
        .unwrap();
    let open = database.client().await;
    let world = World::new(database.name(), &database.url());
    world.destination.hold(Call::Truncate);
    let running = world.start().await;
    world.destination.is_held(Call::Truncate).await;
    // The cursors are fixed: the stream has all of this, and the snapshots see what is committed.
    client
        .batch_execute(
            "INSERT INTO log VALUES (1, 'seen'); INSERT INTO counted VALUES (1), (1);
             BEGIN; INSERT INTO log VALUES (2, 'seen'); SAVEPOINT a; INSERT INTO log VALUES (3, 'rolled back');
             ROLLBACK TO a; SAVEPOINT b; INSERT INTO log VALUES (4, 'seen, in a subtransaction'); RELEASE b; COMMIT;
             UPDATE counted SET n = 2 WHERE ctid = (SELECT max(ctid) FROM counted)",
        )
        .await
        .unwrap();
    world.destination.hold(Call::CopyBegins);
    world.destination.release_one(Call::Truncate);
    world.destination.is_held(Call::CopyBegins).await;
    // The first snapshot is taken: a transaction with rolled back parts comes after it, whole or not at all.
    open.batch_execute(
        "BEGIN; INSERT INTO log VALUES (5, 'not seen'); SAVEPOINT a; INSERT INTO log VALUES (6, 'rolled back');
         SAVEPOINT b; INSERT INTO log VALUES (7, 'rolled back'); RELEASE b; ROLLBACK TO a;
         SAVEPOINT c; INSERT INTO log VALUES (8, 'not seen'), (8, 'not seen'); RELEASE c;
         DELETE FROM counted WHERE n = 0; COMMIT",
    )
    .await
    .unwrap();
    world.destination.release();
    caught_up(&running).await;
    world.assert_equal(&client, &["log", "counted"]).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_a_change_has_the_same_ordinal_on_every_replay_and_for_every_cursor() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);
             CREATE TABLE c (n int); ALTER TABLE b REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE a, b, c",
        )
        .await
        .unwrap();
    let mut world = World::new(database.name(), &database.url());
    // Nothing in this destination says what it has, so that everything is replayed.
    world.destination = Watched::new(world.memory.clone(), false);
    world.destination.hold(Call::CopyBegins);
    let running = world.start().await;
    // All of them: their locks would hold up a truncate.
    world.destination.are_held(Call::CopyBegins, 3).await;
    let transaction = "BEGIN; INSERT INTO a VALUES (1, 'a1'); SAVEPOINT s; INSERT INTO b VALUES (9, 'void');
         ROLLBACK TO s; INSERT INTO b VALUES (1, 'b1'); UPDATE b SET id = 2 WHERE id = 1; INSERT INTO a VALUES (2, 'a2');
         UPDATE a SET id = 3 WHERE id = 2; TRUNCATE c; INSERT INTO b VALUES (3, 'b3');
         UPDATE b SET v = 'same key' WHERE id = 3; DELETE FROM a WHERE id = 1; COMMIT";
    client.batch_execute(&transaction.replace("TRUNCATE c", "INSERT INTO c VALUES (0)")).await.unwrap();
    received(&running, &client).await;
    // By the tables' own cursors: their snapshots have not seen it, or they would not be told.
    world.destination.hold(Call::Batch);
    world.destination.release_one(Call::CopyBegins);
    world.destination.is_held(Call::Batch).await;
    drop(running);
    world.destination.release();
    let running = world.start().await;
    caught_up(&running).await;
    // By the main cursor; the run is cut off while it writes, and the next one is told again.
    world.destination.hold(Call::Batch);
    client.batch_execute(&transaction.replace('1', "11").replace('2', "12").replace('3', "13")).await.unwrap();
    world.destination.is_held(Call::Batch).await;
    drop(running);
    world.destination.release();
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &["a", "b"]).await;
    stop(running).await;
    let told = world.destination.told();
    assert!(told.iter().any(|told| matches!(told.cursor, CursorId::Table(_))), "nothing came by a table's own cursor");
    assert_ordinals(&client, &told).await;
}

/// What the transaction's changes count as, by hand: a truncated table one, an update with an old image two, what was rolled back
/// nothing.
async fn assert_ordinals(client: &Client, told: &[Told]) {
    let row = client.query_one("SELECT 'a'::regclass::oid, 'b'::regclass::oid", &[]).await.unwrap();
    let (a, b) = (row.get::<_, u32>(0), row.get::<_, u32>(1));
    let expected =
        [(a, "insert", 1), (b, "insert", 2), (b, "update", 3), (a, "insert", 5), (a, "update", 6), (b, "insert", 9)];
    let expected = expected.into_iter().chain([(b, "update", 10), (a, "delete", 12)]);
    let mut commits: Vec<_> = told.iter().map(|told| told.position.commit).collect();
    commits.sort();
    commits.dedup();
    let last = *commits.last().unwrap();
    let of_last: Vec<_> = told.iter().filter(|told| told.position.commit == last).collect();
    assert!(of_last.len() >= 2 * 8, "it came twice: {of_last:?}");
    for (table, op, ordinal) in expected.clone() {
        let found =
            of_last.iter().filter(|told| (told.table.0, told.op, told.position.ordinal) == (table, op, ordinal));
        assert!(found.count() >= 2, "{table} {op} {ordinal}: {of_last:?}");
    }
    for told in told.iter().filter(|told| told.table.0 == a || told.table.0 == b) {
        let found = (told.table.0, told.op, told.position.ordinal);
        assert!(expected.clone().any(|expected| expected == found), "{told:?}");
    }
}
