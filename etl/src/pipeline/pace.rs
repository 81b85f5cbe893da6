//! How fast may copies read? No faster than the user allows, all of them together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::settings::CopySettings;
use crate::clock;
use crate::retry;

/// Spreads what copies read over time.
#[derive(Debug)]
pub(super) struct Pace {
    /// Seconds a row and a byte, where they are limited.
    row: f64,
    byte: f64,
    /// When everything that was read so far has had its time.
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(settings: &CopySettings) -> Self {
        let each = |per_second: Option<u64>| per_second.map_or(0.0, |most| 1.0 / most.max(1) as f64);
        Self {
            row: each(settings.max_rows_per_second),
            byte: each(settings.max_bytes_per_second.map(|most| most.0)),
            free_at: Mutex::new(None),
        }
    }

    /// So much was read; waits until more may be.
    pub(super) async fn spend(&self, rows: usize, bytes: usize) {
        if self.row == 0.0 && self.byte == 0.0 {
            return;
        }
        let wait = self.takes(rows, bytes, clock::monotonic());
        if !wait.is_zero() {
            retry::pause(wait).await;
        }
    }

    /// How long to wait. Time in which nothing was read is lost.
    fn takes(&self, rows: usize, bytes: usize, now: Instant) -> Duration {
        let costs = (rows as f64 * self.row).max(bytes as f64 * self.byte);
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
        Pace::new(&CopySettings {
            max_rows_per_second: rows,
            max_bytes_per_second: bytes.map(ByteSize),
            ..CopySettings::default()
        })
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

    #[tokio::test]
    async fn without_a_limit_nothing_waits() {
        pace(None, None).spend(usize::MAX, usize::MAX).await;
    }
}
