//! Is a standby read without losing a row, and does the stream go on after a failover?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etl::source::{Severity, SourceConfig, check};
use etl_local_postgres::{LocalPostgres, Shutdown};
use harness::postgres::{client, dedicated};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::identity::{all_ready, generations, of, refused, resynced, two_tables};
use crate::running::{World, caught_up, stop};

/// Both know the same: their clients, and whoever asks the primary to speak of open transactions.
struct Pair {
    primary: LocalPostgres,
    standby: LocalPostgres,
    at_primary: Client,
    at_standby: Client,
    nudge: JoinHandle<()>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.nudge.abort();
    }
}

impl Pair {
    /// `None` before the version from which standbys can do what is wanted.
    async fn start(since: u16, own: &[(&str, &str)]) -> Option<Self> {
        let primary = dedicated(LocalPostgres::builder()).await?;
        if primary.major() < since {
            harness::skip::inapplicable(&format!("this needs Postgres {since}"));
            return None;
        }
        primary.psql("SELECT pg_create_physical_replication_slot('phys', true)").await.unwrap();
        let settings = [("hot_standby_feedback", "on"), ("primary_slot_name", "phys")];
        let settings: Vec<_> = settings.into_iter().chain(own.iter().copied()).collect();
        let standby = primary.standby(&settings).await.unwrap();
        let (at_primary, at_standby) = (client(&primary.url()).await, client(&standby.url()).await);
        let asker = client(&primary.url()).await;
        let nudge = tokio::spawn(async move {
            while asker.batch_execute("SELECT pg_log_standby_snapshot()").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        Some(Self { primary, standby, at_primary, at_standby, nudge })
    }

    /// Waits until the standby has what the primary has now.
    async fn is_replayed(&self) {
        let query = "SELECT pg_current_wal_lsn()::text";
        let at: String = self.at_primary.query_one(query, &[]).await.unwrap().get(0);
        let query = format!("SELECT pg_last_wal_replay_lsn() >= '{at}'");
        wait_for(&self.at_standby, &query).await;
    }
}

async fn wait_for(client: &Client, query: &str) {
    for _ in 0..600 {
        if client.query_one(query, &[]).await.unwrap().get::<_, Option<bool>>(0) == Some(true) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {query}");
}

/// Writers at the primary, at work while tables are copied from the standby: a row that is in neither snapshot nor
/// stream, or in both, is seen afterwards. Then the standby becomes a primary under the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_a_standby_is_read_while_its_primary_is_written_and_promoted_later() {
    let Some(pair) = Pair::start(16, &[]).await else { return };
    let tables = "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id bigserial, v text);
        ALTER TABLE b REPLICA IDENTITY FULL; INSERT INTO a SELECT g, 'a' FROM generate_series(1, 5000) g;
        INSERT INTO b (v) SELECT 'b' FROM generate_series(1, 5000); CREATE PUBLICATION p FOR TABLE a, b";
    pair.at_primary.batch_execute(tables).await.unwrap();
    pair.is_replayed().await;
    let writer = client(&pair.primary.url()).await;
    let enough = Arc::new(AtomicBool::new(false));
    let writes = tokio::spawn({
        let enough = Arc::clone(&enough);
        async move {
            for n in 0_i32.. {
                if enough.load(Ordering::Relaxed) {
                    return;
                }
                let write = format!(
                "BEGIN; INSERT INTO a VALUES ({0}, 'x'); UPDATE a SET v = v || '{n}' WHERE id % 97 = {n} % 97; SELECT pg_sleep(0.02);
                 INSERT INTO b (v) VALUES ('y{n}'); DELETE FROM b WHERE id = {n} * 7; COMMIT",
                10_000 + n
            );
                writer.batch_execute(&write).await.unwrap();
            }
        }
    });
    let world = World::new("shop", &pair.standby.url());
    let running = world.start().await;
    caught_up(&running).await;
    all_ready(&running).await;
    // A writer that is cut off could commit once more, after the comparison has begun.
    enough.store(true, Ordering::Relaxed);
    writes.await.unwrap();
    pair.is_replayed().await;
    caught_up(&running).await;
    world.assert_equal(&pair.at_standby, &["a", "b"]).await;
    assert!(running.handle().status().source.unwrap().is_standby);
    assert!(pair.at_standby.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap().get::<_, bool>(0));

    pair.standby.promote().await.unwrap();
    pair.at_standby
        .batch_execute("INSERT INTO a VALUES (1000000, 'promoted'); DELETE FROM b WHERE id < 500")
        .await
        .unwrap();
    caught_up(&running).await;
    world.assert_equal(&pair.at_standby, &["a", "b"]).await;
    stop(running).await;
    let running = world.start().await;
    pair.at_standby.batch_execute("UPDATE a SET v = 'again' WHERE id < 100").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&pair.at_standby, &["a", "b"]).await;
    stop(running).await;
    assert_eq!(generations(&world).await, of(1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_cannot_be_read_so_is_refused() {
    let Some(primary) = dedicated(LocalPostgres::builder()).await else { return };
    let standby = primary.standby(&[]).await.unwrap();
    let mut world = World::new("shop", &standby.url());
    world.tables = vec!["public.*".to_owned()];
    let error = world.refusal().await;
    let expected = if standby.major() < 16 { "from version 16 on" } else { "nothing can be published" };
    assert!(error.to_string().contains(expected), "{error}");
}

const SYNC: &[(&str, &str)] = &[("sync_replication_slots", "on")];

fn source_of(pair: &Pair) -> String {
    let Pair { primary, standby, .. } = pair;
    format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", primary.port(), standby.port())
}

/// Waits until the standby has the slot, as `etl check` says.
async fn has_copy(url: &str) {
    let source = SourceConfig::from_url(url).unwrap().publication("p").failover(true);
    for _ in 0..300 {
        let findings = check(&source, "etl_shop").await.unwrap();
        let is_about_it = |what: &str| what.contains("the standby") && what.contains("slot");
        if !findings.iter().any(|finding| is_about_it(&finding.what)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{:?}", check(&source, "etl_shop").await.unwrap());
}

/// The primary vanishes, the standby takes its place: the run goes on by itself, and nothing is copied again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_at_the_standby_that_has_the_slot() {
    let Some(pair) = Pair::start(17, SYNC).await else { return };
    pair.primary.configure("synchronized_standby_slots", "phys").await.unwrap();
    let mut world = World::new("shop", &source_of(&pair));
    world.failover = Some(true);
    two_tables(&world, &pair.at_primary).await;
    let missing = SourceConfig::from_url(&world.url).unwrap().publication("p").failover(true);
    let findings = check(&missing, "etl_nowhere").await.unwrap();
    assert!(findings.iter().all(|finding| finding.severity == Severity::Warning), "{findings:?}");
    let running = world.start().await;
    has_copy(&world.url).await;
    pair.at_primary.batch_execute("INSERT INTO a SELECT g, 'before' FROM generate_series(2000, 2500) g").await.unwrap();
    caught_up(&running).await;
    assert!(running.handle().status().source.unwrap().failover);

    // Somebody writes until the primary is gone: what no standby has was not sent.
    let writer = client(&pair.primary.url()).await;
    let writes = tokio::spawn(async move {
        for n in 5000_i32.. {
            let write = format!("INSERT INTO a VALUES ({n}, 'w'); UPDATE b SET v = v || '.' WHERE id = {n} % 50");
            if writer.batch_execute(&write).await.is_err() {
                return;
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    pair.primary.stop(Shutdown::Immediate).await.unwrap();
    writes.await.unwrap();
    pair.standby.promote().await.unwrap();
    let write = "INSERT INTO b SELECT g, 'after' FROM generate_series(3000, 3500) g; DELETE FROM a WHERE id < 30";
    pair.at_standby.batch_execute(write).await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&pair.at_standby, &["a", "b"]).await;
    stop(running).await;
    let running = world.start().await;
    pair.at_standby.batch_execute("INSERT INTO b VALUES (9999, 'restarted')").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&pair.at_standby, &["a", "b"]).await;
    stop(running).await;
    assert_eq!(generations(&world).await, of(1, 1));
}

/// The slot of the primary is made so at the start, once that is wanted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_follows_a_failover_once_that_is_wanted() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    let at = client(&server.url()).await;
    let mut world = World::new("shop", &server.url());
    two_tables(&world, &at).await;
    world.failover = Some(true);
    if server.major() < 17 {
        let error = world.refusal().await;
        assert!(error.to_string().contains("from version 17 on"), "{error}");
        return;
    }
    for wanted in [Some(true), None, Some(false)] {
        world.failover = wanted;
        let running = world.start().await;
        caught_up(&running).await;
        stop(running).await;
        let query = "SELECT failover FROM pg_replication_slots WHERE slot_name = 'etl_shop'";
        let found: bool = at.query_one(query, &[]).await.unwrap().get(0);
        assert_eq!(found, wanted != Some(false), "{wanted:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_without_the_slot_costs_every_table() {
    let Some(primary) = dedicated(LocalPostgres::builder()).await else { return };
    let standby = primary.standby(&[]).await.unwrap();
    let (at_primary, at_standby) = (client(&primary.url()).await, client(&standby.url()).await);
    let mut world = World::new("shop", &primary.url());
    two_tables(&world, &at_primary).await;
    let at: String = at_primary.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    wait_for(&at_standby, &format!("SELECT pg_last_wal_replay_lsn() >= '{at}'")).await;
    primary.stop(Shutdown::Immediate).await.unwrap();
    standby.promote().await.unwrap();
    world.url = standby.url();
    refused(&world, "a standby was promoted", "public.a, public.b").await;
    resynced(&world, &at_standby).await;
    assert_eq!(generations(&world).await, of(2, 2));
}

/// What the standby never received is in the destination: those tables are copied again, the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_promoted_standby_that_lacks_changes_costs_the_tables_that_have_them() {
    let Some(pair) = Pair::start(17, SYNC).await else { return };
    let mut world = World::new("shop", &source_of(&pair));
    world.failover = Some(true);
    two_tables(&world, &pair.at_primary).await;
    let running = world.start().await;
    has_copy(&world.url).await;
    let slot = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'etl_shop'";
    caught_up(&running).await;
    let confirmed: String = pair.at_primary.query_one(slot, &[]).await.unwrap().get(0);
    let copied = "SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots WHERE slot_name = 'etl_shop'";
    wait_for(&pair.at_standby, &copied.replace("{}", &confirmed)).await;
    // From here on the standby receives nothing.
    pair.standby.configure("primary_conninfo", "").await.unwrap();
    wait_for(&pair.at_standby, "SELECT count(*) = 0 FROM pg_stat_wal_receiver").await;
    pair.at_primary.batch_execute("INSERT INTO a VALUES (500, 'never was'); DELETE FROM a WHERE id = 3").await.unwrap();
    caught_up(&running).await;
    pair.primary.stop(Shutdown::Immediate).await.unwrap();
    pair.standby.promote().await.unwrap();
    // The run meets it when it connects again, and says the same.
    let ended = tokio::time::timeout(Duration::from_secs(60), running.wait()).await.unwrap();
    let error = ended.unwrap_err();
    assert_eq!(error.context("copy again"), Some("public.a"), "{error}");
    pair.at_standby.batch_execute("INSERT INTO b VALUES (600, 'of the new primary')").await.unwrap();
    refused(&world, "the source's history is not the one that was read", "public.a").await;
    resynced(&world, &pair.at_standby).await;
    assert_eq!(generations(&world).await, of(2, 1));
}

/// The slot on the standby follows an idle database, so that the standby lets go of its WAL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_the_slot_of_a_standby_follows_where_only_others_write() {
    let Some(pair) = Pair::start(16, &[]).await else { return };
    let tables =
        "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE other (t text); CREATE PUBLICATION p FOR TABLE a";
    pair.at_primary.batch_execute(tables).await.unwrap();
    pair.is_replayed().await;
    let world = World::new("shop", &pair.standby.url());
    let running = world.start().await;
    caught_up(&running).await;
    pair.at_primary
        .batch_execute("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
        .await
        .unwrap();
    let at: String = pair.at_primary.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let follows =
        format!("SELECT confirmed_flush_lsn >= '{at}' FROM pg_replication_slots WHERE slot_name = 'etl_shop'");
    wait_for(&pair.at_standby, &follows).await;
    let check = check(&SourceConfig::from_url(&world.url).unwrap().publication("p"), "etl_shop").await.unwrap();
    assert!(check.iter().all(|finding| !finding.what.contains("what this standby still reads")), "{check:?}");
    pair.standby.configure("hot_standby_feedback", "off").await.unwrap();
    let check =
        etl::source::check(&SourceConfig::from_url(&world.url).unwrap().publication("p"), "etl_shop").await.unwrap();
    assert!(check.iter().any(|finding| finding.hint.contains("hot_standby_feedback")), "{check:?}");
    stop(running).await;
}
