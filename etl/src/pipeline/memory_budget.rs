//! How much may each part of a pipeline hold? What follows from the limit, and who gives way when it is reached.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::run::Run;
use super::settings::{BatchSettings, Settings};
use crate::byte_size::ByteSize;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::memory::{MemoryBudget, Part};
use crate::retry::{self, RetryPolicy};

/// Rows of a copy go to the destination in pieces between these sizes.
const SMALLEST_PIECE: usize = 512 << 10;
const LARGEST_PIECE: usize = 2 << 20;

/// How long one who waits for memory is left to it before others give way.
const PATIENCE: Duration = Duration::from_millis(20);

/// The relay holds a quarter in memory; the rest of it is on disk.
pub(super) fn relay_tail(settings: &Settings) -> usize {
    settings.memory_limit.as_usize() / 4
}

/// A batch is at most a quarter too: one is written while the next is filled.
pub(super) fn batch_limits(settings: &Settings) -> BatchSettings {
    let most = ByteSize(settings.memory_limit.0 / 4);
    BatchSettings { max_bytes: settings.batch.max_bytes.min(most), ..settings.batch.clone() }
}

/// What copies may hold together, and how many connections read at a time with it.
#[derive(Debug, Clone)]
pub(super) struct CopyBudget {
    pub(super) memory: MemoryBudget,
    seats: Arc<Semaphore>,
    /// How many bytes of rows a worker collects before it writes them.
    pub(super) piece: usize,
}

impl CopyBudget {
    /// For this many workers at a time, or fewer: each fills one piece while another is being written.
    pub(super) fn new(memory: &MemoryBudget, workers: usize) -> Self {
        let most = memory.most(Part::Copies);
        let piece = (most / (workers.max(1) * 2)).clamp(SMALLEST_PIECE, LARGEST_PIECE);
        let seats = (most / (piece * 2)).clamp(1, Semaphore::MAX_PERMITS);
        Self { memory: memory.clone(), seats: Arc::new(Semaphore::new(seats)), piece }
    }

    /// Waits until there is memory for one more connection that reads.
    ///
    /// # Errors
    /// When the pipeline ends.
    pub(super) async fn admit(&self) -> EtlResult<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.seats).acquire_owned().await;
        permit.map_err(|e| EtlError::new(ErrorKind::Cancelled, "the pipeline ended").because(e))
    }

    /// Waits until a copy seems to wait for memory: who holds rows then writes them.
    pub(super) async fn pressed(&self) {
        stays_pressed(&self.memory, Part::Copies).await;
    }
}

/// Waits until somebody has waited for memory for some time.
async fn stays_pressed(memory: &MemoryBudget, part: Part) {
    loop {
        memory.pressed(part).await;
        retry::pause(PATIENCE).await;
        if memory.is_pressed(part) {
            return;
        }
    }
}

/// Moves the relay's blocks to disk while somebody waits for memory, until the pipeline ends.
pub(super) async fn relieve(run: Arc<Run>, mut over: watch::Receiver<bool>) -> EtlResult<()> {
    let memory = &run.board.memory;
    loop {
        tokio::select! {
            () = stays_pressed(memory, Part::Stream) => {}
            _ = over.wait_for(|over| *over) => return Ok(()),
        }
        // Half at a time: what batches still hold is not freed by it.
        let held = run.relay.status().memory_bytes;
        if held == 0 {
            continue;
        }
        let mut waits = RetryPolicy::default().waits();
        let shed = async {
            while let Err(error) = run.relay.shed(held / 2).await {
                run.board.failed(&error);
                waits.after(error).await?;
            }
            Ok(())
        };
        tokio::select! {
            shed = shed => shed?,
            _ = over.wait_for(|over| *over) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn p5_fewer_connections_read_at_a_time_where_there_is_less_memory() {
        let seats = |limit: usize| CopyBudget::new(&MemoryBudget::new(limit), 16).seats.available_permits();
        assert!(seats(128 << 20) >= 16, "{}", seats(128 << 20));
        assert!((2..16).contains(&seats(16 << 20)), "{}", seats(16 << 20));
        let budget = CopyBudget::new(&MemoryBudget::new(1), 16);
        let mut admitted = vec![budget.admit().await.unwrap()];
        while let Some(seat) = futures_util::FutureExt::now_or_never(budget.admit()) {
            admitted.push(seat.unwrap());
        }
        assert!(admitted.len() <= 2);
        admitted.pop();
        drop(budget.admit().await.unwrap());
    }

    #[test]
    fn pieces_stay_within_their_bounds() {
        let piece = |limit: usize, workers| CopyBudget::new(&MemoryBudget::new(limit), workers).piece;
        assert_eq!(piece(128 << 20, 16), LARGEST_PIECE);
        assert_eq!(piece(128 << 20, 1), LARGEST_PIECE);
        assert_eq!(piece(8 << 20, 16), SMALLEST_PIECE);
    }

    #[test]
    fn a_batch_is_at_most_a_quarter_of_the_limit() {
        let mut settings = Settings::default();
        assert_eq!(batch_limits(&settings), settings.batch);
        settings.memory_limit = ByteSize::mib(16);
        assert_eq!(batch_limits(&settings).max_bytes, ByteSize::mib(4));
    }
}
