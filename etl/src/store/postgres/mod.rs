//! How does the state survive a machine without a disk of its own? In a schema of any Postgres that can be written.

mod copies;
mod home;
mod operations;
mod others;
mod statements;

use tokio::sync::Mutex;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use self::home::Home;
pub use self::home::MARK as STATE_MARK;
pub use self::others::StoredPipeline;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::{ConnectOptions, Session, query_error};
use crate::retry::RetryPolicy;

/// A statement's argument with its type: one round trip, and nothing is left prepared at the server.
type Argument<'a> = (&'a (dyn ToSql + Sync), Type);

/// Remembers everything in tables of a schema, one row set a pipeline.
///
/// While it is open it holds a session advisory lock, so that a second engine cannot write. A lost connection is
/// made anew, for as long as it takes; if somebody else took the pipeline over meanwhile, that is an error. It needs
/// a connection of its own to the server: not one through a pooler that hands sessions around.
#[derive(Debug)]
pub struct PostgresStore {
    home: Home,
    session: Mutex<Option<Session>>,
    /// Stands in the pipeline's row for as long as this store owns it.
    owner: String,
}

/// What a statement gave, and whether an earlier attempt may have been carried out too.
struct Answer {
    rows: Vec<Row>,
    is_repeated: bool,
}

impl PostgresStore {
    /// Opens the state of a pipeline in `schema`, makes both where they are missing, and takes the pipeline's lock.
    ///
    /// # Errors
    /// [`Locked`](ErrorKind::Locked) where another process holds the pipeline, [`Store`](ErrorKind::Store) where the
    /// database is read-only, the user lacks a right or a newer version of the program made the schema,
    /// [`StoreUnavailable`](ErrorKind::StoreUnavailable) where the server does not answer.
    pub async fn open(
        connect: ConnectOptions,
        schema: impl Into<String>,
        pipeline: impl Into<String>,
    ) -> EtlResult<Self> {
        let home = Home::new(connect, schema.into(), pipeline.into());
        let session = home.connect().await?;
        home.migrate(&session).await?;
        let owner = home.take_over(&session).await?;
        Ok(Self { home, session: Mutex::new(Some(session)), owner })
    }

    /// Whether a store could be opened there: the server, its version, the rights. Changes nothing.
    ///
    /// # Errors
    /// As of [`open`](Self::open), but for the lock.
    pub async fn check(
        connect: ConnectOptions,
        schema: impl Into<String>,
        pipeline: impl Into<String>,
    ) -> EtlResult<()> {
        let home = Home::new(connect, schema.into(), pipeline.into());
        let session = home.connect().await?;
        home.check(&session).await
    }

    /// Runs a statement in which `{schema}` stands for the schema, until the server is there to answer it.
    async fn run(&self, doing: &'static str, statement: &str, arguments: &[Argument<'_>]) -> EtlResult<Answer> {
        let statement = self.home.sql(statement);
        let mut waits = RetryPolicy::default().waits();
        let mut is_repeated = false;
        loop {
            match self.attempt(doing, &statement, arguments).await {
                Ok(rows) => return Ok(Answer { rows, is_repeated }),
                Err(error) => waits.after(error).await?,
            }
            is_repeated = true;
        }
    }

    async fn attempt(&self, doing: &'static str, statement: &str, arguments: &[Argument<'_>]) -> EtlResult<Vec<Row>> {
        let mut held = self.session.lock().await;
        // It is taken out for the time of the call: a call that is dropped half-way leaves no session behind whose
        // state nobody knows.
        let session = match held.take() {
            Some(session) if !session.client().is_closed() => session,
            _ => self.home.return_to(&self.owner).await?,
        };
        let outcome = session.client().query_typed(statement, arguments).await;
        let outcome = outcome.map_err(|error| self.home.failed(doing, query_error(doing, error)));
        if !outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::StoreUnavailable) {
            *held = Some(session);
        }
        outcome
    }
}

/// The error of a value in the store that this program did not write.
fn damaged(what: &'static str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EtlError {
    EtlError::new(ErrorKind::Store, format!("the state store holds a {what} that cannot be read"))
        .because(cause)
        .hint("Somebody changed the tables of the store by hand; bring back a copy, or copy everything again")
}
