//! Does a type that cannot be sent in binary arrive all the same?

use harness::postgres::database;

use crate::running::{World, caught_up, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_types_without_a_send_function_are_copied_and_streamed_as_text() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TYPE pair AS (x aclitem, y int); CREATE DOMAIN acls AS aclitem[];
             CREATE TABLE t (id int PRIMARY KEY, one aclitem, many aclitem[], p pair, ps pair[], d acls, n numeric);
             CREATE TABLE u (id int PRIMARY KEY, n numeric, b bytea);
             INSERT INTO t VALUES (1, 'postgres=r/postgres', '{postgres=r/postgres,=w/postgres}',
                 ROW('=r/postgres', 7), ARRAY[ROW('=r/postgres', 7)::pair, NULL], '{=r/postgres}', 1.50);
             INSERT INTO u VALUES (1, 'Infinity', '\\x00ff'); CREATE PUBLICATION p FOR TABLE t, u",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &["t", "u"]).await;
    client
        .batch_execute(
            "INSERT INTO t SELECT 2, one, many, p, ps, d, n FROM t; UPDATE t SET many = '{}', d = NULL WHERE id = 1;
             INSERT INTO u VALUES (2, 'NaN', '')",
        )
        .await
        .unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["t", "u"]).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_a_type_without_a_send_function_that_comes_later_does_not_end_the_stream() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, n numeric); INSERT INTO t VALUES (1, 1.5); CREATE PUBLICATION p FOR TABLE t;
             CREATE TABLE later (id int PRIMARY KEY, many aclitem[])",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    client
        .batch_execute(
            "ALTER PUBLICATION p ADD TABLE later; INSERT INTO later VALUES (1, '{postgres=r/postgres}');
             INSERT INTO t VALUES (2, 'NaN')",
        )
        .await
        .unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
    // The table that came is copied, and the whole stream is text from its beginning.
    let running = world.start().await;
    caught_up(&running).await;
    client.batch_execute("UPDATE later SET many = many || many; INSERT INTO t VALUES (3, -1)").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["t", "later"]).await;
    stop(running).await;
}
