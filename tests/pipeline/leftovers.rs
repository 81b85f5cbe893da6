//! What do dead pipelines leave at the source, and is it told from what the living need?

use etl::ErrorKind;
use etl::source::{Leftover, SourceConfig, Standing, leftovers, remove_leftover};
use etl_local_postgres::LocalPostgres;
use harness::postgres::{client, dedicated};

use crate::running::{World, caught_up, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_dead_have_left_goes_and_what_the_living_need_stays() {
    let builder = LocalPostgres::builder().setting("max_slot_wal_keep_size", "1MB").setting("min_wal_size", "32MB");
    let Some(server) = dedicated(builder.setting("max_wal_size", "32MB")).await else { return };
    let at = client(&server.url()).await;
    let tables =
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE filler (t text); CREATE PUBLICATION etl_by_hand FOR TABLE t;
        CREATE PUBLICATION p FOR TABLE t; CREATE PUBLICATION etl_gone FOR TABLE t;
        COMMENT ON PUBLICATION etl_gone IS 'etl: kept by a pipeline, which makes it anew';
        SELECT pg_create_physical_replication_slot('etl_phys')";
    at.batch_execute(tables).await.unwrap();
    at.batch_execute("SELECT pg_create_logical_replication_slot('etl_lost', 'pgoutput')").await.unwrap();
    let lost = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = 'etl_lost'";
    while !at.query_one(lost, &[]).await.unwrap().get::<_, bool>(0) {
        at.batch_execute("INSERT INTO filler SELECT repeat('x', 900) FROM generate_series(1, 9000)").await.unwrap();
        at.batch_execute("SELECT pg_switch_wal(); CHECKPOINT").await.unwrap();
    }
    at.batch_execute("SELECT pg_create_logical_replication_slot('etl_asleep', 'pgoutput')").await.unwrap();
    let mut world = World::new("alive", &server.url());
    world.tables = vec!["public.t".to_owned()];
    let running = world.start().await;
    caught_up(&running).await;

    let source = SourceConfig::from_url(&server.url()).unwrap();
    let found = leftovers(&source, "mine").await.unwrap();
    let standing = |found: &[Leftover], name: &str| -> Vec<Standing> {
        found.iter().filter(|leftover| leftover.name == name).map(|leftover| leftover.standing).collect()
    };
    for (name, expected) in [
        ("etl_lost", &[Standing::Dead][..]),
        ("etl_asleep", &[Standing::Asleep]),
        ("etl_alive", &[Standing::Live, Standing::Live]),
        ("etl_gone", &[Standing::Dead]),
        ("etl_by_hand", &[Standing::Asleep]),
        ("etl_phys", &[]),
        ("p", &[]),
    ] {
        assert_eq!(standing(&found, name), expected, "{name}: {found:?}");
    }
    let mine = leftovers(&source, "asleep").await.unwrap();
    assert_eq!(standing(&mine, "etl_asleep"), [Standing::Live], "the pipeline that asks is alive");

    for leftover in &found {
        let removed = remove_leftover(&source, "mine", leftover).await;
        match leftover.standing {
            Standing::Live => assert_eq!(removed.unwrap_err().kind(), ErrorKind::Config, "{leftover:?}"),
            _ => removed.unwrap(),
        }
    }
    let left = leftovers(&source, "mine").await.unwrap();
    assert!(left.iter().all(|leftover| leftover.pipeline() == "alive"), "{left:?}");
    at.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&at, &["t"]).await;
    stop(running).await;
}
