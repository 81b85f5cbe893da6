//! How much may be held in memory? The share of the limit that each part gets.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::settings::Settings;
use crate::error::{ErrorKind, EtlError, EtlResult};

/// The budget is counted in units, since permits are 32 bits wide.
const UNIT: usize = 1 << 10;

/// Rows of a copy go to the destination in pieces between these sizes.
const SMALLEST_PIECE: usize = 1 << 20;
const LARGEST_PIECE: usize = 2 << 20;

/// The memory that copies may hold together.
#[derive(Debug, Clone)]
pub(super) struct CopyBudget {
    permits: Arc<Semaphore>,
    units: usize,
    /// How many bytes of rows a worker collects before it writes them.
    pub(super) piece: usize,
}

/// The shares of `memory_limit`: the relay's tail, batches of the stream, and copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) relay: usize,
    pub(super) copies: usize,
}

impl Shares {
    /// A quarter is the relay's tail, half are copies, and the rest are batches and what reads ahead.
    pub(super) fn of(settings: &Settings) -> Self {
        let limit = settings.memory_limit.as_usize();
        Self { relay: limit / 4, copies: limit / 2 }
    }
}

impl CopyBudget {
    /// For this many workers at a time.
    pub(super) fn new(bytes: usize, workers: usize) -> Self {
        // Each worker fills one piece while another is being written.
        let piece = (bytes / (workers.max(1) * 2)).clamp(SMALLEST_PIECE, LARGEST_PIECE);
        let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { permits: Arc::new(Semaphore::new(units)), units, piece }
    }

    /// Waits until so many bytes are free. A single row larger than the budget gets all of it.
    ///
    /// # Errors
    /// When the pipeline ends.
    pub(super) async fn take(&self, bytes: usize) -> EtlResult<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT).clamp(1, self.units)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.permits).acquire_many_owned(units).await;
        permit.map_err(|e| EtlError::new(ErrorKind::Cancelled, "the pipeline ended").because(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn p5_what_does_not_fit_waits_and_what_is_too_large_gets_all() {
        let budget = CopyBudget::new(4 << 20, 2);
        assert_eq!(budget.piece, 1 << 20);
        let first = budget.take(3 << 20).await.unwrap();
        let second = budget.take(100 << 20);
        tokio::pin!(second);
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(first);
        drop(second.await.unwrap());
    }

    #[test]
    fn pieces_stay_within_their_bounds() {
        assert_eq!(CopyBudget::new(64 << 20, 16).piece, 2 << 20);
        assert_eq!(CopyBudget::new(64 << 20, 1).piece, LARGEST_PIECE);
    }
}
