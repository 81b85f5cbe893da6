//! Where does the stream begin? The one slot of a pipeline: found, or created.

use tokio_postgres::Client;

use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;
use crate::postgres::{ConnectOptions, Connection, Session, query_error, quote_ident};
use crate::store::SharedStore;

/// Says in the store that a slot is being created, so that a crash in between is told from a foreign slot.
const CREATING: &str = "slot.creating";

/// What the server says about the slot.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) name: String,
    /// The server has been told that everything before is safe.
    pub(crate) confirmed: Lsn,
}

/// The slot of this name, created where the store knows of none.
///
/// # Errors
/// When the slot is not ours: in use for another plugin or database, there without anything in the store, or
/// gone although the store says that it was there (`SOURCE.md` R9).
pub(crate) async fn ensure_slot(
    client: &Client,
    replication: &mut Connection,
    store: &SharedStore,
    name: &str,
) -> EtlResult<Slot> {
    let known = store.progress().await?.confirmed;
    let found = find(client, name).await?;
    let was_creating = store.fact(CREATING).await?.is_some_and(|fact| fact == name);
    match (found, known) {
        (Some(slot), Some(_)) => Ok(slot),
        (None, None) => create(replication, store, name).await,
        (Some(slot), None) if was_creating => {
            tracing::info!(slot = slot.name, "creating the slot again: the first attempt was cut short");
            let drop = format!("DROP_REPLICATION_SLOT {} WAIT", quote_ident(name));
            replication.query(&drop).await?;
            create(replication, store, name).await
        }
        (Some(_), None) => Err(EtlError::new(ErrorKind::SourceIdentity, "the slot exists, but its state is not here")
            .with("slot", name)
            .hint(format!(
                "If the state is lost or the slot belongs to nobody, drop it and start over: \
                 SELECT pg_drop_replication_slot('{name}'); else give the pipeline another id or its own data_dir"
            ))),
        (None, Some(confirmed)) => {
            Err(EtlError::new(ErrorKind::SourceIdentity, "the slot is gone; changes since then cannot be read")
                .with("slot", name)
                .with("confirmed", confirmed)
                .hint("Remove the pipeline's data_dir and the destination's tables to copy everything again"))
        }
    }
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

async fn create(replication: &mut Connection, store: &SharedStore, name: &str) -> EtlResult<Slot> {
    store.set_fact(CREATING, name.to_owned()).await?;
    // The form that version 14 knows too.
    let create = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput NOEXPORT_SNAPSHOT", quote_ident(name));
    let rows = replication.query(&create).await.map_err(|error| {
        let is_full = error.context("sqlstate") == Some("53400");
        let hint = if is_full { "Raise max_replication_slots, or drop slots that nobody uses" } else { "" };
        let error = error.with("slot", name);
        if is_full { error.hint(hint) } else { error }
    })?;
    let point = rows.first().and_then(|row| row.get("consistent_point")).unwrap_or_default();
    let confirmed: Lsn = point.parse()?;
    store.confirm(confirmed).await?;
    tracing::info!(slot = name, %confirmed, "created the replication slot");
    Ok(Slot { name: name.to_owned(), confirmed })
}

async fn find(client: &Client, name: &str) -> EtlResult<Option<Slot>> {
    let query = "SELECT plugin::text, database::text, confirmed_flush_lsn::text, wal_status, current_database()::text
                   FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let Some(row) = client.query_opt(query, &[&name]).await.map_err(|e| query_error("look for the slot", e))? else {
        return Ok(None);
    };
    let text = |place: usize| row.get::<_, Option<String>>(place);
    let refused = |message: &str, hint: &str| {
        Err(EtlError::new(ErrorKind::SourceIdentity, message).with("slot", name).hint(hint))
    };
    if text(0).as_deref() != Some("pgoutput") || text(1) != text(4) {
        return refused(
            "a slot of this name serves another plugin or database",
            "Give the pipeline another id, or drop that slot",
        );
    }
    if text(3).as_deref() == Some("lost") {
        return refused(
            "the slot was invalidated: the server has removed WAL that was still needed",
            "Drop the slot and remove the pipeline's data_dir to copy everything again; raise max_slot_wal_keep_size",
        );
    }
    let confirmed = text(2).unwrap_or_default().parse()?;
    Ok(Some(Slot { name: name.to_owned(), confirmed }))
}
