//! Do two pipelines in opposite directions keep one table equal on both sides, and send nothing back?

use std::sync::Arc;
use std::time::Duration;

use etl::ErrorKind;
use etl::destination::Destination;
use etl::pipeline::{RunningPipeline, TableStatus};
use etl::schema::TablePatterns;
use etl::source::{Origin, SourceConfig};
use etl::transform::{ColumnChoice, TableRename, Transform, TransformRule};
use etl_destinations::postgres::{Postgres, PostgresTargetConfig};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::{Metadata, RuleSettings, TableRule, TableRules};
use harness::postgres::{Database, database};
use harness::skip::inapplicable;
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};

/// Where tables are taken as they are, and their changes alone are sent.
fn uncopied(world: &mut World) {
    let (tables, columns, rename) = (TablePatterns::new(["*.*"]), ColumnChoice::default(), TableRename::default());
    let rule = TransformRule { tables, columns, rename, filter: None, on_value: None, copy: Some(false) };
    world.transform = Transform::new(vec![rule]);
}

/// A way into the database: without metadata columns, and under origins.
fn into(world: &World, to: &Database, copy: Option<bool>) -> TableDestination<Postgres> {
    let defaults = RuleSettings { metadata: Some(Metadata::Off), ..RuleSettings::default() };
    let tables = TablePatterns::new(["*.*"]);
    let rule = TableRule { tables, write_mode: None, on_schema_change: None, metadata: None, copy };
    let config = PostgresTargetConfig { origin: true, connections: 2, ..PostgresTargetConfig::new(to.url()) };
    Postgres::with_config(config, Arc::clone(&world.store), TableRules { defaults, rules: vec![rule] }).unwrap()
}

async fn start(world: &World, to: &Database, copy: Option<bool>) -> RunningPipeline {
    let mut waits = 0;
    loop {
        match world.pipeline_into(into(world, to, copy)).start().await {
            Ok(running) => return running,
            Err(error) if matches!(error.kind(), ErrorKind::Locked | ErrorKind::SlotBusy) && waits < 2400 => {
                waits += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until the table is in quarantine.
async fn in_quarantine(running: &RunningPipeline, name: &str) -> TableStatus {
    for _ in 0..6000 {
        let mut tables = running.handle().status().tables.into_iter();
        match tables.find(|table| &*table.name.name == name && table.phase == "quarantined") {
            Some(found) => return found,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("not in quarantine: {:#?}", running.handle().status())
}

const TABLE: &str = "
CREATE TABLE t (id int PRIMARY KEY, v text, side text);
INSERT INTO t SELECT g, 'copied ' || g, 'first' FROM generate_series(1, 500) g;
CREATE PUBLICATION p FOR TABLE t";

/// Counts the rows that pipelines change.
const COUNTED: &str = "
CREATE TABLE counted (op text, id int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('application_name') = 'etl destination' THEN
        INSERT INTO public.counted VALUES (tg_op, coalesce(new.id, old.id)); END IF;
    RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()";

/// How many keys of each kind one side writes, each once.
const KEYS: i32 = 60;

/// Inserts, updates and deletes of one side: the keys of both are apart, and each is written once.
async fn write(client: &Client, side: &str, first: i32, new: i32) {
    for key in 0..KEYS {
        let (changed, gone, added) = (first + key, first + KEYS + key, new + key);
        let sql = format!(
            "BEGIN; INSERT INTO t VALUES ({added}, 'new', '{side}'); UPDATE t SET side = '{side}' WHERE id = {changed};
             DELETE FROM t WHERE id = {gone}; COMMIT"
        );
        client.batch_execute(&sql).await.unwrap();
    }
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

const ROWS: &str = "SELECT string_agg(t::text, ' ' ORDER BY id) FROM t";
const BY_PIPELINES: &str = "SELECT coalesce(string_agg(op || ' ' || n, ', ' ORDER BY op), '')
    FROM (SELECT op, count(*) AS n FROM counted GROUP BY op) c";

/// Whether the server can leave out what came by an origin.
async fn has_origins(client: &Client) -> bool {
    let version: String = text(client, "SHOW server_version_num").await;
    version.parse::<u32>().unwrap() >= 160_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pipelines_in_opposite_directions_send_what_was_written_there_and_nothing_else() {
    let (Some(here), Some(there)) = (database().await, database().await) else { return };
    let (a, b) = (here.client().await, there.client().await);
    if !has_origins(&a).await {
        return inapplicable("origins that a stream leaves out are of version 16 on");
    }
    a.batch_execute(TABLE).await.unwrap();
    let (mut forth, mut back) = (World::new(here.name(), &here.url()), World::new(there.name(), &there.url()));
    (forth.origin, back.origin) = (Origin::None, Origin::None);
    uncopied(&mut back);

    let forward = start(&forth, &there, None).await;
    caught_up(&forward).await;
    b.batch_execute("CREATE PUBLICATION every FOR ALL TABLES").await.unwrap();
    let every = SourceConfig::from_url(&there.url()).unwrap().publication("every");
    let findings = etl::source::check(&every, "x").await.unwrap();
    assert!(findings.iter().any(|finding| finding.what.contains("keeps its state")), "{findings:?}");
    b.batch_execute("DROP PUBLICATION every; CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let backward = start(&back, &here, Some(false)).await;
    caught_up(&backward).await;
    assert_eq!(text(&a, ROWS).await, text(&b, ROWS).await);
    for side in [&a, &b] {
        side.batch_execute(COUNTED).await.unwrap();
    }

    let before = forward.handle().status().changes_written;
    let killed = async {
        write(&b, "b", 201, 2000).await;
        // Cut in the middle of its work, with its sessions.
        drop(backward);
        write(&b, "b", 321, 3000).await;
        start(&back, &here, Some(false)).await
    };
    let ((), backward) = tokio::join!(write(&a, "a", 1, 1000), killed);
    for running in [&forward, &backward] {
        caught_up(running).await;
    }
    assert_eq!(text(&a, ROWS).await, text(&b, ROWS).await);
    // What came from the other side is nobody's change: each direction has sent what was written at its own source.
    assert_eq!(text(&b, BY_PIPELINES).await, format!("DELETE {KEYS}, INSERT {KEYS}, UPDATE {KEYS}"));
    assert_eq!(text(&a, BY_PIPELINES).await, format!("DELETE {0}, INSERT {0}, UPDATE {0}", 2 * KEYS));
    // Three changes a transaction, its begin and its commit.
    let sent = forward.handle().status().changes_written - before;
    assert_eq!(sent, u64::try_from(5 * KEYS).unwrap(), "events sent");
    stop(forward).await;
    stop(backward).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_not_copied_sends_what_is_committed_once_it_has_begun_and_is_never_copied_again() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLE).await.unwrap();
    let mut world = World::new(database.name(), &database.url());
    uncopied(&mut world);
    let running = world.start().await;
    caught_up(&running).await;
    let table = running.handle().status().tables[0].id;
    let ids = || -> Vec<Option<String>> {
        world.memory.rows(table).unwrap_or_default().into_iter().map(|row| row[0].clone()).collect()
    };
    let some = |ids: &[&str]| -> Vec<Option<String>> { ids.iter().map(|id| Some((*id).to_owned())).collect() };
    assert_eq!(ids(), some(&[]));
    client.batch_execute("INSERT INTO t VALUES (1000, 'new', 'a'); DELETE FROM t WHERE id = 1").await.unwrap();
    caught_up(&running).await;
    assert_eq!(ids(), some(&["1000"]));
    stop(running).await;

    // Nobody knows which changes came in which shape.
    client
        .batch_execute("ALTER TABLE t ALTER side TYPE varchar(9); INSERT INTO t VALUES (1001, 'between', 'a')")
        .await
        .unwrap();
    let running = world.start().await;
    let found = in_quarantine(&running, "t").await;
    assert!(found.error.as_ref().is_some_and(|error| error.message.contains("copy: false")), "{found:?}");
    running.handle().release(table).await.unwrap();
    caught_up(&running).await;
    client.batch_execute("INSERT INTO t VALUES (1002, 'after', 'a')").await.unwrap();
    caught_up(&running).await;
    assert_eq!(ids(), some(&["1000", "1002"]));
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_somebody_else_made_is_taken_as_it_is_where_it_fits() {
    let (Some(here), Some(there)) = (database().await, database().await) else { return };
    let (a, b) = (here.client().await, there.client().await);
    let tables = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE narrow (id int PRIMARY KEY, v int);
                  CREATE TABLE keyless (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 'here');";
    a.batch_execute(&format!("{tables} CREATE PUBLICATION p FOR TABLE t, narrow, keyless")).await.unwrap();
    let others = "CREATE TABLE t (own text NOT NULL DEFAULT 'own', v text, id int UNIQUE); INSERT INTO t VALUES (DEFAULT, 'there', 2);
                  CREATE TABLE narrow (id int PRIMARY KEY, v smallint); CREATE TABLE keyless (id int, v int)";
    b.batch_execute(others).await.unwrap();
    let mut world = World::new(here.name(), &here.url());
    uncopied(&mut world);
    let running = start(&world, &there, Some(false)).await;
    for (table, what) in [("narrow", "smallint, not integer"), ("keyless", "another key")] {
        let found = in_quarantine(&running, table).await;
        assert!(found.error.as_ref().is_some_and(|error| error.message.contains(what)), "{found:?}");
    }
    a.batch_execute("INSERT INTO t VALUES (3, 'new'); UPDATE t SET v = 'changed' WHERE id = 1").await.unwrap();
    caught_up(&running).await;
    let rows = "SELECT string_agg(concat_ws(' ', id, v, own), ', ' ORDER BY id) FROM t";
    assert_eq!(text(&b, rows).await, "1 changed own, 2 there own, 3 new own");
    assert_eq!(text(&b, "SELECT count(*)::text FROM _etl.tables").await, "0");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_write_under_an_origin_is_told_what_to_grant_and_one_that_is_held_is_waited_for() {
    let (Some(here), Some(there)) = (database().await, database().await) else { return };
    let (a, b) = (here.client().await, there.client().await);
    a.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION p FOR TABLE t")
        .await
        .unwrap();
    let (world, role) = (World::new(here.name(), &here.url()), there.name());
    let role = format!("{role}_writer");
    let made = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT CREATE ON DATABASE {} TO {role};
             GRANT ALL ON SCHEMA public TO {role}",
        there.name()
    );
    b.batch_execute(&made).await.unwrap();
    let as_role = format!("postgres://{role}:x@{}/{}", there.address(), there.name());
    let config = PostgresTargetConfig { origin: true, connections: 1, ..PostgresTargetConfig::new(as_role) };
    let open = || Postgres::with_config(config.clone(), Arc::clone(&world.store), TableRules::default()).unwrap();
    let error = open().check_connection().await.unwrap_err();
    assert!(error.hint_text().is_some_and(|hint| hint.contains("GRANT EXECUTE")), "{error}");
    let grant =
        "GRANT EXECUTE ON FUNCTION pg_replication_origin_create(text), pg_replication_origin_session_setup(text) TO";
    b.batch_execute(&format!("{grant} {role}")).await.unwrap();
    open().check_connection().await.unwrap();

    let first = open();
    first.startup().await.unwrap();
    let running = world.pipeline_into(open()).start();
    let (running, ()) = tokio::join!(running, async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(first);
    });
    let running = running.unwrap();
    caught_up(&running).await;
    assert_eq!(text(&b, "SELECT count(*)::text FROM t").await, "1");
    stop(running).await;
    b.batch_execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await.unwrap();
}
