//! What happens to a test that cannot run here? It is counted and printed; in CI it fails.

use std::{
    env,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Counts and prints a test that cannot run here, with the reason.
///
/// # Panics
/// In CI (`CI=true`), where a skip would hide that nothing was shown.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(!in_ci(), "{test} cannot run: {reason}");
    skip_part(reason);
}

/// Counts and prints what a test cannot show here, in CI too: what no server that can be had for it offers.
pub fn skip_part(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let count = SKIPPED.fetch_add(1, Relaxed) + 1;
    // Straight to the terminal: the test runner keeps back what a passing test prints.
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED ({count} so far) {test}: {reason}");
}

/// Prints that a test is about what this version of the source does not have; there is nothing to show, in CI neither.
pub fn inapplicable(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "NOTHING TO SHOW {test}: {reason}");
}

/// How many tests of this binary were skipped so far.
#[must_use]
pub fn skipped() -> usize {
    SKIPPED.load(Relaxed)
}

fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| matches!(value.as_str(), "true" | "1"))
}
