//! Which tokens are good? Those that were given out, until their time is over or somebody takes them back.

use std::collections::BTreeMap;
use std::time::Duration;

use etl::clock::Timestamp;

/// The tokens that a vendor has given out.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    given: u64,
    good: BTreeMap<String, Timestamp>,
}

impl Tokens {
    /// Gives out another one, good for so long.
    pub fn give(&mut self, at: Timestamp, lifetime: Duration) -> String {
        self.given += 1;
        let token = format!("access-{}", self.given);
        let until = at.0.saturating_add(i64::try_from(lifetime.as_micros()).unwrap_or(i64::MAX));
        self.good.insert(token.clone(), Timestamp(until));
        token
    }

    /// Whether a token is good.
    #[must_use]
    pub fn is_good(&self, token: &str, at: Timestamp) -> bool {
        self.good.get(token).is_some_and(|until| at < *until)
    }

    /// Takes a token back.
    pub fn take_back(&mut self, token: &str) {
        self.good.remove(token);
    }

    /// How many were given out.
    #[must_use]
    pub const fn given(&self) -> u64 {
        self.given
    }
}
