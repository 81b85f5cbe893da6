//! What have dead pipelines left at the source? Slots and publications, told from those of pipelines that live.

use std::collections::HashMap;

use serde::Serialize;
use tokio_postgres::Client;

use super::SourceConfig;
use super::slot::drop_slot;
use super::slot_status::FLUSHED;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::{Session, query_error, quote_ident};

/// How the slots and publications of pipelines begin.
const PREFIX: &str = "etl_";

/// The comment on a publication that a pipeline keeps itself.
pub(super) const KEPT: &str = "etl: kept by a pipeline, which makes it anew";

/// What was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LeftoverKind {
    /// A replication slot of the server.
    Slot,
    /// A publication of the database.
    Publication,
    /// The state of a pipeline in a state store.
    State,
}

/// Whether somebody needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Standing {
    /// It is in use, or of this pipeline: it is never removed.
    Live,
    /// Nobody uses it now; a pipeline that is stopped may need it. Only whoever names it removes it.
    Asleep,
    /// No pipeline can use it any more.
    Dead,
}

/// Something at the source that belongs to a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Leftover {
    /// What it is.
    pub kind: LeftoverKind,
    /// Its name; of a state the pipeline's id.
    pub name: String,
    /// Whether somebody needs it.
    pub standing: Standing,
    /// How that is known.
    pub why: String,
    /// WAL that the server keeps for it.
    pub retained_bytes: Option<u64>,
}

impl Leftover {
    /// The state of a pipeline in a store, which nobody holds.
    pub fn state(pipeline: impl Into<String>, standing: Standing, why: impl Into<String>) -> Self {
        let kind = LeftoverKind::State;
        Self { kind, name: pipeline.into(), standing, why: why.into(), retained_bytes: None }
    }

    /// The id of the pipeline that it is, or was, of.
    pub fn pipeline(&self) -> &str {
        self.name.strip_prefix(PREFIX).unwrap_or(&self.name)
    }
}

const SLOTS: &str = "
SELECT s.j->>'slot_name', s.j->>'active', s.j->>'wal_status', s.j->>'invalidation_reason', s.j->>'inactive_since',
       s.j->>'synced', s.j->>'database', pg_catalog.pg_wal_lsn_diff({flushed}, (s.j->>'restart_lsn')::pg_lsn)::bigint
  FROM (SELECT pg_catalog.to_jsonb(r) AS j FROM pg_catalog.pg_replication_slots r
         WHERE r.plugin = 'pgoutput' AND NOT r.temporary AND pg_catalog.starts_with(r.slot_name::text, $1)) s
 ORDER BY 1";

const PUBLICATIONS: &str = "
SELECT p.pubname::text, pg_catalog.obj_description(p.oid, 'pg_publication') IS NOT DISTINCT FROM $2
  FROM pg_catalog.pg_publication p WHERE pg_catalog.starts_with(p.pubname::text, $1) ORDER BY 1";

/// Connections name the pipeline after whatever their names begin with.
const SESSIONS: &str = "
SELECT DISTINCT a.application_name FROM pg_catalog.pg_stat_activity a
 WHERE a.application_name <> '' AND a.pid <> pg_catalog.pg_backend_pid()";

/// Which sessions are open, by what they call themselves.
struct Sessions(Vec<String>);

impl Sessions {
    fn are_of(&self, pipeline: &str) -> bool {
        let word = format!(" {pipeline} ");
        self.0.iter().any(|name| format!(" {name} ").contains(&word))
    }
}

/// Lists the slots of the server and the publications of the database that pipelines have made. What belongs to the
/// pipeline `own` is live.
///
/// # Errors
/// Where the source cannot be asked.
pub async fn leftovers(source: &SourceConfig, own: &str) -> EtlResult<Vec<Leftover>> {
    let session = Session::connect(&source.connect.for_purpose("gc")).await?;
    let client = session.client();
    let rows = client.query(SESSIONS, &[]).await.map_err(|e| query_error("list the sessions", e))?;
    let sessions = Sessions(rows.iter().map(|row| row.get(0)).collect());
    let mut found = slots(client, own, &sessions).await?;
    let of_slots: HashMap<String, Standing> = found.iter().map(|slot| (slot.name.clone(), slot.standing)).collect();
    let publications = client.query(PUBLICATIONS, &[&PREFIX, &KEPT]).await;
    for row in publications.map_err(|e| query_error("list the publications", e))? {
        let (name, is_marked): (String, bool) = (row.get(0), row.get(1));
        let id = name.strip_prefix(PREFIX).unwrap_or_default();
        let (standing, why) = match of_slots.get(&name) {
            _ if id == own => (Standing::Live, "of this pipeline"),
            _ if sessions.are_of(id) => (Standing::Live, "connections of its pipeline are open"),
            Some(Standing::Live) => (Standing::Live, "its pipeline runs"),
            Some(Standing::Asleep) => (Standing::Asleep, "its pipeline has a slot that nobody reads"),
            Some(Standing::Dead) if is_marked => (Standing::Dead, "its pipeline's slot is dead"),
            None if is_marked => (Standing::Dead, "its pipeline has no slot"),
            Some(Standing::Dead) | None => (Standing::Asleep, "nobody knows who made it"),
        };
        let (kind, why) = (LeftoverKind::Publication, why.to_owned());
        found.push(Leftover { kind, name, standing, why, retained_bytes: None });
    }
    Ok(found)
}

async fn slots(client: &Client, own: &str, sessions: &Sessions) -> EtlResult<Vec<Leftover>> {
    let query = SLOTS.replace("{flushed}", FLUSHED);
    let rows = client.query(&query, &[&PREFIX]).await.map_err(|e| query_error("list the slots", e))?;
    let slots = rows.iter().map(|row| {
        let text = |place: usize| row.get::<_, Option<String>>(place);
        let is = |place: usize| text(place).as_deref() == Some("true");
        let name = text(0).unwrap_or_default();
        let id = name.strip_prefix(PREFIX).unwrap_or_default();
        let database = text(6).unwrap_or_default();
        let (standing, why) = match (text(2).as_deref(), text(4)) {
            _ if is(1) => (Standing::Live, "somebody reads it".to_owned()),
            _ if id == own => (Standing::Live, "of this pipeline".to_owned()),
            _ if is(5) => (Standing::Live, "a copy of one of the primary".to_owned()),
            _ if sessions.are_of(id) => (Standing::Live, "connections of its pipeline are open".to_owned()),
            (Some("lost"), _) => {
                let reason = text(3).unwrap_or_else(|| "its WAL is removed".to_owned());
                (Standing::Dead, format!("the server has given it up: {reason}"))
            }
            (_, Some(since)) => {
                (Standing::Asleep, format!("of the database {database}; nobody reads it since {since}"))
            }
            _ => (Standing::Asleep, format!("of the database {database}; nobody reads it")),
        };
        let retained_bytes = row.get::<_, Option<i64>>(7).map(|bytes| u64::try_from(bytes).unwrap_or(0));
        Leftover { kind: LeftoverKind::Slot, name, standing, why, retained_bytes }
    });
    Ok(slots.collect())
}

/// Removes a slot or a publication, after another look at whether it has come to life since.
///
/// # Errors
/// [`Config`](ErrorKind::Config) where it is live, and where it is a state, which its store removes.
pub async fn remove_leftover(source: &SourceConfig, own: &str, leftover: &Leftover) -> EtlResult<()> {
    let now = leftovers(source, own).await?;
    let now = now.iter().find(|now| now.kind == leftover.kind && now.name == leftover.name);
    match now.map(|now| (now.standing, &now.why)) {
        None => return Ok(()),
        Some((Standing::Live, why)) => {
            return Err(EtlError::new(ErrorKind::Config, "it is in use, and stays")
                .with("name", &leftover.name)
                .with("why", why));
        }
        Some((Standing::Asleep | Standing::Dead, _)) => {}
    }
    let session = Session::connect(&source.connect.for_purpose("gc")).await?;
    match leftover.kind {
        // The server refuses to drop one that somebody has begun to read since.
        LeftoverKind::Slot => drop_slot(session.client(), &leftover.name).await,
        LeftoverKind::Publication => {
            let drop = format!("DROP PUBLICATION IF EXISTS {}", quote_ident(&leftover.name));
            let done = session.client().batch_execute(&drop).await;
            done.map_err(|e| {
                query_error("drop the publication", e)
                    .with("publication", &leftover.name)
                    .hint("Only its owner may drop it")
            })
        }
        LeftoverKind::State => {
            Err(EtlError::new(ErrorKind::Config, "a state is removed from its store").with("name", &leftover.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_of_a_pipeline_that_it_names_whatever_comes_before() {
        let sessions = Sessions(vec!["etl shop stream".to_owned(), "my relay blog".to_owned(), "psql".to_owned()]);
        for (pipeline, expected) in [("shop", true), ("blog", true), ("shop_2", false), ("sho", false), ("old", false)]
        {
            assert_eq!(sessions.are_of(pipeline), expected, "{pipeline}");
        }
    }
}
