//! What did a copy see? Snapshots that miss no writer and outlive no rewrite (`SOURCE.md` R1 to R4).

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::catalog::{Leaf, PublishedTable};
use super::slot_status::FLUSHED;
use super::standby::{is_standby, take_snapshot};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;
use crate::postgres::{ConnectOptions, Connection, query_error, quote_ident};
use crate::retry;
use crate::schema::TableName;
use crate::store::SnapshotFilter;

/// How far the server has written, flushed or not: nothing that is visible was committed beyond.
pub(crate) const WRITTEN: &str = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
         ELSE pg_catalog.pg_current_wal_insert_lsn() END";

/// Who may have written the tables before now and is not visible yet. Prepared transactions have no pid.
const WRITERS: &str = "
SELECT DISTINCT l.virtualtransaction, coalesce('pid ' || l.pid, 'prepared transaction ' || x.gid, 'unknown')
  FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_prepared_xacts x ON l.virtualtransaction = '-1/' || x.transaction
 WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY($1) AND NOT pg_catalog.pg_is_in_recovery()
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
   AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";

/// R1: waits until everybody is gone who holds a lock for writing on the table now. A transaction that wrote
/// before its table's cursor was fixed holds one until it is visible to new snapshots.
///
/// `waits_for` is told for whom, and `None` at the end.
pub(crate) async fn wait_for_writers(
    client: &Client,
    table: &PublishedTable,
    mut waits_for: impl FnMut(Option<String>),
) -> EtlResult<()> {
    let oids = oids(table);
    let mut first: Option<Vec<String>> = None;
    let mut wait = Duration::from_millis(20);
    loop {
        let rows = client
            .query_typed(WRITERS, &[(&oids, Type::OID_ARRAY)])
            .await
            .map_err(|e| query_error("look for writers", e))?;
        let holders: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let since_start = first.get_or_insert_with(|| holders.iter().map(|(id, _)| id.clone()).collect());
        let left: Vec<&str> =
            holders.iter().filter(|(id, _)| since_start.contains(id)).map(|(_, who)| who.as_str()).collect();
        if left.is_empty() {
            waits_for(None);
            return Ok(());
        }
        waits_for(Some(format!("open transactions that wrote the table: {}", left.join(", "))));
        retry::pause(wait).await;
        wait = (wait * 2).min(Duration::from_secs(1));
    }
}

/// Somebody wants a table for itself, and waits for whoever reads it.
const WAITING: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l
 WHERE l.locktype = 'relation' AND NOT l.granted AND l.relation = ANY($1) AND l.mode = 'AccessExclusiveLock'
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))";

/// Whether somebody wants to change the table, and waits for its readers (R2).
pub(crate) async fn is_waited_for(client: &Client, table: &PublishedTable) -> EtlResult<bool> {
    let row = client.query_typed_one(WAITING, &[(&oids(table), Type::OID_ARRAY)]).await;
    row.map(|row| row.get(0)).map_err(|e| query_error("look for who waits", e))
}

fn oids(table: &PublishedTable) -> Vec<u32> {
    table.leaves.iter().map(|leaf| leaf.id.0).chain([table.schema.id.0]).collect()
}

/// A snapshot of one table, held open by its own connection.
pub(crate) struct Snapshot {
    /// The connection whose transaction exported it; it may read chunks too.
    pub(crate) connection: Connection,
    /// For `SET TRANSACTION SNAPSHOT`.
    pub(crate) id: String,
    /// Which transactions it sees.
    pub(crate) filter: SnapshotFilter,
    /// When it was taken.
    pub(crate) read_at: Timestamp,
    /// What holds the rows, with the files as they were when they were locked.
    pub(crate) leaves: Vec<LockedLeaf>,
}

/// A leaf that cannot be rewritten while its snapshot is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockedLeaf {
    pub(crate) leaf: Leaf,
    pub(crate) filenode: String,
    pub(crate) bytes: u64,
}

impl Snapshot {
    /// R2: locks, then takes and exports the snapshot. R3: returns once what it sees is flushed.
    /// On a standby that waits for a word of the primary (R6), which is shown.
    pub(crate) async fn take(
        connection: Connection,
        options: &ConnectOptions,
        table: &PublishedTable,
        client: &Client,
        shows: impl Fn(Option<String>),
    ) -> EtlResult<Self> {
        if is_standby(client).await? {
            return take_snapshot(connection, options, table, shows).await;
        }
        Self::take_of(connection, &[table], client).await
    }

    /// One snapshot of all these tables. On a standby it says nothing about the stream (R6).
    pub(crate) async fn take_of(
        mut connection: Connection,
        tables: &[&PublishedTable],
        client: &Client,
    ) -> EtlResult<Self> {
        begin_locked(&mut connection, tables).await?;
        let query = format!(
            "SELECT pg_catalog.pg_export_snapshot() AS id, pg_catalog.pg_current_snapshot()::text AS seen,
                    ({WRITTEN})::text AS until, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text AS at"
        );
        let rows = connection.query(&query).await?;
        let value = |name: &str| rows.first().and_then(|row| row.get(name)).unwrap_or_default().to_owned();
        let until: Lsn = value("until").parse()?;
        let filter = parse_snapshot(&value("seen"), until)?;
        let read_at = value("at").parse().map_err(|e| EtlError::new(ErrorKind::Protocol, "no time").because(e))?;
        let id = value("id");
        let all: Vec<Leaf> = tables.iter().flat_map(|table| table.leaves.iter().cloned()).collect();
        let leaves = locked_leaves(&mut connection, &all).await?;
        let mut snapshot = Self { connection, id, filter, read_at: Timestamp(read_at), leaves };
        snapshot.wait_until_flushed(until, client).await?;
        Ok(snapshot)
    }

    /// R3: a commit that is visible but not flushed is gone after a crash, and its xid is given away again. A
    /// server that crashes meanwhile takes this connection with it.
    async fn wait_until_flushed(&mut self, until: Lsn, client: &Client) -> EtlResult<()> {
        let mut was_nudged = false;
        loop {
            let rows = self.connection.query(&format!("SELECT ({FLUSHED})::text AS lsn")).await?;
            let flushed: Lsn = rows.first().and_then(|row| row.get("lsn")).unwrap_or_default().parse()?;
            if flushed >= until {
                return Ok(());
            }
            if !was_nudged {
                // A commit flushes all that came before it, if its transaction has written something.
                let nudge = "BEGIN; SET LOCAL synchronous_commit = local;
                    SELECT pg_catalog.pg_logical_emit_message(true, 'etl', ''); COMMIT";
                client.batch_execute(nudge).await.map_err(|e| query_error("flush the source's WAL", e))?;
                was_nudged = true;
                continue;
            }
            retry::pause(Duration::from_millis(50)).await;
        }
    }
}

/// Joins a snapshot on another connection: locks first (R2), and makes sure that the files are the same.
pub(crate) async fn join(connection: &mut Connection, table: &PublishedTable, snapshot: &SnapshotId) -> EtlResult<()> {
    begin_locked(connection, &[table]).await?;
    connection.query(&format!("SET TRANSACTION SNAPSHOT '{}'", snapshot.id)).await.map_err(gone)?;
    let found = locked_leaves(connection, &table.leaves).await?;
    let is_same = |(a, b): (&LockedLeaf, &LockedLeaf)| a.filenode == b.filenode && a.leaf == b.leaf;
    if found.len() == snapshot.leaves.len() && found.iter().zip(&snapshot.leaves).all(is_same) {
        return Ok(());
    }
    Err(EtlError::new(ErrorKind::SourceUnavailable, "the table was rewritten while it was copied")
        .with("table", &table.schema.name)
        .hint("It is copied again"))
}

/// A snapshot ends with the connection that exported it; the next attempt takes another one.
fn gone(error: EtlError) -> EtlError {
    match error.context("sqlstate") {
        // What versions until 16 say, and later ones.
        Some("22023" | "42704") => {
            EtlError::new(ErrorKind::SourceUnavailable, "the connection that held the copy's snapshot is gone")
                .because(error)
        }
        _ => error,
    }
}

/// What a worker needs to join a snapshot.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotId {
    pub(crate) id: String,
    pub(crate) leaves: Vec<LockedLeaf>,
}

/// R2: the lock is the first statement of the transaction, so that no rewrite fits between it and the snapshot.
pub(super) async fn begin_locked(connection: &mut Connection, tables: &[&PublishedTable]) -> EtlResult<()> {
    connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let names = |table: &&PublishedTable| {
        let leaves = table.leaves.iter().map(|leaf| qualified(&leaf.name));
        leaves.chain([qualified(&table.schema.name)]).collect::<Vec<_>>()
    };
    let only: Vec<String> = tables.iter().flat_map(names).map(|name| format!("ONLY {name}")).collect();
    if only.is_empty() {
        return Ok(());
    }
    connection.query(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", only.join(", "))).await?;
    Ok(())
}

pub(super) async fn locked_leaves(connection: &mut Connection, leaves: &[Leaf]) -> EtlResult<Vec<LockedLeaf>> {
    let mut locked = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        // Functions, never pg_class: the catalog inside the snapshot may be older than the lock.
        let query = format!(
            "SELECT pg_catalog.pg_relation_filenode({0}::regclass)::text AS node,
                    pg_catalog.pg_relation_size({0}::regclass, 'main')::text AS bytes",
            leaf.id
        );
        let rows = connection.query(&query).await?;
        let value = |name: &str| rows.first().and_then(|row| row.get(name)).unwrap_or_default().to_owned();
        let bytes = value("bytes").parse().unwrap_or(0);
        locked.push(LockedLeaf { leaf: leaf.clone(), filenode: value("node"), bytes });
    }
    Ok(locked)
}

/// `schema.table`, quoted.
pub(crate) fn qualified(name: &TableName) -> String {
    format!("{}.{}", quote_ident(&name.schema), quote_ident(&name.name))
}

fn parse_snapshot(text: &str, until: Lsn) -> EtlResult<SnapshotFilter> {
    let malformed = || EtlError::new(ErrorKind::Protocol, "not a snapshot").with("text", text);
    let number = |text: &str| text.parse::<u64>().ok();
    let mut parts = text.split(':');
    let (xmin, xmax, list) = (parts.next(), parts.next(), parts.next());
    let in_progress: Option<Vec<u64>> = list.unwrap_or("").split(',').filter(|x| !x.is_empty()).map(number).collect();
    let mut in_progress = in_progress.ok_or_else(malformed)?;
    in_progress.sort_unstable();
    Ok(SnapshotFilter {
        xmin: xmin.and_then(number).ok_or_else(malformed)?,
        xmax: xmax.and_then(number).ok_or_else(malformed)?,
        in_progress: in_progress.into(),
        until,
    })
}

/// Which transactions a snapshot has seen.
pub(crate) trait Visibility {
    /// Whether the copy already has what this top-level transaction did (R4).
    fn has_seen(&self, xid: u32, commit: Lsn) -> bool;
}

impl Visibility for SnapshotFilter {
    fn has_seen(&self, xid: u32, commit: Lsn) -> bool {
        if commit > self.until {
            return false;
        }
        let xid = widen(xid, self.xmax);
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }
}

/// The 64-bit transaction id nearest to `near` with these lower 32 bits.
fn widen(xid: u32, near: u64) -> u64 {
    const EPOCH: u64 = 1 << 32;
    let here = (near & !(EPOCH - 1)) | u64::from(xid);
    let distance = |candidate: u64| candidate.abs_diff(near);
    [here.checked_sub(EPOCH), Some(here), here.checked_add(EPOCH)]
        .into_iter()
        .flatten()
        .min_by_key(|candidate| distance(*candidate))
        .unwrap_or(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_a_snapshot_has_seen_what_was_committed_before_it() {
        let filter = parse_snapshot("100:110:105,102", Lsn(1_000)).unwrap();
        for (xid, seen) in [(99, true), (101, true), (102, false), (105, false), (109, true), (110, false)] {
            assert_eq!(filter.has_seen(xid, Lsn(900)), seen, "{xid}");
        }
        assert!(!filter.has_seen(99, Lsn(1_001)), "no commit after the snapshot is visible");
    }

    #[test]
    fn r4_epochs_are_compared_in_64_bits() {
        let epoch = 1_u64 << 32;
        let filter = parse_snapshot(&format!("{}:{}:", epoch + 5, epoch + 5), Lsn(1_000)).unwrap();
        assert!(filter.has_seen(u32::MAX, Lsn(1)), "of the epoch before");
        assert!(filter.has_seen(4, Lsn(1)));
        assert!(!filter.has_seen(6, Lsn(1)));
        assert_eq!(widen(3, epoch - 2), epoch + 3);
    }

    #[test]
    fn a_malformed_snapshot_is_an_error() {
        for bad in ["", "1", "1:x:", "1:2:3,y"] {
            assert!(parse_snapshot(bad, Lsn::ZERO).is_err(), "{bad}");
        }
    }
}
