//! When is something tried again? The only place that waits between attempts.

use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::clock;
use crate::error::{EtlError, EtlResult, RetryClass};

/// How long to wait between attempts, and when to give up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// The first wait.
    pub first: Duration,
    /// No wait is longer.
    pub longest: Duration,
    /// Waits are given up when the attempts have taken this long; `None` never gives up.
    pub give_up_after: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(10), give_up_after: None }
    }
}

impl RetryPolicy {
    /// The waits, growing by the factor two, with jitter.
    pub fn waits(&self) -> Waits {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_jitter()
            .without_max_times()
            .build();
        Waits { backoff, since: clock::monotonic(), policy: *self }
    }
}

/// The waits of one piece of work.
#[derive(Debug)]
pub struct Waits {
    backoff: backon::ExponentialBackoff,
    since: tokio::time::Instant,
    policy: RetryPolicy,
}

impl Waits {
    /// Waits before the next attempt, or hands the error back when trying again does not help.
    ///
    /// # Errors
    /// The given error, when it is not transient or the policy has run out.
    pub async fn after(&mut self, error: EtlError) -> EtlResult<()> {
        let Some(wait) = self.next_wait(&error) else { return Err(error) };
        tracing::warn!(%error, wait_ms = wait.as_millis(), "trying again");
        pause(wait).await;
        Ok(())
    }

    /// Begins anew: the work made progress.
    pub fn reset(&mut self) {
        *self = self.policy.waits();
    }

    fn next_wait(&mut self, error: &EtlError) -> Option<Duration> {
        let spent = clock::monotonic().saturating_duration_since(self.since);
        let over = self.policy.give_up_after.is_some_and(|limit| spent >= limit);
        (error.retry_class() == RetryClass::Transient && !over).then(|| self.backoff.next())?
    }
}

/// Runs `attempt` until it succeeds, fails for good, or the policy gives up.
///
/// # Errors
/// The last attempt's error.
pub async fn retry<T, F>(policy: RetryPolicy, mut attempt: impl FnMut() -> F) -> EtlResult<T>
where
    F: Future<Output = EtlResult<T>>,
{
    let mut waits = policy.waits();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => waits.after(error).await?,
        }
    }
}

/// Does nothing for a while.
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::cell::Cell;

    fn failing(kind: ErrorKind, times: u32, calls: &Cell<u32>) -> impl FnMut() -> std::future::Ready<EtlResult<u32>> {
        move || {
            calls.set(calls.get() + 1);
            let done = calls.get() > times;
            std::future::ready(if done { Ok(calls.get()) } else { Err(EtlError::new(kind, "no")) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn transient_errors_are_tried_again_until_it_works() {
        let calls = Cell::new(0);
        let value = retry(RetryPolicy::default(), failing(ErrorKind::SourceUnavailable, 20, &calls)).await;
        assert_eq!(value.unwrap(), 21);
    }

    #[tokio::test(start_paused = true)]
    async fn what_needs_a_person_is_not_tried_again() {
        let calls = Cell::new(0);
        let value = retry(RetryPolicy::default(), failing(ErrorKind::Config, 20, &calls)).await;
        assert_eq!((value.unwrap_err().kind(), calls.get()), (ErrorKind::Config, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_ends_the_attempts() {
        let calls = Cell::new(0);
        let policy = RetryPolicy { give_up_after: Some(Duration::from_secs(30)), ..RetryPolicy::default() };
        let started = clock::monotonic();
        assert!(retry(policy, failing(ErrorKind::SlotBusy, u32::MAX, &calls)).await.is_err());
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}
