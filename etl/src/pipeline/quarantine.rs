//! When is a failure one table's own, and when is the table tried again?

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::run::Run;
use super::settings::QuarantineSettings;
use crate::clock::{self, Timestamp};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::schema::TableId;
use crate::store::{Held, Phase, Quarantine, TableState};

/// Whether an error that a table has met may be its own: waiting does not help, and others need not meet it.
pub(super) fn is_of_one_table(error: &EtlError) -> bool {
    match error.kind() {
        ErrorKind::Config
        | ErrorKind::SourcePermission
        | ErrorKind::SourceQuery
        | ErrorKind::Value
        | ErrorKind::SchemaChanged
        | ErrorKind::DestinationRejected
        | ErrorKind::DestinationUnsupported => true,
        ErrorKind::SourceUnavailable
        | ErrorKind::SlotBusy
        | ErrorKind::SourceAuthentication
        | ErrorKind::SourceSetup
        | ErrorKind::SourceIdentity
        | ErrorKind::WalRetained
        | ErrorKind::Tls
        | ErrorKind::Protocol
        | ErrorKind::DestinationUnavailable
        | ErrorKind::Store
        | ErrorKind::StoreUnavailable
        | ErrorKind::StoreConflict
        | ErrorKind::Relay
        | ErrorKind::Disk
        | ErrorKind::DiskFull
        | ErrorKind::Locked
        | ErrorKind::Cancelled
        | ErrorKind::Internal => false,
    }
}

/// The last quarantine of each table, so that one that fails again and again waits longer and longer.
#[derive(Debug, Default)]
pub(super) struct Quarantines(Mutex<HashMap<TableId, Quarantine>>);

impl Quarantines {
    /// Begins with what is stored.
    pub(super) fn of<'a>(states: impl IntoIterator<Item = (&'a TableId, &'a TableState)>) -> Self {
        let stored = states.into_iter().filter_map(|(id, state)| match &state.phase {
            Phase::Quarantined(why) => Some((*id, Quarantine::clone(why))),
            _ => None,
        });
        Self(Mutex::new(stored.collect()))
    }

    /// The table has failed now, with this left to go on from.
    fn add(&self, table: TableId, error: &EtlError, held: Held, settings: &QuarantineSettings) -> Quarantine {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let added = next(last.get(&table), error, held, settings, clock::now());
        last.insert(table, added.clone());
        added
    }
}

fn next(
    last: Option<&Quarantine>,
    error: &EtlError,
    held: Held,
    settings: &QuarantineSettings,
    now: Timestamp,
) -> Quarantine {
    let failures = match last {
        Some(last) if !has_got_further(&last.held, &held) => last.failures.saturating_add(1),
        _ => 1,
    };
    let wait = wait_after(failures, settings);
    let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
    Quarantine {
        reason: error.to_string(),
        kind: error.kind().name().to_owned(),
        hint: error.hint_text().map(str::to_owned),
        since: now,
        failures,
        // What was refused on purpose is not tried again without a word.
        retry_at: (error.kind() != ErrorKind::SchemaChanged).then_some(Timestamp(now.0.saturating_add(micros))),
        held,
    }
}

/// A copy that begins anew has a new cursor, and has got nowhere by that.
fn has_got_further(last: &Held, now: &Held) -> bool {
    let caught_up = |held: &Held| held.cursor.filter(|_| held.so_far.is_none());
    caught_up(now) > caught_up(last)
}

/// Of a table that is not to go on by itself, and has nothing to go on from.
pub(super) fn refused(error: &EtlError) -> Quarantine {
    next(None, error, Held::default(), &QuarantineSettings::default(), clock::now())
}

fn wait_after(failures: u32, settings: &QuarantineSettings) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    settings.first_retry.saturating_mul(factor).min(settings.longest_retry.max(settings.first_retry))
}

impl Run {
    /// The table waits in quarantine from now on, with this left to go on from.
    pub(super) async fn quarantine(&self, table: TableId, error: &EtlError, held: Held) -> EtlResult<()> {
        let why = self.quarantines.add(table, error, held, &self.settings.quarantine);
        let name = self.name(table);
        let retry_in_ms = why.retry_at.map(|at| at.since(why.since).as_millis());
        tracing::error!(table = %name, %error, failures = why.failures, retry_in_ms,
            "the table is in quarantine: its changes wait in the relay");
        self.board.metrics.quarantined(name);
        self.board.metrics.error(error.kind().name());
        self.set_phase(table, Phase::Quarantined(Box::new(why))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::{Lsn, Position};

    const SETTINGS: QuarantineSettings =
        QuarantineSettings { first_retry: Duration::from_secs(10), longest_retry: Duration::from_secs(60) };

    fn held(commit: u64) -> Held {
        Held { cursor: Some(Position::after(Lsn(commit))), ..Held::default() }
    }

    #[test]
    fn a_table_that_gets_no_further_waits_longer_and_longer() {
        let error = EtlError::new(ErrorKind::Value, "no").hint("yes");
        let mut last = None;
        let mut waits = Vec::new();
        for commit in [5, 5, 5, 5, 5, 6] {
            let found = next(last.as_ref(), &error, held(commit), &SETTINGS, Timestamp(7));
            waits.push(found.retry_at.unwrap().since(Timestamp(7)).as_secs());
            last = Some(found);
        }
        assert_eq!(waits, [10, 20, 40, 60, 60, 10]);
        let last = last.unwrap();
        assert_eq!((last.kind.as_str(), last.hint.as_deref(), last.failures), ("value", Some("yes"), 1));
        let again = next(Some(&last), &error, Held::default(), &SETTINGS, Timestamp(7));
        assert_eq!(again.failures, 2, "a copy that has got nowhere");
        let many = Quarantine { failures: u32::MAX, ..again };
        let refused = next(None, &EtlError::new(ErrorKind::SchemaChanged, "no"), held(5), &SETTINGS, Timestamp(7));
        assert_eq!(refused.retry_at, None, "somebody has to say so");
        let much_later = next(Some(&many), &error, Held::default(), &SETTINGS, Timestamp(7));
        assert_eq!(much_later.retry_at, Some(Timestamp(60_000_007)));
    }

    #[test]
    fn what_only_waits_or_concerns_everybody_is_no_tables_own() {
        let own = |kind| is_of_one_table(&EtlError::new(kind, "no"));
        for kind in ErrorKind::ALL {
            assert!(!own(*kind) || kind.retry_class() == crate::error::RetryClass::NeedsUser, "{kind:?}");
        }
        assert!(own(ErrorKind::Value) && !own(ErrorKind::Store) && !own(ErrorKind::SourceAuthentication));
    }
}
