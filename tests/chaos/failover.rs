//! Does the workload end equal while primaries crash, one after the other, and standbys take their places?

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etl_local_postgres::{LocalPostgres, Shutdown};
use harness::postgres::{client, dedicated};
use harness::workload::{TABLES, Workload};

use crate::faults::harm_until;
use crate::site::Site;

/// A primary and two standbys, each of which can be the next primary.
struct Line {
    servers: [LocalPostgres; 3],
}

impl Line {
    async fn start(workload: &Workload) -> Option<Self> {
        let first = dedicated(LocalPostgres::builder()).await?;
        if first.major() < 17 {
            harness::skip::inapplicable("slots follow a failover from Postgres 17 on");
            return None;
        }
        let at = client(&first.url()).await;
        workload.create(&at).await.unwrap();
        at.batch_execute(&format!("CREATE PUBLICATION p FOR TABLE {}", TABLES.join(", "))).await.unwrap();
        let mut standbys = Vec::new();
        for slot in ["phys_1", "phys_2"] {
            at.execute("SELECT pg_create_physical_replication_slot($1::text::name, true)", &[&slot]).await.unwrap();
            let settings = [
                ("primary_slot_name", slot),
                ("hot_standby_feedback", "on"),
                ("sync_replication_slots", "on"),
                ("wal_retrieve_retry_interval", "200ms"),
            ];
            standbys.push(first.standby(&settings).await.unwrap());
        }
        let [second, third] = standbys.try_into().unwrap_or_else(|_| panic!("two standbys"));
        lead(&first, "phys_1, phys_2").await;
        Some(Self { servers: [first, second, third] })
    }

    fn url(&self) -> String {
        let hosts: Vec<String> = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("postgres://postgres@{}/postgres", hosts.join(","))
    }

    /// Every primary but the last crashes, once the next one has the slot.
    async fn fail_over(&self, slot: &str, times: &AtomicUsize) -> Infallible {
        let [first, second, third] = &self.servers;
        has_slot(second, slot).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        first.stop(Shutdown::Immediate).await.unwrap();
        second.promote().await.unwrap();
        second.psql("SELECT pg_create_physical_replication_slot('phys_2', true)").await.unwrap();
        lead(second, "phys_2").await;
        let source = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", second.port());
        third.configure("primary_conninfo", &source).await.unwrap();
        times.fetch_add(1, Ordering::SeqCst);

        wait_for(second, "SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = 'walreceiver'").await;
        let confirmed = format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'");
        let confirmed = second.psql(&confirmed).await.unwrap();
        wait_for(third, "SELECT received_tli = 2 FROM pg_stat_wal_receiver").await;
        let at = second.psql("SELECT pg_current_wal_lsn()").await.unwrap();
        wait_for(third, &format!("SELECT pg_last_wal_replay_lsn() >= '{at}'")).await;
        has_slot(third, slot).await;
        let follows =
            format!("SELECT confirmed_flush_lsn >= '{confirmed}' FROM pg_replication_slots WHERE slot_name = '{slot}'");
        wait_for(third, &follows).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        second.stop(Shutdown::Immediate).await.unwrap();
        third.promote().await.unwrap();
        third.configure("synchronous_standby_names", "").await.unwrap();
        times.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

/// A primary acknowledges what its standbys have, and sends nothing else.
async fn lead(server: &LocalPostgres, standbys: &str) {
    server.configure("synchronized_standby_slots", standbys).await.unwrap();
    server.configure("synchronous_standby_names", "walreceiver").await.unwrap();
}

async fn wait_for(server: &LocalPostgres, query: &str) {
    for _ in 0..600 {
        if server.psql(query).await.is_ok_and(|answer| answer == "t") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {query}\n{}", server.log());
}

/// Waits until the standby could go on with the slot.
async fn has_slot(standby: &LocalPostgres, slot: &str) {
    let query = format!("SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = '{slot}'");
    wait_for(standby, &query).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: `make soak` has them"]
async fn a_workload_ends_equal_while_standbys_take_the_place_of_crashed_primaries() {
    let seed = harness::seed::seed(15);
    let workload = Workload::new(seed).connections(3).preloaded(2000).lasting(Duration::from_secs(40));
    let Some(line) = Line::start(&workload).await else { return };
    let Some(site) = Site::new(&line.url()).await else { return };
    let program = site.program.clone().variable("ETL__SOURCE__POSTGRES__FAILOVER", "true");
    let url = format!("{}?target_session_attrs=read-write&connect_timeout=2", line.url());
    let times = AtomicUsize::new(0);
    let work = async { workload.run(&url).await.unwrap() };
    Box::pin(harm_until(&program, work, line.fail_over(&site.slot, &times))).await;
    assert_eq!(times.load(Ordering::SeqCst), 2, "the workload ended before the second failover");
    site.assert_equal(&client(&line.servers[2].url()).await, TABLES).await;
}
