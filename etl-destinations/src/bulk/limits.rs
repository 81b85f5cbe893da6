//! What does a system take at a time, how often is it asked, and may a batch be handed over twice?

use std::time::Duration;

use etl::clock::Timestamp;

/// What a system takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows in a batch.
    pub max_rows: u32,
    /// Bytes of a batch's body, all that frames the rows included.
    pub max_bytes: u64,
    /// Bytes of one row; a larger one is a dead letter.
    pub max_row_bytes: u64,
    /// How many batches of a table may be under way where order is of no matter.
    pub in_flight: u32,
    /// How many requests the account may make; `None`: as many as there are.
    pub rate: Option<Rate>,
}

/// A bucket of requests: `burst` at once, and one more after each `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many at once.
    pub burst: u32,
    /// After how long one more.
    pub every: Duration,
}

/// How a system is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether batches of a table have to be settled one after the other.
    pub order: Order,
    /// What may be done when it is not known whether a batch has arrived.
    pub resubmit: Resubmit,
    /// When a job is asked for.
    pub polls: Schedule,
    /// How long a job may take before it is stuck.
    pub deadline: Duration,
    /// After how long the system does not know a job any more.
    pub forgets_after: Option<Duration>,
    /// How often a batch is submitted before it is held.
    pub max_attempts: u32,
    /// What becomes of rows of which the system does not say what became of them.
    pub unattributed: Unattributed,
    /// The percentage of a batch's rows beyond which refusals are taken for a wrong mapping: the table is held, and no row
    /// becomes a dead letter.
    pub max_dead_percent: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            order: Order::PerTable,
            resubmit: Resubmit::Idempotent,
            polls: Schedule::default(),
            deadline: Duration::from_secs(4 * 3600),
            forgets_after: None,
            max_attempts: 5,
            unattributed: Unattributed::Retry,
            max_dead_percent: 10,
        }
    }
}

/// In which order a table's batches may arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One is settled before the next is submitted.
    PerTable,
    /// In any.
    Any,
}

/// What may be done when it is not known whether a batch has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resubmit {
    /// The system takes a name of ours and knows it again: it is handed over again.
    ClientId,
    /// The system can be asked for what it has got: [`recover`](super::BulkDestination::recover) does.
    Discover,
    /// The same rows twice end as once: it is handed over again.
    Idempotent,
    /// Handed over again it is there twice: it is, and counted.
    UnsafeAtLeastOnce,
    /// Handed over again it would be there twice: it is held until somebody says what to do.
    UnsafeAtMostOnce,
}

/// What becomes of rows of which a system does not say what became of them. They are never taken for succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unattributed {
    /// They are submitted again, in a batch of their own.
    Retry,
    /// The operation is held.
    Hold,
}

/// When a job is asked for: later and later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// After this for the first time.
    pub first: Duration,
    /// At most this apart.
    pub longest: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { first: Duration::from_secs(2), longest: Duration::from_secs(60) }
    }
}

impl Schedule {
    /// How long to wait after so many times: a factor of 1.6 each, moved by up to a fifth either way by `chance` (0 to 1).
    pub fn wait(&self, times: u32, chance: f64) -> Duration {
        let grown = self.first.as_secs_f64() * 1.6_f64.powi(i32::try_from(times.min(64)).unwrap_or(64));
        let wait = grown.min(self.longest.as_secs_f64());
        Duration::from_secs_f64(wait * (0.8 + 0.4 * chance.clamp(0.0, 1.0)))
    }
}

/// A bucket as it is at a time. Pure: whoever waits asks it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    rate: Rate,
    /// When it is full again.
    full_at: Timestamp,
}

impl Bucket {
    pub(crate) const fn new(rate: Rate) -> Self {
        Self { rate, full_at: Timestamp(i64::MIN) }
    }

    /// Takes a request out, and says how long it has to wait.
    pub(crate) fn take(&mut self, now: Timestamp) -> Duration {
        let every = micros(self.rate.every);
        let full_at = self.full_at.0.max(now.0).saturating_add(every);
        self.full_at = Timestamp(full_at);
        let capacity = every.saturating_mul(i64::from(self.rate.burst.max(1)));
        Timestamp(full_at.saturating_sub(capacity)).since(now)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_burst_and_then_one_after_each_interval() {
        let mut bucket = Bucket::new(Rate { burst: 3, every: Duration::from_secs(2) });
        let at = |seconds: i64| Timestamp(seconds * 1_000_000);
        let waits: Vec<u64> = (0..5).map(|_| bucket.take(at(100)).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 2, 4]);
        assert_eq!(bucket.take(at(110)).as_secs(), 0, "two intervals were owed, then three came in");
        assert_eq!([(); 3].map(|()| bucket.take(at(1000)).as_secs()), [0, 0, 0], "it holds no more than the burst");
        assert_eq!(bucket.take(at(1000)).as_secs(), 2);
    }

    #[test]
    fn waits_grow_to_the_longest_and_vary_by_a_fifth() {
        let schedule = Schedule { first: Duration::from_secs(2), longest: Duration::from_secs(60) };
        let wait = |times, chance| schedule.wait(times, chance).as_secs_f64();
        assert!((wait(0, 0.5) - 2.0).abs() < 1e-9 && (wait(1, 0.5) - 3.2).abs() < 1e-9);
        assert!((wait(100, 0.0) - 48.0).abs() < 1e-9 && (wait(u32::MAX, 1.0) - 72.0).abs() < 1e-9);
    }
}
