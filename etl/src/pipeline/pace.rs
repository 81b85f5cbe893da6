//! How fast may copies read? No faster than the user allows, all of them together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::settings::CopySettings;
use crate::clock;
use crate::retry;
use crate::source::{GuardLevel, WalGuard};

/// Spreads what copies read over time.
#[derive(Debug)]
pub(super) struct Pace {
    /// Seconds a row and a byte, where they are limited.
    row: f64,
    byte: f64,
    /// Seconds a byte while copies are slowed down for the source's sake.
    slow_byte: f64,
    level: watch::Sender<GuardLevel>,
    /// When everything that was read so far has had its time.
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(settings: &CopySettings, guard: &WalGuard) -> Self {
        let each = |per_second: Option<u64>| per_second.map_or(0.0, |most| 1.0 / most.max(1) as f64);
        Self {
            row: each(settings.max_rows_per_second),
            byte: each(settings.max_bytes_per_second.map(|most| most.0)),
            slow_byte: each(Some(guard.slow_to.0)),
            level: watch::Sender::new(GuardLevel::Calm),
            free_at: Mutex::new(None),
        }
    }

    /// So much was read; waits until more may be.
    pub(super) async fn spend(&self, rows: usize, bytes: usize) {
        if self.row == 0.0 && self.byte == 0.0 && *self.level.borrow() < GuardLevel::Slowed {
            return;
        }
        let wait = self.takes(rows, bytes, clock::monotonic());
        if !wait.is_zero() {
            retry::pause(wait).await;
        }
        // The sender is here: waiting ends with the level.
        let _ = self.level.subscribe().wait_for(|level| *level < GuardLevel::Paused).await;
    }

    /// How much the source is to be spared.
    pub(super) fn set_level(&self, level: GuardLevel) {
        self.level.send_replace(level);
    }

    /// How long to wait. Time in which nothing was read is lost.
    fn takes(&self, rows: usize, bytes: usize, now: Instant) -> Duration {
        let is_slowed = *self.level.borrow() >= GuardLevel::Slowed;
        let byte = if is_slowed { self.byte.max(self.slow_byte) } else { self.byte };
        let costs = (rows as f64 * self.row).max(bytes as f64 * byte);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let free = free_at.map_or(now, |free| free.max(now)) + Duration::from_secs_f64(costs.min(1e6));
        *free_at = Some(free);
        free.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::byte_size::ByteSize;

    fn pace(rows: Option<u64>, bytes: Option<u64>) -> Pace {
        let settings = CopySettings {
            max_rows_per_second: rows,
            max_bytes_per_second: bytes.map(ByteSize),
            ..CopySettings::default()
        };
        Pace::new(&settings, &WalGuard { slow_to: ByteSize(100), ..WalGuard::default() })
    }

    #[test]
    fn what_is_read_together_is_not_faster_than_allowed() {
        let now = clock::monotonic();
        let second = Duration::from_secs(1);
        let rows = pace(Some(100), None);
        assert_eq!(rows.takes(50, 1 << 40, now), second / 2);
        assert_eq!(rows.takes(100, 0, now), second * 3 / 2, "another reader, at the same time");
        assert_eq!(rows.takes(100, 0, now + second * 9), second, "what was not used is lost");
        let both = pace(Some(100), Some(1000));
        assert_eq!(both.takes(1, 2000, now), second * 2);
        assert_eq!(both.takes(100, 1, now), second * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn copies_are_slowed_down_and_wait_for_the_sources_sake() {
        let free = pace(None, None);
        let now = clock::monotonic();
        free.set_level(GuardLevel::Warned);
        assert_eq!(free.takes(1, 1000, now), Duration::ZERO);
        free.set_level(GuardLevel::Slowed);
        assert_eq!(free.takes(1, 1000, now), Duration::from_secs(10));
        free.set_level(GuardLevel::Paused);
        let waiting = tokio::time::timeout(Duration::from_secs(3600), free.spend(1, 1)).await;
        assert!(waiting.is_err(), "nothing is read while it is paused");
        free.set_level(GuardLevel::Calm);
        free.spend(1, 1).await;
    }

    #[tokio::test]
    async fn without_a_limit_nothing_waits() {
        pace(None, None).spend(usize::MAX, usize::MAX).await;
    }
}
