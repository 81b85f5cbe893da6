//! Which memory is read into? Buffers of one size, used again and again, and what holds a claim for their content.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::Claim;

/// Reads are about this large while there is memory for it.
const LARGEST: usize = 264 << 10;
const SMALLEST: usize = 16 << 10;

/// This part of the limit stays with buffers that are free.
const SPARE: usize = 16;

/// So many buffers have a place in the limit, for every connection and what waits.
const IN_LIMIT: usize = 512;

/// Buffers of one size. One whose content is still read waits here until nobody has any of it.
///
/// The allocator gets the same blocks back seldom, and in another order: it would keep far more than is held.
#[derive(Debug)]
pub struct Blocks {
    size: usize,
    spare: usize,
    /// Bytes within buffers that somebody has.
    read: AtomicUsize,
    waiting: Mutex<VecDeque<BytesMut>>,
}

impl Blocks {
    pub(super) fn new(limit: usize) -> Self {
        let size = (limit / IN_LIMIT).clamp(SMALLEST, LARGEST);
        Self { size, spare: limit / SPARE, read: AtomicUsize::new(0), waiting: Mutex::default() }
    }

    /// How large each is.
    pub fn size(&self) -> usize {
        self.size
    }

    /// An empty buffer.
    pub fn take(&self) -> BytesMut {
        let mut waiting = self.waiting();
        // Mostly the first: what was read first is let go first.
        let free = waiting.iter_mut().position(|buffer| buffer.try_reclaim(self.size));
        free.and_then(|place| waiting.remove(place)).unwrap_or_else(|| BytesMut::with_capacity(self.size))
    }

    /// Gives a buffer of [`Blocks::take`] back, whose content others may still read.
    pub fn put(&self, mut buffer: BytesMut) {
        buffer.clear();
        self.waiting().push_back(buffer);
    }

    /// Somebody has so many bytes of a buffer no more.
    fn let_go(&self, bytes: usize) {
        let read = self.read.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        let mut waiting = self.waiting();
        if waiting.len() * self.size > read + self.spare {
            let free = waiting.iter_mut().position(|buffer| buffer.try_reclaim(self.size));
            free.and_then(|place| waiting.remove(place));
        }
    }

    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting().len() * self.size
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<BytesMut>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of one of the budget's buffers, which holds a claim until nobody has any of it.
pub(crate) fn held_of_buffer(bytes: Bytes, claim: Claim) -> Bytes {
    claim.budget.blocks().read.fetch_add(bytes.len(), Ordering::Relaxed);
    Bytes::from_owner(HeldOfBuffer { bytes, claim })
}

struct HeldOfBuffer {
    bytes: Bytes,
    claim: Claim,
}

impl AsRef<[u8]> for HeldOfBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for HeldOfBuffer {
    fn drop(&mut self) {
        let length = std::mem::take(&mut self.bytes).len();
        self.claim.budget.blocks().let_go(length);
    }
}

/// Bytes that hold a claim until nobody has any of them.
pub(crate) fn held(bytes: impl AsRef<[u8]> + Send + 'static, claim: Claim) -> Bytes {
    Bytes::from_owner(Held { bytes, _claim: claim })
}

struct Held<T> {
    bytes: T,
    _claim: Claim,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}
