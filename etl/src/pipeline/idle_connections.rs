//! Which connections does the copy of one table leave to the next? Those on which nothing went wrong, while tables are copied:
//! a server takes longer to begin a connection, and to read its catalog for it, than to send a small table.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::{ConnectOptions, Connection, Session, query_error, quote_literal};

/// How long the end of a transaction that has only read is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections of the source that nobody uses at the moment.
#[derive(Debug, Default)]
pub(super) struct IdleConnections {
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// How many tables are being copied, or are about to be.
    copies: usize,
    sessions: Vec<Session>,
    connections: Vec<Connection>,
}

/// A table is being copied, or is about to be. After the last one nothing is kept.
pub(super) struct Copying<'i>(&'i IdleConnections);

impl IdleConnections {
    /// Says that a table is being copied or waits for its turn, until that is dropped.
    pub(super) fn copying(&self) -> Copying<'_> {
        self.idle().copies += 1;
        Copying(self)
    }

    /// A session for catalog queries.
    ///
    /// # Errors
    /// As [`Session::connect`].
    pub(super) async fn session(&self, options: &ConnectOptions) -> EtlResult<Session> {
        while let Some(session) = self.take(|idle| &mut idle.sessions) {
            let name = name(options);
            let named = async {
                let named = session.client().batch_execute(&name).await;
                named.map_err(|error| query_error("name a session", error))
            };
            if in_time(options, named).await.is_ok() {
                return Ok(session);
            }
        }
        Session::connect(options).await
    }

    /// A connection for copies.
    ///
    /// # Errors
    /// As [`Connection::connect`].
    pub(super) async fn connection(&self, options: &ConnectOptions) -> EtlResult<Connection> {
        while let Some(mut connection) = self.take(|idle| &mut idle.connections) {
            if in_time(options, connection.query(&name(options))).await.is_ok() {
                return Ok(connection);
            }
        }
        Connection::connect(options).await
    }

    /// Keeps a session for the next one. It is in no transaction, and was left as it was found.
    pub(super) fn keep_session(&self, session: Session) {
        self.keep(session, |idle| &mut idle.sessions);
    }

    /// Ends the transaction of a copy that has read all it wanted, and keeps its connection for the next one.
    pub(super) async fn keep_connection(&self, mut connection: Connection) {
        // The rest of a copy that was left would come first.
        if connection.is_cut_off() {
            return;
        }
        // One that does not do that, and at once, is of no use to anybody.
        let ended = tokio::time::timeout(PATIENCE, connection.query("COMMIT")).await;
        if ended.is_ok_and(|ended| ended.is_ok()) && connection.rest() {
            self.keep(connection, |idle| &mut idle.connections);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take<T>(&self, of: fn(&mut Idle) -> &mut Vec<T>) -> Option<T> {
        of(&mut self.idle()).pop()
    }

    fn keep<T>(&self, one: T, of: fn(&mut Idle) -> &mut Vec<T>) {
        let mut idle = self.idle();
        if idle.copies > 0 {
            of(&mut idle).push(one);
        }
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        let mut idle = self.0.idle();
        idle.copies -= 1;
        if idle.copies == 0 {
            idle.sessions.clear();
            idle.connections.clear();
        }
    }
}

/// What `pg_stat_activity` shows from now on. Whoever was lost meanwhile does not answer.
fn name(options: &ConnectOptions) -> String {
    format!("SET application_name = {}", quote_literal(&options.application_name))
}

async fn in_time<T>(options: &ConnectOptions, asked: impl Future<Output = EtlResult<T>>) -> EtlResult<T> {
    let answered = tokio::time::timeout(options.connect_timeout, asked).await;
    answered.unwrap_or_else(|_| Err(EtlError::new(ErrorKind::SourceUnavailable, "the source does not answer")))
}
