//! How many requests may be made in a time? Fixed windows, counted apart for each account and endpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use etl::clock::Timestamp;

/// So many requests in a window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub most: u32,
    /// How long a window is.
    pub window: Duration,
}

/// Requests counted in windows.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    rates: Vec<Rate>,
    /// By who asked for what, and by rate: which window, and how many in it.
    counted: BTreeMap<(String, usize), (i64, u32)>,
}

impl Rates {
    /// All of these at once.
    #[must_use]
    pub const fn new(rates: Vec<Rate>) -> Self {
        Self { rates, counted: BTreeMap::new() }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// One too many: how long until the window ends, in whole seconds.
    pub fn count(&mut self, of: &str, at: Timestamp) -> Result<(), u64> {
        let mut refused = None;
        for (place, rate) in self.rates.iter().enumerate() {
            let length = i64::try_from(rate.window.as_micros()).unwrap_or(i64::MAX);
            let window = at.0.div_euclid(length);
            let (current, count) = self.counted.entry((of.to_owned(), place)).or_insert((window, 0));
            if *current != window {
                (*current, *count) = (window, 0);
            }
            *count += 1;
            if *count > rate.most {
                let left = Timestamp((window + 1) * length).since(at);
                refused = refused.max(Some(left.as_micros().div_ceil(1_000_000) as u64));
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// How many more there may be in the longest window, how many in all, and in how many seconds it ends.
    #[must_use]
    pub fn left(&self, of: &str, at: Timestamp) -> Option<(u32, u32, u64)> {
        let (place, rate) = self.rates.iter().enumerate().max_by_key(|(_, rate)| rate.window)?;
        let length = i64::try_from(rate.window.as_micros()).unwrap_or(i64::MAX);
        let window = at.0.div_euclid(length);
        let counted = self.counted.get(&(of.to_owned(), place)).filter(|(current, _)| *current == window);
        let left = rate.most.saturating_sub(counted.map_or(0, |(_, count)| *count));
        Some((left, rate.most, Timestamp((window + 1) * length).since(at).as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_and_another_begins() {
        let rate = |most, seconds| Rate { most, window: Duration::from_secs(seconds) };
        let mut rates = Rates::new(vec![rate(2, 1), rate(5, 60)]);
        let at = |seconds: f64| Timestamp((seconds * 1e6) as i64);
        let mut asked = |of: &str, seconds| rates.count(of, at(seconds));
        assert_eq!([asked("a", 60.5), asked("a", 60.6), asked("a", 60.7)], [Ok(()), Ok(()), Err(1)]);
        assert_eq!(asked("b", 60.7), Ok(()), "another account");
        assert_eq!([asked("a", 61.0), asked("a", 61.0)], [Ok(()), Ok(())]);
        assert_eq!(asked("a", 90.2), Err(30), "the longer window counts those that were refused as well");
        assert_eq!(asked("a", 120.0), Ok(()));
        assert_eq!(rates.left("a", at(120.5)), Some((4, 5, 59)));
        assert_eq!(rates.left("c", at(120.5)), Some((5, 5, 59)));
    }
}
