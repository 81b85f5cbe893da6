//! Do many tables, wide tables and odd names arrive like any other?

use std::fmt::Write;

use harness::postgres::database;

use crate::running::{World, caught_up, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_tables_are_copied_and_followed() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let tables: Vec<String> = (0..500).map(|n| format!("t{n}")).collect();
    let mut sql = String::new();
    for (n, table) in tables.iter().enumerate() {
        write!(sql, "CREATE TABLE {table} (id int PRIMARY KEY, v text);").unwrap();
        if n % 3 > 0 {
            write!(sql, "INSERT INTO {table} SELECT g, 'copied' FROM generate_series(1, {}) g;", n % 7 + 1).unwrap();
        }
    }
    client.batch_execute(&sql).await.unwrap();
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let world = World::new("many", &database.url());
    let running = world.start().await;
    let mut sql = String::from("BEGIN;");
    for table in &tables {
        write!(sql, "INSERT INTO {table} VALUES (100, 'new'); UPDATE {table} SET v = 'changed' WHERE id = 1;").unwrap();
    }
    client.batch_execute(&(sql + "COMMIT;")).await.unwrap();
    caught_up(&running).await;
    client.batch_execute("TRUNCATE t1, t2, t499; INSERT INTO t2 VALUES (1, 'after')").await.unwrap();
    caught_up(&running).await;
    stop(running).await;
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    world.assert_equal(&client, &names).await;
    // One or two a table, if a copy did not take the connections of the one before.
    let sessions = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()";
    let sessions: i64 = client.query_one(sessions, &[]).await.unwrap().get(0);
    assert!(sessions < 250, "{sessions} sessions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_1600_columns_is_copied_and_followed() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    // As many as there can be: booleans, so that a row fits its page.
    let columns: Vec<String> = (1..1600).map(|n| format!("c{n} boolean")).collect();
    client
        .batch_execute(&format!(
            "CREATE TABLE wide (id int PRIMARY KEY, {}); INSERT INTO wide (id, c1, c1599) VALUES (1, true, false), (2, null, true);
             CREATE PUBLICATION p FOR ALL TABLES",
            columns.join(", ")
        ))
        .await
        .unwrap();
    let world = World::new("wide", &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    client
        .batch_execute(
            "UPDATE wide SET c800 = true, c1599 = null WHERE id = 1; DELETE FROM wide WHERE id = 2;
             INSERT INTO wide (id, c2) VALUES (3, false); UPDATE wide SET id = 30 WHERE id = 3",
        )
        .await
        .unwrap();
    caught_up(&running).await;
    stop(running).await;
    world.assert_equal(&client, &["wide"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_are_names() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let longest = "ä".repeat(31) + "x";
    assert_eq!(longest.len(), 63);
    let names = [
        r#""Upper"."Case""#.to_owned(),
        r#""with space"."with.dot""#.to_owned(),
        r#""quo""te"."a'b;--""#.to_owned(),
        r#""größe"."日本""#.to_owned(),
        format!(r#""{longest}"."{longest}""#),
        r#"public."select""#.to_owned(),
        r#"public."$1""#.to_owned(),
        r#"public."\n""#.to_owned(),
    ];
    for name in &names {
        if let Some((schema, _)) = name.rsplit_once("\".\"") {
            client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}\"")).await.unwrap();
        }
        let sql = format!(
            r#"CREATE TABLE {name} ("from" int PRIMARY KEY, "A.b ""c""" text, "{longest}" text);
               INSERT INTO {name} VALUES (1, 'copied', 'x'), (2, NULL, '')"#
        );
        client.batch_execute(&sql).await.unwrap();
    }
    // The publication's own name too.
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let world = World::new("odd", &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    for name in &names {
        let sql = format!(
            r#"UPDATE {name} SET "A.b ""c""" = 'it''s' WHERE "from" = 1; DELETE FROM {name} WHERE "from" = 2;
               INSERT INTO {name} VALUES (3, '\', E'\n'); UPDATE {name} SET "from" = 4 WHERE "from" = 3"#
        );
        client.batch_execute(&sql).await.unwrap();
    }
    caught_up(&running).await;
    stop(running).await;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.assert_equal(&client, &names).await;
}
