//! Do masks, filters and constants hold alike for copies, changes, old rows and keys?

use etl::destination::TextRow;
use etl::schema::{TableId, TablePatterns};
use etl::transform::{ColumnChoice, Mask, TableRename, Transform, TransformRule};
use etl::{ErrorKind, Secret};
use harness::postgres::database;
use tokio_postgres::Client;

use crate::publication::{find, generation, until};
use crate::running::{World, caught_up, stop};

const TABLES: &str = "
CREATE TABLE users (email text PRIMARY KEY, name text, age int, country text, big text, pin int);
ALTER TABLE users ALTER COLUMN big SET STORAGE EXTERNAL;
CREATE TABLE visits (who text, age int, country text); ALTER TABLE visits REPLICA IDENTITY FULL;
INSERT INTO users SELECT 'user' || g || '@secret.example', 'secret name ' || g, g, CASE g % 3 WHEN 0 THEN 'DE' ELSE 'FR' END,
  repeat('b', 5000), g FROM generate_series(1, 60) g;
INSERT INTO visits SELECT 'user' || g || '@secret.example', g % 5, CASE g % 2 WHEN 0 THEN 'DE' END FROM generate_series(1, 20) g;
CREATE PUBLICATION p FOR TABLE users, visits";

const CHANGES: &str = "
UPDATE users SET age = age + 100, big = 'small' WHERE age < 10;
UPDATE users SET email = 'moved' || email, big = big || 'x' WHERE age BETWEEN 20 AND 25;
UPDATE users SET country = 'DE', big = 'x' WHERE age = 31;
UPDATE users SET country = 'FR' WHERE age = 33;
DELETE FROM users WHERE age IN (30, 32, 104);
INSERT INTO users VALUES ('new@secret.example', NULL, 20, 'DE', NULL, NULL), ('out@secret.example', 'x', 20, NULL, NULL, 1);
UPDATE visits SET country = 'DE' WHERE age = 1;
UPDATE visits SET country = NULL WHERE age = 2;
DELETE FROM visits WHERE age = 3;
INSERT INTO visits VALUES ('user@secret.example', 4, 'DE'), ('user@secret.example', 4, 'DE');
DELETE FROM visits WHERE ctid IN (SELECT ctid FROM visits WHERE age = 4 AND country = 'DE' LIMIT 2);";

const SALT: &str = "hunter2";

fn transform() -> Transform {
    let masks =
        |masks: &[(&str, Mask)]| Some(masks.iter().map(|(name, mask)| ((*name).to_owned(), mask.clone())).collect());
    let hash = Mask::Hash(Secret::new(SALT));
    let users = ColumnChoice {
        exclude: Some(vec!["country".to_owned()]),
        mask: masks(&[
            ("email", hash.clone()),
            ("name", Mask::Truncate(3)),
            ("pin", Mask::Null),
            ("age", Mask::Redact),
        ]),
        add: Some([("region".to_owned(), "eu".to_owned())].into()),
        ..ColumnChoice::default()
    };
    let visits = ColumnChoice { mask: masks(&[("who", hash)]), ..ColumnChoice::default() };
    let rule = |table: &str, columns, filter: &str| TransformRule {
        tables: TablePatterns::new([table]),
        columns,
        rename: TableRename::default(),
        filter: Some(filter.to_owned()),
        on_value: None,
        copy: None,
    };
    Transform::new(vec![
        rule("public.users", users, "country = 'DE'"),
        rule("public.visits", visits, "country IS NOT NULL OR age = 4"),
    ])
}

/// What is to be there, made by the server.
async fn assert_masked(world: &World, client: &Client) {
    // HMAC (RFC 2104) by the server's own sha256; the salt is shorter than a block.
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(SALT.bytes()).for_each(|(pad, salt)| *pad ^= salt);
        block.to_vec()
    };
    for (table, query) in [
        (
            "users",
            "SELECT encode(sha256($2 || sha256($1 || convert_to(email, 'UTF8'))), 'hex'), left(name, 3), CASE WHEN age IS NOT NULL THEN '***' END, big, NULL, 'eu'
               FROM users WHERE country = 'DE'",
        ),
        (
            "visits",
            "SELECT encode(sha256($2 || sha256($1 || convert_to(who, 'UTF8'))), 'hex'), age::text, country FROM visits WHERE country IS NOT NULL OR age = 4",
        ),
    ] {
        let rows = client.query(query, &[&pad(0x36), &pad(0x5c)]).await.unwrap();
        let mut expected: Vec<TextRow> =
            rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect();
        expected.sort();
        let short = |rows: &[TextRow]| format!("{rows:?}").replace(&"b".repeat(5000), "big");
        let id = client.query_one("SELECT $1::text::regclass::oid", &[&table]).await.unwrap();
        let found = world.memory.rows(TableId(id.get(0))).unwrap();
        assert!(found == expected, "{table}: {}\ninstead of {}", short(&found), short(&expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_masked_or_left_out_is_so_everywhere() {
    for streaming in [true, false] {
        let Some(database) = database().await else { return };
        let client = database.client().await;
        client.batch_execute(TABLES).await.unwrap();
        let mut world = World::new(database.name(), &database.url());
        world.streaming = streaming;
        world.transform = transform();
        let running = world.start().await;
        caught_up(&running).await;
        assert_masked(&world, &client).await;
        for statement in CHANGES.split(";\n") {
            client.batch_execute(statement).await.unwrap();
        }
        caught_up(&running).await;
        assert_masked(&world, &client).await;
        stop(running).await;
        client
            .batch_execute(
                "UPDATE users SET email = 'down' || email, big = 'y' WHERE age = 36; DELETE FROM visits WHERE age = 0",
            )
            .await
            .unwrap();
        let running = world.start().await;
        caught_up(&running).await;
        assert_masked(&world, &client).await;
        stop(running).await;
        let told = format!("{:?}", world.destination.told());
        assert!(!told.contains("secret") && !told.contains(SALT), "nothing of it came through");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_mask_or_filter_leads_to_a_new_copy() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.transform = transform();
    world.transform.rules[0].columns.mask = Some([("email".to_owned(), Mask::Hash(Secret::new("another")))].into());
    world.transform.rules[1].filter = None;
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    world.transform.rules[0].columns.mask.clone_from(&transform().rules[0].columns.mask);
    world.transform.rules[1] = transform().rules[1].clone();
    let running = world.start().await;
    caught_up(&running).await;
    assert_masked(&world, &client).await;
    stop(running).await;
    // The same choice copies nothing again.
    let copied = generation(&world, &client, "users").await;
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    assert_eq!(generation(&world, &client, "users").await, copied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_may_be_new_and_was_not_sent_whole_stops_its_table_alone() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.transform = transform();
    let running = world.start().await;
    caught_up(&running).await;
    client
        .batch_execute("UPDATE users SET country = 'DE' WHERE age = 1; UPDATE visits SET age = 9 WHERE age = 1")
        .await
        .unwrap();
    until("stopped", &running, async || find(&running, "users").is_some_and(|users| users.phase == "quarantined"))
        .await;
    let error = find(&running, "users").and_then(|users| users.error).unwrap();
    assert_eq!(error.kind, ErrorKind::Value.name(), "{error:?}");
    assert!(error.hint.is_some_and(|hint| hint.contains("REPLICA IDENTITY FULL")));
    until("ready", &running, async || find(&running, "visits").is_some_and(|visits| visits.phase == "ready")).await;
    running.handle().abort();
    let _ = running.wait().await;
}
