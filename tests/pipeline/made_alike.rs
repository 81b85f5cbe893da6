//! Does another Postgres get the source's indexes, defaults and identity columns, where that is asked for?

use std::sync::Arc;

use etl::pipeline::RunningPipeline;
use etl_destinations::postgres::{Create, Postgres, PostgresTargetConfig};
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::running::{World, caught_up, started, stop};

const TABLE: &str = r#"
CREATE SEQUENCE apart; CREATE FUNCTION own(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n serial, u text UNIQUE, a int DEFAULT 5,
    at timestamptz DEFAULT now(), c int DEFAULT own(1), "d d" text DEFAULT 'x''y', e int DEFAULT nextval('apart'),
    twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE INDEX by_a ON t (a DESC) INCLUDE ("d d") WITH (fillfactor = 70) WHERE a > 0; CREATE INDEX by_hash ON t USING hash ("d d");
CREATE UNIQUE INDEX by_lower ON t (lower(u)); CREATE UNIQUE INDEX by_both ON t (a, n);
CREATE INDEX by_own ON t (own(a)); CREATE INDEX by_twice ON t (twice);
INSERT INTO t (u) SELECT 'u' || g FROM generate_series(1, 300) g;
CREATE PUBLICATION p FOR TABLE t"#;

const ALL: Create = Create { indexes: true, defaults: true, identity: true };

const INDEXES: &str = "SELECT string_agg(indexdef, E'\n' ORDER BY indexname) FROM pg_indexes WHERE tablename = 't'";

/// The unique ones that are looked at when a transaction ends.
const DEFERRED: &str = "SELECT coalesce(string_agg(conname, ' ' ORDER BY conname), '') FROM pg_constraint
    WHERE conrelid = 't'::regclass AND contype = 'u' AND condeferrable AND condeferred";

const DEFAULTS: &str = "SELECT coalesce(string_agg(concat_ws(' ', attname, pg_get_expr(adbin, adrelid), nullif(attidentity::text, '')), ', ' ORDER BY attname), '')
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = 't'::regclass AND (d.oid IS NOT NULL OR attidentity <> '')";

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

struct Scene {
    world: World,
    source: Client,
    copy: Client,
    place: Database,
    _database: Database,
}

impl Scene {
    async fn new() -> Option<Self> {
        let (database, place) = (database().await?, database().await?);
        let (source, copy) = (database.client().await, place.client().await);
        source.batch_execute(TABLE).await.unwrap();
        let world = World::new(database.name(), &database.url());
        Some(Self { world, source, copy, place, _database: database })
    }

    async fn start(&self, mode: WriteMode, create: Create) -> RunningPipeline {
        let target = || {
            let config = PostgresTargetConfig { create, connections: 1, ..PostgresTargetConfig::new(self.place.url()) };
            let defaults = RuleSettings { write_mode: Some(mode), ..RuleSettings::default() };
            let rules = TableRules { defaults, rules: Vec::new() };
            Postgres::with_config(config, Arc::clone(&self.world.store), rules).unwrap()
        };
        let running = started(|| self.world.pipeline_into(target())).await.unwrap();
        caught_up(&running).await;
        running
    }

    async fn is_equal(&self) {
        let rows = "SELECT string_agg(concat_ws(' ', id, n, u, a, at, c, \"d d\", e), ',' ORDER BY id) FROM t";
        assert_eq!(text(&self.copy, rows).await, text(&self.source, rows).await);
    }
}

/// As the source has them, by name.
fn expected(indexes: &str, leaves_out: &[&str], not_unique: &[&str]) -> String {
    let is_left_out = |line: &str| leaves_out.iter().any(|name| line.contains(&format!(" {name} ON ")));
    let is_plain = |line: &str| not_unique.iter().any(|name| line.contains(&format!(" {name} ON ")));
    let line = |line: &str| if is_plain(line) { line.replace("CREATE UNIQUE", "CREATE") } else { line.to_owned() };
    indexes.lines().filter(|line| !is_left_out(line)).map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_gets_the_indexes_defaults_and_identity_of_the_source_once_its_rows_are_there() {
    let Some(scene) = Scene::new().await else { return };
    let (source, copy) = (&scene.source, &scene.copy);
    let running = scene.start(WriteMode::Upsert, ALL).await;
    let wanted = expected(&text(source, INDEXES).await, &["by_own", "by_twice"], &["by_lower"]);
    assert_eq!(text(copy, INDEXES).await, wanted);
    assert_eq!(text(copy, DEFERRED).await, "by_both t_u_key");
    // A function and a sequence that the target lacks are no default there; `serial` is an identity.
    assert_eq!(text(copy, DEFAULTS).await, "a 5, at now(), d d 'x''y'::text, id d, n d");
    // Values change places, so that the rows of the batch are unique at its end alone.
    source
        .batch_execute(
            "UPDATE t SET u = 'between' WHERE id = 1; UPDATE t SET u = 'u1' WHERE id = 2; UPDATE t SET u = 'u2' WHERE id = 1;
             DELETE FROM t WHERE id = 3; INSERT INTO t (u) VALUES ('u3')",
        )
        .await
        .unwrap();
    caught_up(&running).await;
    scene.is_equal().await;

    let table = running.handle().status().tables[0].id;
    running.handle().resync(table).await.unwrap();
    caught_up(&running).await;
    stop(running).await;
    let running = scene.start(WriteMode::Upsert, ALL).await;
    assert_eq!((text(copy, INDEXES).await, text(copy, DEFERRED).await), (wanted, "by_both t_u_key".to_owned()));
    scene.is_equal().await;
    stop(running).await;

    // As the page says of a move to the target.
    let moved = "SELECT setval(pg_get_serial_sequence('public.t', 'id'), (SELECT max(id) FROM public.t));
                 SELECT setval(pg_get_serial_sequence('public.t', 'n'), (SELECT max(n) FROM public.t));
                 INSERT INTO t (u) VALUES ('written there')";
    copy.batch_execute(moved).await.unwrap();
    assert_eq!(
        text(copy, "SELECT concat_ws(' ', id, n, a, \"d d\") FROM t WHERE u = 'written there'").await,
        "302 302 5 x'y"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_and_marked_rows_get_no_unique_index_and_nothing_is_made_unasked() {
    for (mode, create) in
        [(WriteMode::Append, ALL), (WriteMode::SoftDelete, ALL), (WriteMode::Upsert, Create::default())]
    {
        let Some(scene) = Scene::new().await else { return };
        let (source, copy) = (&scene.source, &scene.copy);
        let running = scene.start(mode, create).await;
        source.batch_execute("DELETE FROM t WHERE id = 3; INSERT INTO t (u) VALUES ('u3')").await.unwrap();
        caught_up(&running).await;
        let all = text(source, INDEXES).await;
        let not_unique = ["by_lower", "by_both", "t_u_key"];
        let (indexes, defaults) = match mode {
            WriteMode::Append => (expected(&all, &["by_own", "by_twice", "t_pkey"], &not_unique), ""),
            WriteMode::SoftDelete => {
                (expected(&all, &["by_own", "by_twice"], &not_unique), "a 5, at now(), d d 'x''y'::text, id d, n d")
            }
            WriteMode::Upsert => {
                let others = ["by_own", "by_twice", "by_a", "by_hash", "by_lower", "by_both", "t_u_key"];
                (expected(&all, &others, &[]), "")
            }
        };
        let found: Option<String> = copy.query_one(INDEXES, &[]).await.unwrap().get(0);
        assert_eq!(found.unwrap_or_default(), indexes, "{mode:?}");
        assert_eq!(text(copy, DEFAULTS).await, defaults, "{mode:?}");
        stop(running).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_row_that_is_not_unique_at_the_end_of_a_transaction_stops_its_table_alone() {
    let Some(scene) = Scene::new().await else { return };
    let (source, copy) = (&scene.source, &scene.copy);
    source
        .batch_execute("CREATE TABLE others (id int PRIMARY KEY); ALTER PUBLICATION p ADD TABLE others")
        .await
        .unwrap();
    let running = scene.start(WriteMode::Upsert, ALL).await;
    copy.batch_execute("INSERT INTO t (id, n, u) VALUES (9999, 9999, 'written there')").await.unwrap();
    source.batch_execute("INSERT INTO t (u) VALUES ('written there'); INSERT INTO others VALUES (1)").await.unwrap();
    caught_up(&running).await;
    let status = running.handle().status();
    let phases: Vec<(&str, &str)> = status.tables.iter().map(|table| (&*table.name.name, table.phase)).collect();
    assert_eq!(phases, [("others", "ready"), ("t", "quarantined")]);
    assert_eq!(text(copy, "SELECT count(*)::text FROM others").await, "1");
    stop(running).await;
}
