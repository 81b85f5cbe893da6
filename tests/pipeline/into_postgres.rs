//! Is another Postgres the same as the source, value by value and type by type?

use std::sync::Arc;
use std::time::Duration;

use etl::destination::Destination;
use etl::pipeline::RunningPipeline;
use etl::postgres::{TlsMode, TlsOptions};
use etl::schema::TableId;
use etl_destinations::postgres::{Atomic, Postgres, PostgresTargetConfig};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::TableRules;
use etl_local_postgres::LocalPostgres;
use harness::postgres::{Database, database, dedicated};
use tokio_postgres::Client;

use crate::running::{World, caught_up, started, stop};

fn target(world: &World, config: PostgresTargetConfig) -> TableDestination<Postgres> {
    Postgres::with_config(config, Arc::clone(&world.store), TableRules::default()).unwrap()
}

async fn start(world: &World, config: PostgresTargetConfig) -> RunningPipeline {
    started(|| world.pipeline_into(target(world, config.clone()))).await.unwrap()
}

async fn texts(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Both sides, without the metadata columns: rows as text, and the types of the columns.
async fn equal(source: &Client, copy: &Client, table: &str) {
    let columns = format!(
        "FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attname !~ '^_[A-Z]'
         ORDER BY attnum"
    );
    let types = format!("SELECT format_type(atttypid, atttypmod) {columns}");
    assert_eq!(texts(copy, &types).await, texts(source, &types).await, "{table}");
    let names = texts(source, &format!("SELECT quote_ident(attname) {columns}")).await.join(", ");
    let rows = format!("SELECT ROW({names})::text FROM {table} ORDER BY 1");
    assert_eq!(texts(copy, &rows).await, texts(source, &rows).await, "{table}");
}

const TYPES: &str = r#"
CREATE TYPE mood AS ENUM ('so so', 'good'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE v (id bigint PRIMARY KEY, b bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, n2 numeric(30, 6), t text,
  c char(5), vc varchar(9), y bytea, d date, tm time(3), tz timetz, ts timestamp, tstz timestamptz(3), u uuid, j json,
  jb jsonb, iv interval, ip inet, m macaddr, bits bit(3), vb varbit, r int4range, mr nummultirange, x xml, p point, mo money,
  ia int4[], ta text[], na numeric[], e mood, ea mood[], po positive, co pair, rc regclass, "ö ""d" text);
CREATE TABLE log (at timestamptz, j json, note text); ALTER TABLE log REPLICA IDENTITY FULL;
"#;

const VALUES: &str = r#"
INSERT INTO v VALUES
 (1, true, -32768, 9223372036854775807, '-0', 'NaN', 'NaN', '0.100000', E'a\tb\\c\nd\r', 'ab', 'ü', '\x00ff', '4713-01-01 BC', '24:00',
  '12:00:00+05:30', 'infinity', '294276-12-31 23:59:59.999+00', '00000000-0000-0000-0000-000000000000', '{"a":  1, "a": 2}',
  '{"b": null}', '1 mon -3 days 04:05:06.7', '::1/64', '08:00:2b:01:02:03', '101', '', '[1,5)', '{[1.5,2),[3,)}', '<a/>', '(1,2)', '-1.5',
  '[0:1]={1,NULL}', '{"a,b",NULL,"\"\\",""}', '{1.10,NaN}', 'so so', '{good,"so so"}', 5, '(1,"x y")', 'pg_class', 'odd'),
 (2, NULL, NULL, NULL, NULL, '1e-300', '123456789012345678901234567890.0001', NULL, '', NULL, NULL, '', '-infinity', NULL, NULL, NULL,
  '-infinity', NULL, 'null', 'null', '-00:00:01', NULL, NULL, NULL, '1', 'empty', '{}', NULL, NULL, NULL, '{}', '{{a,b},{c,d}}', NULL, NULL, NULL,
  NULL, '(,)', NULL, '\N');
INSERT INTO log VALUES ('2026-01-01', '{}', 'x'), ('2026-01-01', '{}', 'x'), (NULL, NULL, NULL);
"#;

struct Scene {
    world: World,
    source: Client,
    copy: Client,
    target: Database,
    _database: Database,
}

async fn scene() -> Option<Scene> {
    let (database, target) = (database().await?, database().await?);
    let (source, copy) = (database.client().await, target.client().await);
    source.batch_execute(TYPES).await.unwrap();
    source.batch_execute(VALUES).await.unwrap();
    source.batch_execute("CREATE PUBLICATION p FOR TABLE v, log").await.unwrap();
    let world = World::new(database.name(), &database.url());
    Some(Scene { world, source, copy, target, _database: database })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_and_types_are_the_same_in_the_target() {
    let Some(Scene { world, source, copy, target: place, _database }) = scene().await else { return };
    let own = TYPES.split("CREATE TABLE").next().unwrap_or_default();
    copy.batch_execute(own).await.unwrap();
    let config = || PostgresTargetConfig::new(place.url());
    let running = start(&world, config()).await;
    caught_up(&running).await;
    // What names something in the source's catalog is text.
    copy.batch_execute("ALTER TABLE v ALTER rc TYPE regclass USING rc::regclass").await.unwrap();
    for table in ["public.v", "public.log"] {
        equal(&source, &copy, table).await;
    }
    copy.batch_execute("ALTER TABLE v ALTER rc TYPE text").await.unwrap();
    let changes = r#"
        UPDATE v SET id = id + 10, t = 'moved'; INSERT INTO v (id) VALUES (1); DELETE FROM v WHERE id = 12;
        DELETE FROM log WHERE ctid = (SELECT min(ctid) FROM log); UPDATE log SET note = 'y' WHERE at IS NULL"#;
    source
        .batch_execute(VALUES.replace("(1, true", "(3, false").replace("(2, NULL", "(4, true").as_str())
        .await
        .unwrap();
    source.batch_execute(changes).await.unwrap();
    stop(running).await;
    source
        .batch_execute("UPDATE v SET f8 = '0.1' WHERE id = 13; ALTER TABLE v ADD more int[] DEFAULT '{1,2}'")
        .await
        .unwrap();
    source.batch_execute("UPDATE v SET more = NULL WHERE id = 11").await.unwrap();
    let running = start(&world, config()).await;
    caught_up(&running).await;
    copy.batch_execute("ALTER TABLE v ALTER rc TYPE regclass USING rc::regclass").await.unwrap();
    for table in ["public.v", "public.log"] {
        equal(&source, &copy, table).await;
    }
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_the_target_lacks_is_its_text() {
    let Some(Scene { world, source, copy, target: place, _database }) = scene().await else { return };
    let running = start(&world, PostgresTargetConfig::new(place.url())).await;
    caught_up(&running).await;
    source.batch_execute("UPDATE v SET ea = '{good}', co = '(2,)' WHERE id = 2").await.unwrap();
    caught_up(&running).await;
    let query = "SELECT concat_ws('|', id, e::text, ea::text, po::text, co::text, rc::text) FROM v ORDER BY id";
    assert_eq!(texts(&copy, query).await, texts(&source, query).await);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_sessions_write_than_the_config_says() {
    let Some(Scene { world, source, copy, target: place, _database }) = scene().await else { return };
    for table in 0..6 {
        let sql = format!(
            "CREATE TABLE t{table} AS SELECT g AS id, repeat('x', 100) AS v FROM generate_series(1, 5000) g; ALTER PUBLICATION p ADD TABLE t{table}"
        );
        source.batch_execute(&sql).await.unwrap();
    }
    let config = PostgresTargetConfig { connections: 1, ..PostgresTargetConfig::new(place.url()) };
    let running = start(&world, config).await;
    let counting = async {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'etl destination' AND datname = current_database()";
        let mut most = 0;
        loop {
            most = most.max(copy.query_one(query, &[]).await.unwrap().get::<_, i64>(0));
            if running.handle().status().tables.iter().all(|table| table.phase == "ready") {
                return most;
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), counting).await.unwrap(), 1);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_is_reached_over_tls_and_one_that_cannot_be_written_is_refused() {
    let Some(server) = dedicated(LocalPostgres::builder().password("hunter2").tls()).await else { return };
    let world = World::new("tls", &server.url());
    let tls =
        |ca: Option<std::path::PathBuf>| TlsOptions { mode: Some(TlsMode::VerifyCa), ca, ..TlsOptions::default() };
    let with = |tls| PostgresTargetConfig { tls: Some(tls), ..PostgresTargetConfig::new(server.url()) };
    let trusted = target(&world, with(tls(server.authority().map(Into::into))));
    trusted.check_connection().await.unwrap();
    let error = target(&world, with(tls(None))).check_connection().await.unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    server.configure("default_transaction_read_only", "on").await.unwrap();
    let refused = async {
        loop {
            if let Err(error) = trusted.check_connection().await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(30), refused).await.unwrap();
    assert_eq!(error.kind(), etl::ErrorKind::Config, "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("primary")), "{error}");
}

const MANY: i64 = 40_000;

/// Counts until everything is there; whether a part of the transaction was ever seen.
async fn sees_a_part(copy: &Client) -> bool {
    let mut is_part = false;
    loop {
        let row = copy.query_one("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM notes)", &[]).await.unwrap();
        match (row.get::<_, i64>(0), row.get::<_, i64>(1)) {
            (0, 0) => {}
            (MANY, MANY) => return is_part,
            _ => is_part = true,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Ends the session that holds the open transaction.
async fn cut(copy: &Client) {
    let cut = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
        AND application_name = 'etl destination' AND state = 'idle in transaction' AND xact_start < now() - interval '50 ms') c";
    while copy.query_one(cut, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_larger_than_a_batch_is_seen_whole_or_not_at_all_where_that_is_asked_for() {
    for atomic in [Atomic::Batch, Atomic::Always] {
        let (Some(database), Some(place)) = (database().await, database().await) else { return };
        let (source, copy, watcher) = (database.client().await, place.client().await, place.client().await);
        let tables = "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE notes (v int); CREATE TABLE other (id int PRIMARY KEY);
                      ALTER TABLE notes REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE t, notes, other";
        source.batch_execute(tables).await.unwrap();
        let world = World::new(database.name(), &database.url());
        // With one session, and tables that are met anew in the middle of the transaction.
        let config = || PostgresTargetConfig { atomic, connections: 1, ..PostgresTargetConfig::new(place.url()) };
        let running = start(&world, config()).await;
        caught_up(&running).await;
        stop(running).await;
        let running = start(&world, config()).await;
        let seeing = tokio::spawn(async move { sees_a_part(&watcher).await });
        let sql = format!(
            "BEGIN; INSERT INTO t SELECT g, g FROM generate_series(1, {MANY}) g; UPDATE t SET v = -v WHERE id % 7 = 0;
             INSERT INTO notes SELECT g FROM generate_series(1, {MANY}) g; DELETE FROM t WHERE id % 1000 = 0;
             INSERT INTO t SELECT g, 0 FROM generate_series(1000, {MANY}, 1000) g; COMMIT; INSERT INTO other VALUES (1)"
        );
        source.batch_execute(&sql).await.unwrap();
        if atomic == Atomic::Always {
            cut(&copy).await;
            // A table that leaves in the middle of it takes nothing of it with it.
            let row = source.query_one("SELECT 'other'::regclass::oid", &[]).await.unwrap();
            let other = TableId(row.get(0));
            running.handle().pause(other).await.unwrap();
            cut(&copy).await;
            running.handle().resume(other).await.unwrap();
        }
        let seen = tokio::time::timeout(Duration::from_secs(120), seeing).await.unwrap().unwrap();
        assert_eq!(seen, atomic == Atomic::Batch, "{atomic:?}");
        caught_up(&running).await;
        stop(running).await;
        for table in ["public.t", "public.notes", "public.other"] {
            equal(&source, &copy, table).await;
        }
    }
}
