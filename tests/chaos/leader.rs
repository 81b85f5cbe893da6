//! Which server is written to? The primary, until its standby takes its place.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use etl_local_postgres::{LocalPostgres, Shutdown};
use harness::kill::Program;
use harness::postgres::{client, dedicated};
use harness::seed::numbers;
use rand::RngExt;

/// From this version on a standby has the slot, so that the stream goes on; before, all is copied again.
const HAS_SLOTS: u16 = 17;

/// A primary, and its standby where one is to take its place.
pub(crate) struct Leader {
    first: LocalPostgres,
    standby: Option<LocalPostgres>,
    has_promoted: AtomicBool,
}

impl Leader {
    /// A primary alone; `None` counts as a skip.
    pub(crate) async fn alone() -> Option<Self> {
        let first = dedicated(LocalPostgres::builder()).await?;
        Some(Self { first, standby: None, has_promoted: AtomicBool::new(false) })
    }

    /// A primary that can have a standby, of a version whose standbys have slots or of the usual one, unless
    /// `ETL_POSTGRES_MAJOR` names one.
    pub(crate) async fn of_two(seed: u64) -> Option<Self> {
        let builder = LocalPostgres::builder();
        let has_slots = numbers(seed, 0x6c65_6164).random_bool(0.5) && std::env::var_os("ETL_POSTGRES_MAJOR").is_none();
        let first = dedicated(if has_slots { builder.version(HAS_SLOTS) } else { builder }).await?;
        Some(Self { first, standby: None, has_promoted: AtomicBool::new(false) })
    }

    /// The primary gets a standby.
    pub(crate) async fn followed(mut self) -> Self {
        let at = client(&self.first.url()).await;
        at.batch_execute("SELECT pg_create_physical_replication_slot('phys', true)").await.unwrap();
        let mut settings = vec![
            ("primary_slot_name", "phys"),
            ("hot_standby_feedback", "on"),
            ("wal_retrieve_retry_interval", "200ms"),
        ];
        if self.has_slots() {
            settings.push(("sync_replication_slots", "on"));
        }
        self.standby = Some(self.first.standby(&settings).await.unwrap());
        if self.has_slots() {
            // What the standby does not have is sent to nobody.
            self.first.configure("synchronized_standby_slots", "phys").await.unwrap();
        }
        self
    }

    /// Whether the slot can follow to a standby.
    fn has_slots(&self) -> bool {
        self.first.major() >= HAS_SLOTS
    }

    /// The program as whoever expects a promotion runs it.
    pub(crate) fn wanted(&self, program: Program) -> Program {
        if self.standby.is_some() && self.has_slots() {
            return program.variable("ETL__SOURCE__POSTGRES__FAILOVER", "true");
        }
        program
    }

    /// Whether the standby leads.
    pub(crate) fn has_promoted(&self) -> bool {
        self.has_promoted.load(Ordering::SeqCst)
    }

    /// Who leads now.
    pub(crate) fn now(&self) -> &LocalPostgres {
        match &self.standby {
            Some(standby) if self.has_promoted() => standby,
            _ => &self.first,
        }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.now().port()).into()
    }

    /// For writers: it leads to whoever leads.
    pub(crate) fn url(&self) -> String {
        let Some(standby) = &self.standby else { return self.first.url() };
        format!(
            "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write&connect_timeout=2",
            self.first.port(),
            standby.port()
        )
    }

    /// The primary is gone for good, with what the standby has not received.
    pub(crate) async fn promote(&self) {
        let standby = self.standby.as_ref().expect("a standby, or none is promoted in the schedule");
        self.first.stop(Shutdown::Immediate).await.unwrap();
        standby.promote().await.unwrap();
        self.has_promoted.store(true, Ordering::SeqCst);
    }
}
