//! Does the server want to shut down, and wait for us alone? Suspected from its questions, found out by asking (`SOURCE.md` R16).

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock;
use crate::error::EtlError;
use crate::lsn::Lsn;
use crate::postgres::{ConnectOptions, Connection};
use crate::retry;

/// How long nothing but questions comes before the server is probed for the first time.
const FIRST: Duration = Duration::from_secs(2);
/// How long a server that answered is left alone at most: `pg_ctl stop` waits for a minute.
const LONGEST: Duration = Duration::from_secs(10);
/// How often the suspicion is looked at.
const TICK: Duration = Duration::from_millis(250);
/// One question may be about nothing but the connection.
const QUESTIONS: u32 = 2;
/// What a server that is shutting down, or not yet up, says to whoever connects.
const CANNOT_CONNECT_NOW: &str = "57P03";

/// What speaks for a shutdown: a server that is told to stop sends what it has, asks again and again, and stays
/// until all of it is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suspicion {
    /// When changes came last, or a probe was answered.
    quiet_since: Instant,
    /// How often the server asked since then.
    questions: u32,
    /// The relay takes nothing more or memory is spent, so that nobody hears the questions.
    is_deaf: bool,
    wait: Duration,
}

impl Suspicion {
    /// Nothing speaks for it yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { quiet_since: now, questions: 0, is_deaf: false, wait: FIRST }
    }

    /// Something came: changes, or nothing but keepalives, of which so many want a reply.
    pub(crate) fn heard(&mut self, has_changes: bool, questions: u32, now: Instant) {
        if has_changes {
            *self = Self::new(now);
        }
        self.questions = self.questions.saturating_add(questions);
    }

    /// What came waits for the relay, or what comes for memory, or does no longer.
    pub(crate) fn set_deaf(&mut self, is_deaf: bool) {
        self.is_deaf = is_deaf;
    }

    /// The server lets others in: it is not shutting down.
    fn answered(&mut self, now: Instant) {
        (self.quiet_since, self.questions) = (now, 0);
        self.wait = (self.wait * 2).min(LONGEST);
    }

    /// Whether to find out. What is confirmed wholly holds up no shutdown.
    fn is_due(&self, has_unconfirmed: bool, now: Instant) -> bool {
        let is_suspicious = self.is_deaf || self.questions >= QUESTIONS;
        has_unconfirmed && is_suspicious && now.saturating_duration_since(self.quiet_since) >= self.wait
    }
}

/// Ends when the server is found to be shutting down; the stream must be closed then.
pub(crate) async fn until_shutdown(
    options: &ConnectOptions,
    suspicion: &watch::Sender<Suspicion>,
    received: impl Fn() -> Lsn,
    confirmed: watch::Receiver<Lsn>,
) -> EtlError {
    loop {
        retry::pause(TICK).await;
        let has_unconfirmed = *confirmed.borrow() < received();
        if !suspicion.borrow().is_due(has_unconfirmed, clock::monotonic()) {
            continue;
        }
        match Connection::connect(&options.for_purpose("probe")).await {
            Err(error) if error.context("sqlstate") == Some(CANNOT_CONNECT_NOW) => {
                return error.hint("The stream is closed so that the source can stop; it begins again when it is back");
            }
            // Anything else says nothing about a shutdown; the stream itself tells what becomes of it.
            _ => suspicion.send_modify(|suspicion| suspicion.answered(clock::monotonic())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(suspicion: &Suspicion, seconds: u64) -> Instant {
        suspicion.quiet_since + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn r16_a_server_is_probed_when_it_asks_and_sends_nothing_while_something_is_unconfirmed() {
        let start = clock::monotonic();
        let mut suspicion = Suspicion::new(start);
        assert!(!suspicion.is_due(true, after(&suspicion, 60)), "it did not ask");
        suspicion.heard(false, 1, start);
        assert!(!suspicion.is_due(true, after(&suspicion, 60)), "it asked once");
        suspicion.heard(false, 1, start);
        assert!(suspicion.is_due(true, after(&suspicion, 2)));
        assert!(!suspicion.is_due(true, after(&suspicion, 1)), "too soon");
        assert!(!suspicion.is_due(false, after(&suspicion, 60)), "all is confirmed");
        suspicion.heard(true, 0, start);
        assert!(!suspicion.is_due(true, after(&suspicion, 60)), "it sends");
    }

    #[tokio::test(start_paused = true)]
    async fn r16_a_server_that_nobody_listens_to_is_probed_too() {
        let mut suspicion = Suspicion::new(clock::monotonic());
        suspicion.set_deaf(true);
        assert!(suspicion.is_due(true, after(&suspicion, 2)));
        suspicion.set_deaf(false);
        assert!(!suspicion.is_due(true, after(&suspicion, 2)));
    }

    #[tokio::test(start_paused = true)]
    async fn r16_a_server_that_answers_is_probed_less_and_less_until_it_sends_again() {
        let start = clock::monotonic();
        let mut suspicion = Suspicion::new(start);
        for seconds in [2, 4, 8, 10, 10] {
            suspicion.heard(false, 2, start);
            assert!(!suspicion.is_due(true, after(&suspicion, seconds - 1)), "{seconds}");
            assert!(suspicion.is_due(true, after(&suspicion, seconds)), "{seconds}");
            suspicion.answered(start);
        }
        suspicion.heard(true, 2, start);
        assert!(suspicion.is_due(true, after(&suspicion, 2)));
    }
}
