//! Which random numbers does a test draw, and how are they drawn again?

use std::env;

use rand::{Rng, SeedableRng, rngs::StdRng};

/// The seed of this run: `ETL_SEED`, else `usual`, printed so that a failure can be replayed.
#[must_use]
pub fn seed(usual: u64) -> u64 {
    let seed = env::var("ETL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    println!("seed {seed} (replay with ETL_SEED={seed})");
    seed
}

/// A fresh seed for long runs that want a new one each time; `ETL_SEED` wins.
#[must_use]
pub fn fresh_seed() -> u64 {
    seed(rand::random())
}

/// The numbers of one part of a run; parts do not disturb each other.
#[must_use]
pub fn numbers(seed: u64, part: u64) -> StdRng {
    let mut first = StdRng::seed_from_u64(seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    StdRng::seed_from_u64(first.next_u64())
}
