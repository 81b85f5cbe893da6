//! How is a standby read? Without writing there, and under snapshots that a slot gives (`SOURCE.md` R6).

use std::time::Duration;

use tokio_postgres::Client;

use super::SourceConfig;
use super::catalog::PublishedTable;
use super::snapshot::Snapshot;
use super::snapshot::{begin_locked, locked_leaves};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;
use crate::postgres::{ConnectOptions, Connection, query_error, quote_ident};
use crate::retry;
use crate::store::SnapshotFilter;

/// The first version whose standbys decode.
const SINCE: u32 = 160_000;

/// After this long it is shown what a snapshot waits for.
const PATIENCE: Duration = Duration::from_secs(2);

const WAITS: &str = "a standby's snapshot waits for a word of the primary about open transactions: \
                     SELECT pg_log_standby_snapshot() on the primary helps where it is idle";

/// Whether the server is a standby.
pub(crate) async fn is_standby(client: &Client) -> EtlResult<bool> {
    let row = client.query_typed_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await;
    row.map(|row| row.get(0)).map_err(|e| query_error("ask whether this is a standby", e))
}

/// Whether a standby of this version can be read so.
///
/// # Errors
/// [`SourceSetup`](ErrorKind::SourceSetup) with what is in the way.
pub(crate) fn can_read_standby(source: &SourceConfig, server_version: u32) -> EtlResult<()> {
    let refused = |what: &str, hint: &str| Err(EtlError::new(ErrorKind::SourceSetup, what).hint(hint));
    if server_version < SINCE {
        return refused("a standby can be read from version 16 on", "Read the primary");
    }
    if source.publication.is_none() {
        return refused(
            "nothing can be published at a standby",
            "Make a publication on the primary, and name it as `publication`",
        );
    }
    Ok(())
}

/// The snapshot of a slot that is dropped at once. It has seen exactly what was committed before the slot's consistent
/// point; what `pg_current_snapshot()` says on a standby is no filter.
pub(super) async fn take_snapshot(
    mut connection: Connection,
    options: &ConnectOptions,
    table: &PublishedTable,
    shows: impl Fn(Option<String>),
) -> EtlResult<Snapshot> {
    begin_locked(&mut connection, &[table]).await?;
    let mut exporter = Connection::connect_replication(options).await?;
    let rows = exporter.query("SELECT pg_catalog.pg_backend_pid()::text AS pid").await?;
    let pid = rows.first().and_then(|row| row.get("pid")).unwrap_or_default();
    let slot = quote_ident(&format!("etl_copy_{}_{pid}", table.schema.id));
    let create = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')");
    let rows = {
        let mut creating = std::pin::pin!(exporter.query(&create));
        tokio::select! {
            rows = &mut creating => rows,
            () = retry::pause(PATIENCE) => {
                shows(Some(WAITS.to_owned()));
                tracing::warn!(table = %table.schema.name, "{WAITS}");
                let rows = creating.await;
                shows(None);
                rows
            }
        }
    }?;
    let value = |name: &str| rows.first().and_then(|row| row.get(name)).unwrap_or_default().to_owned();
    let point: Lsn = value("consistent_point").parse()?;
    connection.query(&format!("SET TRANSACTION SNAPSHOT '{}'", value("snapshot_name"))).await?;
    let query = "SELECT pg_catalog.pg_export_snapshot() AS id,
                        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text AS at";
    let rows = connection.query(query).await?;
    let value = |name: &str| rows.first().and_then(|row| row.get(name)).unwrap_or_default().to_owned();
    let read_at = value("at").parse().map_err(|e| EtlError::new(ErrorKind::Protocol, "no time").because(e))?;
    let leaves = locked_leaves(&mut connection, &table.leaves).await?;
    exporter.query(&format!("DROP_REPLICATION_SLOT {slot}")).await?;
    let filter = everything_before(point);
    Ok(Snapshot { connection, id: value("id"), filter, read_at: Timestamp(read_at), leaves })
}

/// Has seen what was committed before, whatever its number.
fn everything_before(point: Lsn) -> SnapshotFilter {
    let in_progress = Box::default();
    SnapshotFilter { xmin: u64::MAX, xmax: u64::MAX, in_progress, until: Lsn(point.0.saturating_sub(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::snapshot::Visibility;

    #[test]
    fn r6_a_standbys_snapshot_has_seen_what_was_committed_before_its_point() {
        let filter = everything_before(Lsn(100));
        for xid in [0, 3, 900, u32::MAX - 1] {
            assert!(filter.has_seen(xid, Lsn(99)) && !filter.has_seen(xid, Lsn(100)), "{xid}");
        }
    }

    #[test]
    fn a_standby_is_read_by_a_publication_of_the_primary_from_version_16_on() {
        let source = || SourceConfig::from_url("postgres://u@h/d").unwrap();
        assert!(can_read_standby(&source().publication("p"), 160_000).is_ok());
        for (source, version, expected) in
            [(source().publication("p"), 150_004, "version 16"), (source().tables(["public.*"]), 170_000, "published")]
        {
            let error = can_read_standby(&source, version).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
