//! Under which origin does a session write? One of its own, so that who reads the target can leave out what came by it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etl::clock;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::postgres::quote_literal;
use etl::retry;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::PostgresResult;

/// A session that is gone may hold its origin for a moment, until its server process has noticed.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

const GRANT: &str = "In the target's database: GRANT EXECUTE ON FUNCTION pg_replication_origin_create(text), \
                     pg_replication_origin_session_setup(text) TO the user; or leave `origin` out";

/// The origins of one pipeline: `etl_<name>_<n>`. An origin belongs to one session at a time.
#[derive(Debug, Clone)]
pub(super) struct Origins {
    name: String,
    taken: Arc<Mutex<BTreeSet<u16>>>,
}

/// The origin of a session, until that is dropped.
#[derive(Debug)]
pub(super) struct Origin {
    number: u16,
    taken: Arc<Mutex<BTreeSet<u16>>>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

impl Origins {
    /// Those of the pipeline with this name in the target.
    pub(super) fn new(name: &str) -> Self {
        Self { name: format!("etl_{name}"), taken: Arc::default() }
    }

    /// The first one that no session of this process has: there are never more than sessions at a time.
    fn next(&self) -> Origin {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (0..u16::MAX).find(|number| !taken.contains(number)).unwrap_or(u16::MAX);
        taken.insert(number);
        Origin { number, taken: Arc::clone(&self.taken) }
    }

    /// Lets all that the session writes from now on carry an origin of its own.
    ///
    /// # Errors
    /// `Config` where the user may not, or the server keeps no more origins; `DestinationUnavailable` while a session
    /// that is gone still holds it.
    pub(super) async fn enter(&self, client: &Client) -> EtlResult<Origin> {
        let origin = self.next();
        let name = quote_literal(&format!("{}_{}", self.name, origin.number));
        let create = format!(
            "SELECT pg_catalog.pg_replication_origin_create({name})
              WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = {name})"
        );
        run(client, &create).await?;
        let setup = format!("SELECT pg_catalog.pg_replication_origin_session_setup({name})");
        let begun = clock::monotonic();
        loop {
            match run(client, &setup).await {
                Err(error)
                    if error.kind() == ErrorKind::DestinationUnavailable
                        && !client.is_closed()
                        && clock::monotonic().saturating_duration_since(begun) < PATIENCE =>
                {
                    retry::pause(LOOK).await;
                }
                done => return done.map(|()| origin),
            }
        }
    }
}

async fn run(client: &Client, sql: &str) -> EtlResult<()> {
    let Err(error) = client.simple_query(sql).await else { return Ok(()) };
    let refused = |what, hint| EtlError::new(ErrorKind::Config, what).hint(hint);
    let why = match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Some(refused("the user may not write under an origin", GRANT)),
        Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED | &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => Some(refused(
            "the target's server keeps no more origins",
            "Raise max_replication_slots there (from version 18 on max_active_replication_origins), or drop origins that \
             nobody uses with pg_replication_origin_drop: each of the `connections` needs one",
        )),
        _ => None,
    };
    let failed = Err(error).or_postgres("set the origin of a session");
    match why {
        Some(why) => failed.map_err(|error| why.because(error)),
        None => failed,
    }
}

/// That the user may write under origins; changes nothing.
pub(super) async fn check(client: &Client) -> EtlResult<()> {
    let asked = "SELECT bool_and(pg_catalog.has_function_privilege(oid, 'EXECUTE'))::text FROM pg_catalog.pg_proc
                  WHERE pronamespace = 'pg_catalog'::pg_catalog.regnamespace
                    AND proname IN ('pg_replication_origin_create', 'pg_replication_origin_session_setup')";
    let rows = client.simple_query(asked).await.or_postgres("be asked what is allowed")?;
    let may =
        |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("true"));
    if rows.iter().any(may) {
        return Ok(());
    }
    Err(EtlError::new(ErrorKind::Config, "the user may not write under an origin").hint(GRANT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_has_an_origin_of_its_own_and_the_next_one_takes_what_is_free() {
        let origins = Origins::new("a");
        let (first, second) = (origins.next(), origins.clone().next());
        assert_eq!((first.number, second.number), (0, 1));
        drop(first);
        let third = origins.next();
        assert_eq!((third.number, origins.next().number), (0, 2), "the free one, then a new one");
        assert_eq!(origins.next().number, 2, "which was dropped at once");
    }
}
