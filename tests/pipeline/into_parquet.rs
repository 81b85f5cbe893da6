//! Are values in Parquet files the same as at the source, as DuckDB and pyarrow read them?

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use etl::destination::Destination;
use etl_destinations::parquet::{Parquet, ParquetConfig, ParquetInfinities, ParquetLayout};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::duckdb::{Reader, Row};
use harness::parquet::{current, pyarrow_or_skip, query};
use harness::postgres::database;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::running::{World, caught_up, stop};

/// Column, type, a value, and SQL of DuckDB that writes it as Postgres does.
const COLUMNS: &[(&str, &str, &str, &str)] = &[
    ("b", "bool", "true", "CASE WHEN b THEN 't' ELSE 'f' END"),
    ("i2", "int2", "-32768", "i2"),
    ("i8", "int8", "9223372036854775807", "i8"),
    ("f4", "float4", "'1.17549435e-38'", "f4"),
    ("f8", "float8", "'NaN'", "replace(f8::VARCHAR, 'nan', 'NaN')"),
    ("n", "numeric", "'0.100000000000000000000000000000000000000000000000001'", "n"),
    ("n2", "numeric(38, 6)", "'-99999999999999999999999999999999.999999'", "n2"),
    ("t", "text", "E'a\\tb\\\\c\\nd\\r ü 𝄞'", "t"),
    ("c", "char(5)", "'ab'", "c"),
    ("y", "bytea", "'\\x00ff'", "'\\x' || lower(hex(y))"),
    ("d", "date", "'0001-01-01'", "d"),
    ("tm", "time", "'24:00'", "tm"),
    ("ts", "timestamp", "'1969-12-31 23:59:59.999999'", "ts"),
    ("tz", "timestamptz", "'2000-02-29 00:00:00+00'", "(tz AT TIME ZONE 'UTC')::VARCHAR || '+00'"),
    ("u", "uuid", "'6b1f2c3d-0000-4000-8000-00000000abcd'", "u"),
    ("j", "json", "'{\"a\":  1, \"a\": 2}'", "j"),
    ("jb", "jsonb", "'{\"b\": null}'", "jb"),
    ("ip", "inet", "'::1/64'", "ip"),
    (
        "ia",
        "int4[]",
        "'{1,NULL,-3}'",
        "'{' || array_to_string(list_transform(ia, lambda x: coalesce(x::VARCHAR, 'NULL')), ',') || '}'",
    ),
    ("r", "int4range", "'[1,5)'", "'[' || r.lower || ',' || r.upper || ')'"),
    ("e", "mood", "'so so'", "e"),
];

async fn create(client: &Client) {
    let columns: Vec<String> = COLUMNS.iter().map(|(name, of, ..)| format!("{name} {of}")).collect();
    let values: Vec<&str> = COLUMNS.iter().map(|(_, _, value, _)| *value).collect();
    let sql = format!(
        "CREATE TYPE mood AS ENUM ('so so', 'good'); CREATE TABLE v (id int PRIMARY KEY, {}, big text);
         ALTER TABLE v ALTER big SET STORAGE EXTERNAL;
         INSERT INTO v VALUES (1, {values}, repeat('x', 10000)); INSERT INTO v (id) VALUES (2);
         CREATE TABLE log (at timestamptz, note text); ALTER TABLE log REPLICA IDENTITY FULL;
         INSERT INTO log VALUES ('2026-01-01', 'x'), ('2026-01-01', 'x'); CREATE PUBLICATION p FOR TABLE v, log",
        columns.join(", "),
        values = values.join(", ")
    );
    client.batch_execute(&sql).await.unwrap();
}

async fn source(client: &Client, columns: &str, from: &str) -> Vec<Row> {
    client.batch_execute("SET timezone = 'UTC'; SET extra_float_digits = 3").await.unwrap();
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect()),
        _ => None,
    };
    let sql = format!("SELECT {columns} FROM {from} ORDER BY 1");
    client.simple_query(&sql).await.unwrap().into_iter().filter_map(row).collect()
}

fn open(world: &World, place: &Path) -> TableDestination<Parquet> {
    let config = ParquetConfig {
        layout: ParquetLayout::Hive,
        infinities: ParquetInfinities::DuckDb,
        ..ParquetConfig::new(place.display().to_string())
    };
    let upsert = etl_destinations::table_rules::TableRule {
        tables: etl_destinations::table_rules::TablePatterns::new(["public.*"]),
        write_mode: Some(WriteMode::Upsert),
        on_schema_change: None,
        metadata: None,
        copy: None,
    };
    let rules = TableRules { defaults: RuleSettings::default(), rules: vec![upsert] };
    Parquet::with_config(config, Arc::clone(&world.store), rules).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_the_same_in_the_log_and_in_the_current_state() {
    let (Some(database), Some(reader)) = (database().await, Reader::find_or_skip().await) else { return };
    let client = database.client().await;
    create(&client).await;
    let world = World::new(database.name(), &database.url());
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("lake");
    let running = world.pipeline_into(open(&world, &place)).start().await.unwrap();
    caught_up(&running).await;
    let changes = "
        INSERT INTO v SELECT id + 2, b, i2, i8, f4, f8, n, n2, t, c, y, d, tm, ts, tz, u, j, jb, ip, ia, r, e, big FROM v;
        UPDATE v SET id = 11, t = 'moved' WHERE id = 1; DELETE FROM v WHERE id = 2; UPDATE v SET i2 = 7 WHERE id = 11;
        DELETE FROM log WHERE ctid = (SELECT min(ctid) FROM log); INSERT INTO log VALUES (NULL, 'y'), (NULL, 'y'), ('infinity', '');
        UPDATE log SET note = NULL WHERE ctid = (SELECT max(ctid) FROM log WHERE note = 'y'); DELETE FROM log WHERE note = ''";
    client.batch_execute(changes).await.unwrap();
    caught_up(&running).await;
    client
        .batch_execute("ALTER TABLE v ADD more int[] DEFAULT '{1,2}'; ALTER TABLE v RENAME t TO words")
        .await
        .unwrap();
    client.batch_execute("UPDATE v SET more = NULL WHERE id = 3; ALTER TABLE v DROP c").await.unwrap();
    caught_up(&running).await;
    stop(running).await;

    let parquet = open(&world, &place);
    parquet.startup().await.unwrap();
    let made = parquet.writer().compact().await.unwrap();
    let rows = made.iter().map(|made| (&*made.table, made.rows));
    assert_eq!(rows.collect::<BTreeMap<_, _>>(), [("public.log", 3), ("public.v", 3)].into());
    let renamed = |text: &str| if text == "t" { "words".to_owned() } else { text.to_owned() };
    let kept = || COLUMNS.iter().filter(|(name, ..)| *name != "c");
    let columns: Vec<String> = kept().map(|(name, ..)| renamed(name)).collect();
    let expected = source(&client, &format!("id, {}, big, more", columns.join(", ")), "v").await;
    let texts: Vec<String> = kept()
        .map(|(name, _, _, sql)| {
            format!("CASE WHEN {0} IS NOT NULL THEN ({1})::VARCHAR END", renamed(name), renamed(sql))
        })
        .collect();
    let list = "'{' || array_to_string(more, ',') || '}'";
    let sql = format!(
        "SELECT id, {}, big, CASE WHEN more IS NOT NULL THEN {list} END FROM {} ORDER BY id",
        texts.join(", "),
        current(&place, "public", "v")
    );
    assert_eq!(query(&reader, &sql).await, expected);
    let log = format!("read_parquet('{}/public/log/log/*/*.parquet', hive_partitioning = true)", place.display());
    let counts = format!("SELECT _CHANGE_TYPE, count(*) FROM {log} GROUP BY ALL ORDER BY ALL");
    let count = |kind: &str, count: &str| vec![Some(kind.to_owned()), Some(count.to_owned())];
    let expected = [count("DELETE", "3"), count("INSERT", "3"), count("UPDATE", "1"), count("UPSERT", "2")];
    assert_eq!(query(&reader, &counts).await, expected);
    let lines = source(&client, "note, at", "log").await;
    let at = "(\"at\" AT TIME ZONE 'UTC')::VARCHAR || '+00'";
    let sql = format!("SELECT note, {at} FROM {} ORDER BY note", current(&place, "public", "log"));
    assert_eq!(query(&reader, &sql).await, lines);
    pyarrow_reads_the_same(&client, &place).await;
}

/// The columns that Python writes as Postgres does, of the rows as they were copied.
async fn pyarrow_reads_the_same(client: &Client, place: &Path) {
    let columns = ["id", "i8", "n2", "b", "y", "d", "ts", "tz", "j", "n"];
    let Some(rows) = pyarrow_or_skip(&place.join("public/v/log"), &columns).await else { return };
    let rows: BTreeMap<String, Row> = rows.into_iter().map(|row| (row[0].clone().unwrap(), row)).collect();
    for row in source(client, &columns.join(", "), "v").await {
        let id = row[0].clone().unwrap();
        if id != "11" {
            assert_eq!(rows[&id], row, "{id}");
        }
    }
}
