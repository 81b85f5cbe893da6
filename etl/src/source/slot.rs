//! Where does the stream begin? The one slot of a pipeline: looked at, created, dropped.

use std::time::Duration;

use tokio_postgres::Client;

use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;
use crate::postgres::{ConnectOptions, Connection, Session, query_error, quote_ident};
use crate::retry;
use crate::store::SharedStore;

/// Says in the store that a slot is being created, so that a crash in between is told from a foreign slot.
const CREATING: &str = "slot.creating";

/// The first version whose slots can follow a failover.
pub(super) const FAILOVER_SINCE: u32 = 170_000;

/// After this long it is said what a slot waits for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the server says about a slot. Servers differ in what they say: what is not said is `None`, or `false`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) plugin: Option<String>,
    pub(crate) database: Option<String>,
    /// The server has been told that everything before is safe.
    pub(crate) confirmed: Lsn,
    /// Why it can be read no more.
    pub(crate) lost: Option<String>,
    pub(crate) is_active: bool,
    pub(crate) is_temporary: bool,
    /// Whether standbys get a copy of it.
    pub(crate) has_failover: bool,
    /// Whether it is such a copy.
    pub(crate) is_synced: bool,
}

/// By name: the columns differ from version to version.
const SLOT: &str = "
SELECT s.j->>'plugin', s.j->>'database', s.j->>'confirmed_flush_lsn', s.j->>'wal_status', s.j->>'invalidation_reason',
       s.j->>'active', s.j->>'temporary', s.j->>'failover', s.j->>'synced', s.j->>'conflicting', pg_catalog.pg_is_in_recovery()
  FROM (SELECT pg_catalog.to_jsonb(r) AS j FROM pg_catalog.pg_replication_slots r WHERE r.slot_name = $1) s";

/// Looks for the slot of this name.
pub(crate) async fn find_slot(client: &Client, name: &str) -> EtlResult<Option<Slot>> {
    let found = client.query_opt(SLOT, &[&name]).await.map_err(|e| query_error("look for the slot", e))?;
    let Some(row) = found else { return Ok(None) };
    let text = |place: usize| row.get::<_, Option<String>>(place);
    let is = |place: usize| text(place).as_deref() == Some("true");
    let lost = match (text(4), text(3).as_deref(), is(9) && row.get(10)) {
        (Some(reason), ..) => Some(reason),
        // Version 16 calls everything a conflict, and says no more.
        (None, Some("lost"), true) => Some("conflict_or_wal_removed".to_owned()),
        (None, Some("lost"), false) => Some("wal_removed".to_owned()),
        _ => None,
    };
    Ok(Some(Slot {
        name: name.to_owned(),
        plugin: text(0),
        database: text(1),
        confirmed: text(2).map(|lsn| lsn.parse()).transpose()?.unwrap_or_default(),
        lost,
        is_active: is(5),
        is_temporary: is(6),
        has_failover: is(7),
        is_synced: is(8),
    }))
}

/// Whether a slot is being created, or was when everything ended.
pub(crate) async fn was_creating(store: &SharedStore, name: &str) -> EtlResult<bool> {
    Ok(store.fact(CREATING).await?.is_some_and(|fact| fact == name))
}

/// When the client that reads the slot was last heard of by the server, as the server tells it; `None` where nobody
/// reads it or this user may not see that. A client that is dead is not heard of again.
pub(crate) async fn reader_replied(options: &ConnectOptions, name: &str) -> EtlResult<Option<String>> {
    let session = Session::connect(&options.for_purpose("probe")).await?;
    let query = "SELECT r.reply_time::text FROM pg_catalog.pg_stat_replication r
                   JOIN pg_catalog.pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = $1";
    let row =
        session.client().query_opt(query, &[&name]).await.map_err(|e| query_error("ask who reads the slot", e))?;
    Ok(row.and_then(|row| row.get(0)))
}

/// Creates the slot, and returns where it begins. Nothing is stored but that it was begun.
pub(crate) async fn create_slot(
    replication: &mut Connection,
    store: &SharedStore,
    name: &str,
    has_failover: bool,
) -> EtlResult<Lsn> {
    store.set_fact(CREATING, name.to_owned()).await?;
    let slot = quote_ident(name);
    let create = if has_failover {
        format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)")
    } else {
        // The form that version 14 knows too.
        format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput NOEXPORT_SNAPSHOT")
    };
    let rows = say_if_long(replication.query(&create), name).await.map_err(|error| {
        let error = error.with("slot", name);
        match error.context("sqlstate") {
            Some("53400") => error.hint("Raise max_replication_slots, or drop slots that nobody uses: `etl gc`"),
            _ => error,
        }
    })?;
    let point = rows.first().and_then(|row| row.get("consistent_point")).unwrap_or_default();
    let begins: Lsn = point.parse()?;
    tracing::info!(slot = name, %begins, has_failover, "created the replication slot");
    Ok(begins)
}

/// A slot waits for transactions that are open; on a standby also for a word of the primary about them.
pub(super) async fn say_if_long<T>(creating: impl Future<Output = EtlResult<T>>, slot: &str) -> EtlResult<T> {
    let mut creating = std::pin::pin!(creating);
    tokio::select! {
        done = &mut creating => return done,
        () = retry::pause(PATIENCE) => tracing::warn!(
            slot,
            "the slot waits for transactions that are open at the source; on a standby of an idle primary, \
             SELECT pg_log_standby_snapshot() on the primary helps"
        ),
    }
    creating.await
}

/// Drops a slot that nobody reads.
pub(crate) async fn drop_slot(client: &Client, name: &str) -> EtlResult<()> {
    let done = client.execute("SELECT pg_catalog.pg_drop_replication_slot($1::text::name)", &[&name]).await;
    done.map(drop).map_err(|e| query_error("drop the slot", e).with("slot", name))
}

/// Whether standbys are to get a copy of the slot, where that is not so yet; nobody may be reading it.
pub(crate) async fn set_failover(replication: &mut Connection, slot: &Slot, wanted: bool) -> EtlResult<()> {
    if slot.has_failover == wanted {
        return Ok(());
    }
    let alter = format!("ALTER_REPLICATION_SLOT {} (FAILOVER {wanted})", quote_ident(&slot.name));
    replication.query(&alter).await.map_err(|error| error.with("slot", &slot.name))?;
    tracing::info!(slot = slot.name, failover = wanted, "changed the replication slot");
    Ok(())
}

/// Whether the server can make such slots.
///
/// # Errors
/// [`SourceSetup`](ErrorKind::SourceSetup) with what is in the way.
pub(crate) fn can_failover(server_version: u32, is_standby: bool) -> EtlResult<()> {
    let refused = |what: &str, hint: &str| Err(EtlError::new(ErrorKind::SourceSetup, what).hint(hint));
    match (server_version >= FAILOVER_SINCE, is_standby) {
        (true, false) => Ok(()),
        (false, _) => refused(
            "slots follow a failover from version 17 on",
            "Leave `failover` out: after a failover `etl run --resync-affected` copies the tables again",
        ),
        (true, true) => refused(
            "a slot of a standby cannot follow a failover",
            "Leave `failover` out, or read the primary: the standbys then get copies of its slot",
        ),
    }
}
