//! Does a role that may only read and replicate follow every alteration into DuckDB, data and columns alike?

use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use harness::postgres::{client, dedicated};
use tokio_postgres::Client;

use crate::site::Site;

const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY, a text, b text, n int);
CREATE TABLE other (id int PRIMARY KEY);
CREATE TABLE parted (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
INSERT INTO t SELECT g, 'a' || g, 'b' || g, g FROM generate_series(1, 200) g;
INSERT INTO parted SELECT g, 'p' || g FROM generate_series(1, 50) g;
CREATE TABLE before (id int PRIMARY KEY, v text); INSERT INTO before SELECT g, 'b' FROM generate_series(1, 50) g;
CREATE TABLE parted_high (id int PRIMARY KEY, v text); INSERT INTO parted_high VALUES (150, 'loaded');
CREATE PUBLICATION p FOR TABLE t, other, parted, before WITH (publish_via_partition_root);
CREATE ROLE reader LOGIN REPLICATION;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader";

/// An alteration, and a write after it.
const SCRIPT: &[(&str, &str)] = &[
    ("TRUNCATE t", "INSERT INTO t SELECT g, 'a' || g, 'b' || g, g FROM generate_series(1, 300) g"),
    ("ALTER TABLE t ADD COLUMN c1 text", "INSERT INTO t (id, c1) VALUES (1001, 'new')"),
    (
        "ALTER TABLE t ADD c2 int DEFAULT 7, ADD f2 text DEFAULT 'it''s \"old\"', ADD f3 boolean DEFAULT true,
            ADD f4 timestamptz DEFAULT now(), ADD f5 numeric(10, 2) DEFAULT 1.50, ADD f6 date DEFAULT '2024-02-29'",
        "INSERT INTO t (id) VALUES (1002)",
    ),
    ("ALTER TABLE t ADD COLUMN c3 float8 DEFAULT random()", "UPDATE t SET a = 'x' WHERE id = 3"),
    ("ALTER TABLE t DROP COLUMN n", "UPDATE t SET a = 'y' WHERE id = 4"),
    ("ALTER TABLE t RENAME COLUMN a TO z", "UPDATE t SET z = 'z' WHERE id = 5"),
    (
        "ALTER TABLE t RENAME z TO tmp; ALTER TABLE t RENAME b TO z; ALTER TABLE t RENAME tmp TO b",
        "UPDATE t SET z = 'swapped' WHERE id = 6",
    ),
    ("ALTER TABLE t DROP COLUMN c1; ALTER TABLE t ADD COLUMN c1 text", "INSERT INTO t (id, c1) VALUES (1003, 'x')"),
    ("ALTER TABLE t ALTER COLUMN c2 TYPE bigint", "UPDATE t SET c2 = 1::bigint << 40 WHERE id = 7"),
    ("ALTER TABLE t ALTER COLUMN b TYPE varchar(500)", "UPDATE t SET b = 'w' WHERE id = 8"),
    ("UPDATE t SET b = coalesce(b, ''); ALTER TABLE t ALTER b SET NOT NULL", "UPDATE t SET b = 'v' WHERE id = 9"),
    ("ALTER TABLE t ALTER b DROP NOT NULL", "UPDATE t SET b = NULL WHERE id = 10"),
    ("ALTER TABLE t REPLICA IDENTITY FULL", "UPDATE t SET id = -id WHERE id = 13"),
    ("ALTER TABLE t REPLICA IDENTITY DEFAULT", "DELETE FROM t WHERE id = 14"),
    (
        "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD COLUMN k serial PRIMARY KEY",
        "UPDATE t SET id = 11 WHERE id = 12",
    ),
    ("ALTER TABLE before RENAME TO after", "UPDATE after SET v = 'renamed' WHERE id = 1"),
    (
        "ALTER TABLE parted ATTACH PARTITION parted_high FOR VALUES FROM (100) TO (200)",
        "UPDATE parted SET v = 'in' WHERE id = 150",
    ),
    ("ALTER TABLE parted DETACH PARTITION parted_low", "INSERT INTO parted VALUES (151, 'new')"),
];

/// The columns of the table, as DuckDB has them and as they should be.
async fn assert_columns(site: &Site, client: &Client) {
    let query = "SELECT attname::text FROM pg_attribute
                  WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname";
    let expected: Vec<String> = client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let query = "SELECT column_name FROM duckdb_columns()
                  WHERE table_name = 't' AND column_name NOT LIKE '\\_%' ESCAPE '\\' ORDER BY column_name";
    let rows = site.reader.query(&site.file(), query).await.unwrap();
    let found: Vec<String> = rows.into_iter().map(|row| row.into_iter().next().flatten().unwrap_or_default()).collect();
    assert_eq!(found, expected);
}

async fn scene() -> Option<(LocalPostgres, Client, Site)> {
    let server = dedicated(LocalPostgres::builder()).await?;
    let client = client(&server.url()).await;
    client.batch_execute(TABLES).await.unwrap();
    let url = server.url().replace("//postgres@", "//reader@");
    assert!(url.contains("reader@"), "{url}");
    let site = Site::with_copy(&url, "destination", "{}", "copy: { chunk_bytes: 1MiB }").await?;
    Some((server, client, site))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_alterations_one_by_one_with_stops_between() {
    let Some((_server, client, site)) = scene().await else { return };
    site.assert_equal(&client, &["t", "other", "parted", "before"]).await;
    let mut running = None;
    for (number, (alteration, write)) in SCRIPT.iter().enumerate() {
        if number % 4 == 0 {
            running = Some(site.program.start().unwrap());
        }
        client.batch_execute(alteration).await.unwrap();
        client.batch_execute(write).await.unwrap();
        client.execute("INSERT INTO other VALUES ($1)", &[&(number as i32)]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if number % 4 == 2
            && let Some(mut running) = running.take()
        {
            running.kill().await;
        }
    }
    if let Some(mut running) = running {
        running.kill().await;
    }
    site.assert_equal(&client, &["t", "other", "parted", "after"]).await;
    assert_columns(&site, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_alterations_in_one_transaction() {
    let Some((_server, client, site)) = scene().await else { return };
    site.assert_equal(&client, &["t", "other", "parted", "before"]).await;
    let mut running = site.program.start().unwrap();
    client.batch_execute("BEGIN; INSERT INTO t (id) VALUES (5000)").await.unwrap();
    for (alteration, write) in SCRIPT {
        client.batch_execute(alteration).await.unwrap();
        client.batch_execute(write).await.unwrap();
    }
    client.batch_execute("COMMIT; INSERT INTO other VALUES (1)").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    running.kill().await;
    site.assert_equal(&client, &["t", "other", "parted", "after"]).await;
    assert_columns(&site, &client).await;
}
