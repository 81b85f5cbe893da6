//! What does a table go on from that waits, and why does it wait?

use serde::{Deserialize, Serialize};

use super::{CopySoFar, Mixed, SnapshotFilter};
use crate::clock::Timestamp;
use crate::lsn::Position;

/// What a table goes on from that is paused or in quarantine; the default is a copy from the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// Its changes after this wait in the relay; `None` where it is copied anew once it goes on.
    pub cursor: Option<Position>,
    /// What its copy has seen of those.
    pub snapshot: Option<SnapshotFilter>,
    /// As of [`Phase::CatchingUp`](super::Phase::CatchingUp).
    pub mixed: Option<Mixed>,
    /// As of [`Phase::Copying`](super::Phase::Copying), where it is not copied yet.
    pub so_far: Option<CopySoFar>,
}

/// Why a table failed alone, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// What failed.
    pub reason: String,
    /// The [kind](crate::ErrorKind::name) of the error.
    pub kind: String,
    /// What the user can do.
    pub hint: Option<String>,
    /// When it failed.
    pub since: Timestamp,
    /// How often it has failed in a row without getting any further.
    pub failures: u32,
    /// When it is tried again.
    pub retry_at: Option<Timestamp>,
    /// What it goes on from.
    pub held: Held,
}
