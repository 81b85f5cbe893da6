//! Who may hold how much? One budget of bytes for everything that a pipeline reads ahead, collects and writes.
//!
//! Whoever is about to hold bytes claims them first, and waits where the budget is spent. Each part has a share that
//! nobody else gets, so that none waits for another for good, and may take more of what is free. Something larger
//! than could ever be free is let through alone.

mod block;
mod limit;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Turn, Notify, watch};

pub use self::block::Blocks;
pub(crate) use self::block::{held, held_of_buffer};
pub(crate) use self::limit::usual_limit;
#[cfg(test)]
mod tests;

/// What bytes are held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The stream: what was received and is in the relay's memory or in batches.
    Stream,
    /// What the main cursor reads back from disk. It may have to wait for a table that catches up, and the stream for
    /// either.
    Backlog,
    /// What the cursors of single tables read back from disk.
    CatchUp,
    /// Rows of copies.
    Copies,
}

impl Part {
    const COUNT: usize = 4;

    fn place(self) -> usize {
        match self {
            Self::Stream => 0,
            Self::Backlog => 1,
            Self::CatchUp => 2,
            Self::Copies => 3,
        }
    }
}

/// A smaller limit than this is not kept: every connection needs a buffer.
const LEAST: usize = 4 << 20;

/// The limit, and what of it is each part's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    limit: usize,
    own: [usize; Part::COUNT],
}

impl Shares {
    fn new(limit: usize) -> Self {
        let limit = limit.max(LEAST);
        Self { limit, own: [limit / 16 * 5, limit / 16, limit / 16, limit / 8] }
    }

    /// What a part can have at most, while the others hold what is theirs.
    fn most(&self, part: Part) -> usize {
        self.limit - (self.own.iter().sum::<usize>() - self.own[part.place()])
    }

    /// Whether a part may hold so many bytes more.
    fn allow(&self, used: &[usize; Part::COUNT], part: Part, bytes: usize) -> bool {
        let (own, has) = (self.own[part.place()], used[part.place()]);
        let others: usize = used.iter().zip(self.own).map(|(used, own)| own.max(*used)).sum();
        let after = (others - own.max(has)).saturating_add(own.max(has.saturating_add(bytes)));
        // Twice that much will hardly ever be free: it need not wait for all that others may hold.
        let is_large = bytes > self.most(part) / 2;
        let is_own = has.saturating_add(bytes) <= own;
        is_own || after <= self.limit || (is_large && has <= own)
    }
}

/// What was claimed and not let go, and who waits.
#[derive(Debug, Default)]
struct State {
    used: [usize; Part::COUNT],
    most: usize,
    waiting: [usize; Part::COUNT],
}

/// The budget. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shares: Shares,
    state: Mutex<State>,
    freed: Notify,
    /// Within a part the first who asks is the first who gets.
    turns: [Turn<()>; Part::COUNT],
    /// Which parts somebody waits for.
    pressed: watch::Sender<[bool; Part::COUNT]>,
    /// Buffers to be used again.
    blocks: Blocks,
}

impl MemoryBudget {
    /// So many bytes, or 4 MiB where that is less.
    pub fn new(limit: usize) -> Self {
        let shares = Shares::new(limit);
        Self(Arc::new(Inner {
            shares,
            state: Mutex::default(),
            freed: Notify::new(),
            turns: Default::default(),
            pressed: watch::Sender::new([false; Part::COUNT]),
            blocks: Blocks::new(shares.limit),
        }))
    }

    /// All of it, in bytes.
    pub fn limit(&self) -> usize {
        self.0.shares.limit
    }

    /// The most that a part can have, in bytes, unless it is one single thing.
    pub fn most(&self, part: Part) -> usize {
        self.0.shares.most(part)
    }

    /// The bytes that are held.
    pub fn used(&self) -> usize {
        self.state().used.iter().sum()
    }

    /// The bytes that are held for a part.
    pub fn used_for(&self, part: Part) -> usize {
        self.state().used[part.place()]
    }

    /// The most bytes that were ever held at a time.
    pub fn most_used(&self) -> usize {
        self.state().most
    }

    /// Buffers to read into.
    pub fn blocks(&self) -> &Blocks {
        &self.0.blocks
    }

    /// Waits until the part may hold so many bytes more. Cancel-safe; who comes first is served first.
    pub async fn claim(&self, part: Part, bytes: usize) -> Claim {
        let _turn = self.0.turns[part.place()].lock().await;
        if let Some(claim) = self.try_claim(part, bytes) {
            return claim;
        }
        let _waiting = Waiting::new(self, part);
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            // Listens before it looks: what is let go in between wakes it.
            freed.as_mut().enable();
            if let Some(claim) = self.try_claim(part, bytes) {
                return claim;
            }
            freed.await;
        }
    }

    fn try_claim(&self, part: Part, bytes: usize) -> Option<Claim> {
        let mut state = self.state();
        self.0.shares.allow(&state.used, part, bytes).then(|| self.take(&mut state, part, bytes))
    }

    /// Counts bytes that are held already, beyond the limit too: whoever claims next waits for them.
    pub fn charge(&self, part: Part, bytes: usize) -> Claim {
        self.take(&mut self.state(), part, bytes)
    }

    fn take(&self, state: &mut State, part: Part, bytes: usize) -> Claim {
        state.used[part.place()] += bytes;
        state.most = state.most.max(state.used.iter().sum());
        Claim { budget: self.clone(), part, bytes }
    }

    /// Whether somebody waits for bytes of this part now.
    pub fn is_pressed(&self, part: Part) -> bool {
        self.0.pressed.borrow()[part.place()]
    }

    /// Waits until somebody waits for bytes of this part: whoever holds some should let go of them.
    pub async fn pressed(&self, part: Part) {
        let mut pressed = self.0.pressed.subscribe();
        if pressed.wait_for(|pressed| pressed[part.place()]).await.is_err() {
            std::future::pending().await
        }
    }

    fn press(&self, part: Part, state: &State) {
        let is_pressed = state.waiting[part.place()] > 0;
        self.0
            .pressed
            .send_if_modified(|pressed| std::mem::replace(&mut pressed[part.place()], is_pressed) != is_pressed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits.
struct Waiting<'a> {
    budget: &'a MemoryBudget,
    part: Part,
}

impl<'a> Waiting<'a> {
    fn new(budget: &'a MemoryBudget, part: Part) -> Self {
        let mut state = budget.state();
        state.waiting[part.place()] += 1;
        budget.press(part, &state);
        Self { budget, part }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.waiting[self.part.place()] -= 1;
        self.budget.press(self.part, &state);
    }
}

/// Bytes that may be held; dropping it lets them go.
#[derive(Debug)]
pub struct Claim {
    budget: MemoryBudget,
    part: Part,
    bytes: usize,
}

impl Claim {
    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes so many out, or all where they are fewer.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: self.budget.clone(), part: self.part, bytes }
    }

    /// Takes over what another claim of the same part holds.
    pub fn join(&mut self, mut other: Self) {
        debug_assert_eq!(self.part, other.part);
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let is_awaited = {
            let mut state = self.budget.state();
            state.used[self.part.place()] -= self.bytes;
            state.waiting.iter().any(|waiting| *waiting > 0)
        };
        if is_awaited {
            self.budget.0.freed.notify_waiters();
        }
    }
}
