//! Is this still the source whose changes were read before? What is remembered of it, and what is found (`SOURCE.md` R9).

use tokio_postgres::Client;

use super::SourceConfig;
use super::judgement::{Found, Remembered};
use super::slot::{find_slot, was_creating};
use super::touched::last_received;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;
use crate::postgres::{Connection, query_error};
use crate::store::{CursorId, SharedStore};

const SYSTEM: &str = "source.system";
const TIMELINE: &str = "source.timeline";
const DATABASE: &str = "source.database";
const DATABASE_OID: &str = "source.database.oid";
const PUBLICATION: &str = "source.publication";

/// Says in the store since when the source has another history, once that was seen.
const DIVERGED: &str = "source.diverged";

/// Says in the store that tables are being marked to be copied again: the next start goes on with it.
const RESYNCING: &str = "source.resyncing";

/// What `IDENTIFY_SYSTEM` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SystemIdentity {
    pub(crate) system: String,
    pub(crate) timeline: u32,
    /// What the server has flushed, or replayed.
    pub(crate) flushed: Lsn,
    pub(crate) database: String,
}

impl SystemIdentity {
    /// Asks over a replication connection.
    pub(crate) async fn read(replication: &mut Connection) -> EtlResult<Self> {
        let rows = replication.query("IDENTIFY_SYSTEM").await?;
        let value = |name: &str| {
            let value = rows.first().and_then(|row| row.get(name));
            value.ok_or_else(|| {
                EtlError::new(ErrorKind::Protocol, "IDENTIFY_SYSTEM left something out").with("column", name)
            })
        };
        let timeline = value("timeline")?;
        Ok(Self {
            system: value("systemid")?.to_owned(),
            timeline: timeline.parse().map_err(|e| EtlError::new(ErrorKind::Protocol, "no timeline").because(e))?,
            flushed: value("xlogpos")?.parse()?,
            database: value("dbname")?.to_owned(),
        })
    }
}

/// Which server and which database a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The server's system identifier.
    pub system: String,
    /// The database's name.
    pub database: String,
}

/// Asks a source which one it is.
///
/// # Errors
/// Where it cannot be asked.
pub async fn place(source: &SourceConfig) -> EtlResult<Place> {
    let mut replication = Connection::connect_replication(&source.connect.for_purpose("gc")).await?;
    let SystemIdentity { system, database, .. } = SystemIdentity::read(&mut replication).await?;
    Ok(Place { system, database })
}

const WHERE_AND_WHAT: &str = "
SELECT (SELECT oid::text FROM pg_catalog.pg_database WHERE datname = current_database()), pg_catalog.pg_is_in_recovery(),
       (SELECT oid::text FROM pg_catalog.pg_publication WHERE pubname = $1)";

impl Found {
    /// Looks at the server, the slot and the publication.
    pub(crate) async fn look(
        client: &Client,
        replication: &mut Connection,
        before: &Remembered,
        slot: &str,
        publication: &str,
    ) -> EtlResult<Self> {
        let identity = SystemIdentity::read(replication).await?;
        let row = client.query_one(WHERE_AND_WHAT, &[&publication]).await;
        let row = row.map_err(|e| query_error("ask which database this is", e))?;
        let history = match before.timeline {
            Some(timeline) if timeline != identity.timeline && identity.timeline > 1 => {
                let rows = replication.query(&format!("TIMELINE_HISTORY {}", identity.timeline)).await?;
                rows.first().and_then(|row| row.get("content")).unwrap_or_default().to_owned()
            }
            _ => String::new(),
        };
        Ok(Self {
            database_oid: row.get(0),
            is_standby: row.get(1),
            publication: row.get::<_, Option<String>>(2).map(|oid| format!("{publication} {oid}")),
            history,
            slot: find_slot(client, slot).await?,
            identity,
        })
    }
}

impl Remembered {
    /// What the store knows. A destination may hold more than the store knows of; what it holds is `held`.
    pub(crate) async fn read(store: &SharedStore, slot: &str, held: Lsn) -> EtlResult<Self> {
        let progress = store.progress().await?;
        let cursors = progress.cursors.iter().map(|(_, position)| position.commit);
        Ok(Self {
            system: store.fact(SYSTEM).await?,
            timeline: store.fact(TIMELINE).await?.and_then(|text| text.parse().ok()),
            database: store.fact(DATABASE).await?,
            database_oid: store.fact(DATABASE_OID).await?,
            publication: store.fact(PUBLICATION).await?,
            confirmed: progress.confirmed,
            written: cursors.chain([held]).max().unwrap_or_default(),
            main: progress.cursor(CursorId::Main).unwrap_or_default().commit.max(held),
            was_creating: was_creating(store, slot).await?,
            diverged: store.fact(DIVERGED).await?.filter(|at| !at.is_empty()).map(|at| at.parse()).transpose()?,
            last: last_received(store).await?,
        })
    }
}

/// Stores what was found, as far as it differs from what is remembered.
pub(crate) async fn remember(store: &SharedStore, before: &Remembered, found: &Found) -> EtlResult<()> {
    let identity = &found.identity;
    let facts = [
        (SYSTEM, &before.system, Some(identity.system.clone())),
        (DATABASE, &before.database, Some(identity.database.clone())),
        (DATABASE_OID, &before.database_oid, found.database_oid.clone()),
        (TIMELINE, &before.timeline.map(|timeline| timeline.to_string()), Some(identity.timeline.to_string())),
        (PUBLICATION, &before.publication, found.publication.clone()),
    ];
    for (fact, known, now) in facts {
        if let Some(now) = now.filter(|now| known.as_ref() != Some(now)) {
            store.set_fact(fact, now).await?;
        }
    }
    Ok(())
}

/// Stores since when the source has another history; with nothing that it is dealt with.
pub(crate) async fn set_diverged(store: &SharedStore, since: Option<Lsn>) -> EtlResult<()> {
    store.set_fact(DIVERGED, since.map_or_else(String::new, |since| since.to_string())).await
}

/// Whether an earlier start was told to copy tables again, and did not get to the end of that.
pub(crate) async fn is_resyncing(store: &SharedStore) -> EtlResult<bool> {
    Ok(store.fact(RESYNCING).await?.is_some_and(|why| !why.is_empty()))
}

/// Notes that tables are being marked to be copied again, or with nothing that it is done.
pub(crate) async fn set_resyncing(store: &SharedStore, why: &str) -> EtlResult<()> {
    store.set_fact(RESYNCING, why.to_owned()).await
}
