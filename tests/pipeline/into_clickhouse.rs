//! Is ClickHouse the same as the source, value by value, copied and streamed?

use std::sync::Arc;
use std::time::Duration;

use etl::destination::Destination;
use etl::pipeline::RunningPipeline;
use etl::{ErrorKind, Secret};
use etl_destinations::clickhouse::{ClickHouse, ClickHouseConfig};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use etl_local_postgres::LocalPostgres;
use harness::clickhouse::{self, clickhouse, equal};
use harness::postgres::{Database, database, dedicated};
use tokio::net::TcpListener;
use tokio_postgres::Client;

use crate::running::{World, caught_up, started, stop};

fn config(place: &clickhouse::ClickHouse) -> ClickHouseConfig {
    ClickHouseConfig { database_prefix: place.prefix().to_owned(), ..ClickHouseConfig::new(place.url()) }
}

fn target(world: &World, config: ClickHouseConfig) -> TableDestination<ClickHouse> {
    ClickHouse::with_config(config, Arc::clone(&world.store), TableRules::default()).unwrap()
}

async fn start(world: &World, config: ClickHouseConfig) -> RunningPipeline {
    started(|| world.pipeline_into(target(world, config.clone()))).await.unwrap()
}

/// What ClickHouse can hold exactly, of every kind.
const TABLES: &str = r#"
CREATE TYPE mood AS ENUM ('so so', 'good'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE v (id bigint PRIMARY KEY, b bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, n2 numeric(30, 6),
  n3 numeric(76, 40), t text, c char(5), vc varchar(9), y bytea, d date, tm time(3), tz timetz, ts timestamp, tstz timestamptz(3),
  u uuid, j json, jb jsonb, iv interval, ip inet, m macaddr, bits bit(3), vb varbit, r int4range, mr nummultirange, p point,
  ia int4[], ta text[], na numeric[], e mood, ea mood[], po positive, co pair, "ö ""`\d" text);
CREATE TABLE log (at timestamptz, j json, note text); ALTER TABLE log REPLICA IDENTITY FULL;
CREATE PUBLICATION p FOR TABLE v, log
"#;

const VALUES: &str = r#"
INSERT INTO v VALUES
 (1, true, -32768, 9223372036854775807, '-0', 'NaN', 'NaN', '0.100000',
  '-999999999999999999999999999999999999.9999999999999999999999999999999999999999', E'a\tb\\c\nd\r', 'ab', 'ü', '\x00ff', '1900-01-01', '24:00',
  '12:00:00+05:30', '1900-01-01 00:00:00', '2299-12-31 23:59:59.999+00', '00000000-0000-0000-0000-000000000000', '{"a":  1, "a": 2}',
  '{"b": null}', '1 mon -3 days 04:05:06.7', '::1/64', '08:00:2b:01:02:03', '101', '', '[1,5)', '{[1.5,2),[3,)}', '(1,2)',
  '[0:1]={1,NULL}', '{"a,b",NULL,"\"\\",""}', '{1.10,NaN}', 'so so', '{good,"so so"}', 5, '(1,"x y")', 'odd'),
 (2, NULL, NULL, NULL, NULL, '1e-300', '123456789012345678901234567890.0001', NULL, NULL, '', NULL, NULL, '', '2299-12-31', NULL, NULL, NULL,
  NULL, NULL, 'null', 'null', '-00:00:01', NULL, NULL, NULL, '1', 'empty', '{}', NULL, '{}', '{{a,b},{c,d}}', NULL, NULL, NULL,
  NULL, '(,)', '\N');
INSERT INTO log VALUES ('2026-01-01', '{}', 'x'), ('2026-01-01', '{}', 'x'), (NULL, NULL, NULL);
"#;

struct Scene {
    world: World,
    source: Client,
    place: clickhouse::ClickHouse,
    _database: Database,
}

async fn scene() -> Option<Scene> {
    let (database, place) = (database().await?, clickhouse().await?);
    let source = database.client().await;
    source.batch_execute(TABLES).await.unwrap();
    source.batch_execute(VALUES).await.unwrap();
    let world = World::new(database.name(), &database.url());
    Some(Scene { world, source, place, _database: database })
}

async fn assert_equal(Scene { source, place, .. }: &Scene) {
    for table in ["v", "log"] {
        equal(source, place, table).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_the_same_in_clickhouse_copied_and_streamed() {
    let Some(scene) = scene().await else { return };
    let Scene { world, source, place, .. } = &scene;
    let running = start(world, config(place)).await;
    caught_up(&running).await;
    assert_equal(&scene).await;
    let again = VALUES.replace("(1, true", "(3, false").replace("(2, NULL", "(4, true");
    source.batch_execute(&again).await.unwrap();
    let changes = r#"
        UPDATE v SET id = id + 10, t = 'moved'; INSERT INTO v (id) VALUES (1); DELETE FROM v WHERE id = 12;
        DELETE FROM log WHERE ctid = (SELECT min(ctid) FROM log); UPDATE log SET note = 'y' WHERE at IS NULL"#;
    source.batch_execute(changes).await.unwrap();
    stop(running).await;
    // Of what lies out of line only the rest is sent.
    let long = "UPDATE v SET t = (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 5000) g) WHERE id = 13";
    source.batch_execute(long).await.unwrap();
    source.batch_execute("UPDATE v SET i2 = 7 WHERE id = 13; ALTER TABLE v ADD more int DEFAULT 5").await.unwrap();
    source.batch_execute("UPDATE v SET more = NULL WHERE id = 11; ALTER TABLE v RENAME vc TO called").await.unwrap();
    source.batch_execute("ALTER TABLE v DROP mr; UPDATE v SET called = 'x' WHERE id = 14").await.unwrap();
    let running = start(world, config(place)).await;
    caught_up(&running).await;
    assert_equal(&scene).await;
    source
        .batch_execute("TRUNCATE v, log; INSERT INTO v (id, po) VALUES (1, 1); INSERT INTO log VALUES (NULL)")
        .await
        .unwrap();
    caught_up(&running).await;
    assert_equal(&scene).await;
    stop(running).await;
}

/// As many columns as Postgres has, with names as long as it takes.
fn wide() -> String {
    let columns = (2..1600).map(|number| format!("\"{number:_<63}\" int")).collect::<Vec<_>>().join(", ");
    format!(
        "CREATE TABLE wide (id int PRIMARY KEY, big text, {columns}); ALTER TABLE wide ALTER big SET STORAGE EXTERNAL;
         INSERT INTO wide SELECT g, repeat('b', 5000), 1, 2 FROM generate_series(1, 3) g; CREATE PUBLICATION p FOR TABLE wide"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_has_as_many_columns_as_the_source_lets_it_have() {
    let (Some(database), Some(place)) = (database().await, clickhouse().await) else { return };
    let (source, world) = (database.client().await, World::new(database.name(), &database.url()));
    source.batch_execute(&wide()).await.unwrap();
    let defaults = RuleSettings { write_mode: Some(WriteMode::SoftDelete), ..RuleSettings::default() };
    let rules = TableRules { defaults, rules: Vec::new() };
    let destination = ClickHouse::with_config(config(&place), Arc::clone(&world.store), rules).unwrap();
    let running = world.pipeline_into(destination).start().await.unwrap();
    caught_up(&running).await;
    assert_eq!(equal(&source, &place, "wide").await.unwrap(), 3);
    let set = format!("\"{:_<63}\" = 7", 1599);
    // The first is completed from what is there, the second is marked.
    let changes =
        format!("UPDATE wide SET {set} WHERE id = 1; DELETE FROM wide WHERE id = 2; INSERT INTO wide VALUES (4)");
    source.batch_execute(&changes).await.unwrap();
    caught_up(&running).await;
    stop(running).await;
    let marked =
        format!("SELECT toString(id), big FROM {}public.wide_current WHERE _CHANGE_TYPE = 'DELETE'", place.prefix());
    assert_eq!(place.query(&marked).await.unwrap(), [[Some("2".to_owned()), Some("b".repeat(5000))]]);
    place.run(&format!("DELETE FROM {}public.wide WHERE id = 2", place.prefix())).await.unwrap();
    assert_eq!(equal(&source, &place, "wide").await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_clickhouse_cannot_hold_stops_its_table_alone() {
    let Some(scene) = scene().await else { return };
    let Scene { world, source, place, .. } = &scene;
    let running = start(world, config(place)).await;
    caught_up(&running).await;
    source.batch_execute("INSERT INTO v (id, d) VALUES (5, '1899-12-31')").await.unwrap();
    source.batch_execute("INSERT INTO log VALUES ('2026-01-02', NULL, 'goes on')").await.unwrap();
    let stopped = async {
        loop {
            let status = running.handle().status();
            if let Some(table) = status.tables.iter().find(|table| table.phase == "quarantined") {
                return format!("{table:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(60), stopped).await.unwrap();
    for part in ["public.v", "date", "out of range"] {
        assert!(told.contains(part), "{told}");
    }
    let goes_on = async {
        while equal(source, place, "log").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), goes_on).await.unwrap();
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_called_as_the_config_says() {
    let Some(scene) = scene().await else { return };
    let Scene { world, place, .. } = &scene;
    let views = async || {
        let sql = format!(
            "SELECT name FROM system.tables WHERE database = '{}public' AND engine = 'View' ORDER BY name",
            place.prefix()
        );
        place.query(&sql).await.unwrap().concat().into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    let running = start(world, ClickHouseConfig { view_suffix: "_now".to_owned(), ..config(place) }).await;
    caught_up(&running).await;
    stop(running).await;
    assert_eq!(views().await, "log_now v_now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_statements_run_than_the_config_says_and_each_carries_the_settings() {
    let Some(scene) = scene().await else { return };
    let Some(server) = tokio::task::spawn_blocking(|| clickhouse::start(&[])).await.unwrap() else { return };
    let (Scene { world, source, .. }, place) = (&scene, clickhouse::ClickHouse::on(&server));
    for table in 0..6 {
        let sql = format!(
            "CREATE TABLE t{table} AS SELECT g AS id, repeat('x', 100) AS v FROM generate_series(1, 5000) g; ALTER PUBLICATION p ADD TABLE t{table}"
        );
        source.batch_execute(&sql).await.unwrap();
    }
    let running = start(world, ClickHouseConfig { connections: 1, ..config(&place) }).await;
    caught_up(&running).await;
    stop(running).await;
    assert_eq!(place.most_at_a_time().await, 1);
    let settings = [("no_such_setting".to_owned(), "1".to_owned())].into();
    let error = target(world, ClickHouseConfig { settings, ..config(&place) }).check_connection().await.unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_trusted_by_its_certificate_and_lets_in_who_it_knows() {
    let Some(postgres) = dedicated(LocalPostgres::builder().tls()).await else { return };
    if clickhouse().await.is_none() {
        return;
    }
    let files = postgres.authority().unwrap().parent().unwrap();
    let [certificate, key] = ["server.crt", "server.key"].map(|name| files.join(name).display().to_string());
    let arguments = ["--user", "etl", "--password", "hunter2", "--certificate", &certificate, "--key", &key];
    let arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
    let started = move || clickhouse::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let server = tokio::task::spawn_blocking(started).await.unwrap().unwrap();
    let world = World::new("trusted", &postgres.url());
    let known = ClickHouseConfig {
        user: "etl".to_owned(),
        password: Some(Secret::new("hunter2")),
        ca: postgres.authority().map(Into::into),
        ..ClickHouseConfig::new(format!("https://localhost:{}", server.port))
    };
    let check = async |config: ClickHouseConfig| target(&world, config).check_connection().await;
    check(known.clone()).await.unwrap();
    for (config, kind) in [
        (ClickHouseConfig { password: Some(Secret::new("sesame")), ..known.clone() }, ErrorKind::Config),
        (ClickHouseConfig { user: "somebody".to_owned(), ..known.clone() }, ErrorKind::Config),
        (ClickHouseConfig { ca: None, ..known.clone() }, ErrorKind::Tls),
        (ClickHouseConfig { ca: Some(key.into()), ..known.clone() }, ErrorKind::Tls),
    ] {
        let shown = format!("{config:?}");
        let error = match ClickHouse::with_config(config, Arc::clone(&world.store), TableRules::default()) {
            Ok(destination) => destination.check_connection().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.hint_text().is_some(), "{error}");
        assert!(!format!("{shown} {error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_after_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new("silent", "postgres://u@h/d");
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = ClickHouseConfig { timeout: Duration::from_millis(200), ..ClickHouseConfig::new(url) };
    let error = target(&world, config).check_connection().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationUnavailable, "{error}");
    assert!(error.to_string().contains("in time"), "{error}");
}
