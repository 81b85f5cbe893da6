//! What time is it? The only place that reads the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Seconds from the Unix epoch to the one of Postgres, 2000-01-01.
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

/// A moment: microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From microseconds since 2000-01-01 UTC, as Postgres sends them.
    pub const fn from_postgres(micros: i64) -> Self {
        Self(micros.saturating_add(POSTGRES_EPOCH_SECONDS * 1_000_000))
    }

    /// Microseconds since 2000-01-01 UTC.
    pub const fn to_postgres(self) -> i64 {
        self.0.saturating_sub(POSTGRES_EPOCH_SECONDS * 1_000_000)
    }

    /// How long ago `earlier` was; zero if it was later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// The time of day. Under tokio's paused time it moves with it, once [`follow_tokio`] was called.
pub fn now() -> Timestamp {
    if let Some((instant, at)) = ANCHOR.with(std::cell::Cell::get) {
        return Timestamp(at.0 + micros(Instant::now().saturating_duration_since(instant)));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(micros(since))
}

/// The time for measuring how long something takes; moves with tokio's paused time.
pub fn monotonic() -> Instant {
    Instant::now()
}

thread_local! {
    static ANCHOR: std::cell::Cell<Option<(Instant, Timestamp)>> = const { std::cell::Cell::new(None) };
}

/// For tests: from here on, on this thread, [`now`] is `start` plus what passes of tokio's time.
pub fn follow_tokio(start: Timestamp) {
    ANCHOR.with(|anchor| anchor.set(Some((Instant::now(), start))));
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hours_pass_in_no_time_when_tokio_is_paused() {
        follow_tokio(Timestamp(1_000));
        tokio::time::advance(Duration::from_secs(7_200)).await;
        assert_eq!(now(), Timestamp(1_000 + 7_200_000_000));
    }

    #[test]
    fn the_postgres_epoch_is_the_year_2000() {
        assert_eq!(Timestamp::from_postgres(0), Timestamp(946_684_800_000_000));
        assert_eq!(Timestamp::from_postgres(5).to_postgres(), 5);
    }
}
