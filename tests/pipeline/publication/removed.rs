//! Does a table that leaves the publication end cleanly, with everything up to there, and hold nothing back?

use std::time::Duration;

use etl::ErrorKind;
use etl::pipeline::RunningPipeline;
use harness::postgres::database;
use tokio_postgres::Client;

use super::{Writer, equal, find, generation, looked, until};
use crate::running::{World, caught_up, stop};
use crate::watched::Call;

const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u SELECT g, 'old' FROM generate_series(1, 100) g;
CREATE PUBLICATION p FOR TABLE t, u";

async fn is_gone(running: &RunningPipeline, table: &str) {
    until("gone", running, async || find(running, table).is_none()).await;
    until("the relay is free", running, async || running.handle().status().relay.disk_bytes == 0).await;
}

async fn oid(client: &Client, table: &str) -> etl::schema::TableId {
    etl::schema::TableId(client.query_one("SELECT $1::text::regclass::oid", &[&table]).await.unwrap().get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_a_removed_table_has_all_that_was_sent_and_comes_again_when_it_is_added() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    let writer = Writer::start(&database).await;
    client.batch_execute("ALTER PUBLICATION p ADD TABLE busy").await.unwrap();
    let u = oid(&client, "u").await;
    // The destination is slow, and the table is gone before its changes are written.
    world.destination.hold(Call::Batch);
    client.batch_execute("UPDATE u SET v = 'last' WHERE id % 2 = 0; DELETE FROM u WHERE id = 7").await.unwrap();
    let expected: Vec<_> = client.query("SELECT id, v FROM u", &[]).await.unwrap();
    let mut expected: Vec<_> = expected
        .iter()
        .map(|row| vec![Some(row.get::<_, i32>(0).to_string()), Some(row.get::<_, String>(1))])
        .collect();
    expected.sort();
    client.batch_execute("ALTER PUBLICATION p DROP TABLE u; INSERT INTO u VALUES (200, 'not sent')").await.unwrap();
    looked().await;
    assert!(find(&running, "u").is_some(), "its changes are not durable yet");
    world.destination.release();
    is_gone(&running, "u").await;
    assert_eq!(world.memory.rows(u).unwrap(), expected);
    assert_eq!(running.handle().pause(u).await.unwrap_err().kind(), ErrorKind::Config, "no such table");

    client.batch_execute("ALTER PUBLICATION p ADD TABLE u").await.unwrap();
    equal(&world, &running, &client, &["t", "u"]).await;
    assert_eq!(generation(&world, &client, "u").await, 2);
    // The same over a restart.
    client.batch_execute("ALTER PUBLICATION p DROP TABLE u").await.unwrap();
    is_gone(&running, "u").await;
    stop(running).await;
    client.batch_execute("INSERT INTO u VALUES (201, 'not sent'); ALTER PUBLICATION p ADD TABLE u").await.unwrap();
    drop(writer);
    let running = world.start().await;
    equal(&world, &running, &client, &["t", "u", "busy"]).await;
    assert_eq!((generation(&world, &client, "u").await, generation(&world, &client, "t").await), (3, 1));
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_a_table_that_is_dropped_while_it_is_copied_paused_or_followed_holds_nothing() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    client.batch_execute("CREATE TABLE w (id int PRIMARY KEY); ALTER PUBLICATION p ADD TABLE w").await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    let w = oid(&client, "w").await;
    running.handle().pause(w).await.unwrap();
    client.batch_execute("INSERT INTO w VALUES (1)").await.unwrap();
    world.destination.hold(Call::CopyRows);
    client
        .batch_execute(
            "CREATE TABLE copied (id int PRIMARY KEY); INSERT INTO copied SELECT generate_series(1, 1000);
             ALTER PUBLICATION p ADD TABLE copied",
        )
        .await
        .unwrap();
    world.destination.is_held(Call::CopyRows).await;
    let dropping = tokio::spawn({
        let client = database.client().await;
        async move { client.batch_execute("DROP TABLE w; DROP TABLE u; DROP TABLE copied").await.unwrap() }
    });
    looked().await;
    world.destination.release();
    dropping.await.unwrap();
    for table in ["w", "u", "copied"] {
        is_gone(&running, table).await;
    }
    client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
    stop(world.start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_a_table_that_comes_back_after_a_run_that_ended_before_it_was_gone_is_copied_again() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    let mut world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    client.batch_execute("UPDATE u SET v = 'sent'; ALTER PUBLICATION p DROP TABLE u").await.unwrap();
    for times in 1..3 {
        // The destination takes nothing, so that the stream does not pass what would make the table gone.
        world.watch_every = Duration::from_secs(3600);
        world.destination.hold(Call::Batch);
        let running = world.start().await;
        client.batch_execute("UPDATE u SET v = 'sent to nobody' WHERE id % 2 = 0").await.unwrap();
        client
            .batch_execute(&format!("INSERT INTO u VALUES (1000 + {times}, 'x'); INSERT INTO t VALUES (10 + {times})"))
            .await
            .unwrap();
        running.handle().abort();
        let _ = running.wait().await;
        world.destination.release();
    }
    client.batch_execute("ALTER PUBLICATION p ADD TABLE u").await.unwrap();
    let running = world.start().await;
    equal(&world, &running, &client, &["t", "u"]).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_a_table_that_is_dropped_and_made_again_is_copied_as_another() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    client.batch_execute("DROP PUBLICATION p; CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    for round in 0..3 {
        let sql = "DROP TABLE u; CREATE TABLE u (id bigint PRIMARY KEY, w text); INSERT INTO u VALUES (5, 'again')";
        client.batch_execute(sql).await.unwrap();
        client.execute("INSERT INTO u VALUES ($1, 'more')", &[&(i64::from(round) + 10)]).await.unwrap();
        if round == 1 {
            equal(&world, &running, &client, &["t", "u"]).await;
        }
    }
    equal(&world, &running, &client, &["t", "u"]).await;
    assert_eq!(running.handle().status().tables.len(), 2);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_a_dropped_publication_ends_the_run_with_what_to_do() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    client.batch_execute("DROP PUBLICATION p").await.unwrap();
    let error = running.wait().await.unwrap_err();
    assert_eq!((error.kind(), error.context("publication")), (ErrorKind::SourceSetup, Some("p")));
    assert!(error.hint_text().unwrap().contains("every table is copied again"), "{error}");
    client.batch_execute("INSERT INTO u VALUES (300, 'sent to nobody')").await.unwrap();
    client.batch_execute("CREATE PUBLICATION p FOR TABLE t, u").await.unwrap();
    let version: i32 = client.query_one("SELECT current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
    if version >= 180_000 {
        let error = world.refusal().await;
        assert_eq!(error.kind(), ErrorKind::SourceIdentity, "{error}");
    }
}
