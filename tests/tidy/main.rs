//! Is the house in order? Every check names each place that breaks a rule, and shows that it can fail.

mod arrows;
mod cost;
mod owners;
mod places;
mod readme;
mod scenarios;
mod shape;
mod tree;

/// Fails with every place that breaks a rule.
fn demand(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}
