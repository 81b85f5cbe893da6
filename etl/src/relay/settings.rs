//! How much may the relay hold, and what happens then?

use serde::{Deserialize, Serialize};

use crate::byte_size::ByteSize;

/// The limits of the relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelaySettings {
    /// What it may hold on disk. Default 10GiB.
    pub max_bytes: ByteSize,
    /// What happens at that limit.
    pub at_limit: AtLimit,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self { max_bytes: ByteSize::gib(10), at_limit: AtLimit::default() }
    }
}

/// What happens when the relay is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AtLimit {
    /// Reading stops, and the source keeps its WAL.
    #[default]
    Wait,
    /// What waits for the slowest cursor is dropped, and its tables are copied again: a paused table once it goes on;
    /// with `ack: relay` and a destination that is down all tables once it is back. Where nothing that is dropped
    /// would make room, it waits.
    Resync,
    /// The run ends with an error.
    Stop,
}
