//! What does a config look like? The example that `etl init` writes.

/// A config with every key that works, as text with comments; it needs the variable `DATABASE_URL`.
pub const fn sample() -> &'static str {
    include_str!("sample.yaml")
}
