//! What is wrong with a destination's settings, seen before anything is connected?

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, below the destination's own.
    pub key: &'static str,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub hint: &'static str,
}
