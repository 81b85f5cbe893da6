//! What does something get that needs a name which nobody else has come to, in another process neither?

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that nobody else comes to, and nobody guesses.
pub(crate) fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}
