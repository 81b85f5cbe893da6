//! What does the source have, and how is it read without missing a row? Catalog, slot, snapshots, stream.

mod assembler;
mod catalog;
mod check;
mod chunk;
mod config;
mod copy;
mod heartbeat;
mod identity;
mod publication;
mod shape;
mod shutdown_probe;
mod slot;
mod slot_status;
mod snapshot;
mod stream;
mod types;

pub use check::{Finding, Severity, check};
pub use config::SourceConfig;
pub use slot_status::SlotStatus;

pub(crate) use assembler::{Assembler, Assembly, Boundary, Follow, Stopped};
pub(crate) use catalog::{PublishedTable, published_table, published_tables};
pub(crate) use chunk::{Chunk, Chunks};
pub(crate) use copy::{RowReader, Rows};
pub(crate) use heartbeat::heartbeat;
pub(crate) use identity::{SystemIdentity, check_history, check_start};
pub(crate) use publication::ensure_publication;
pub(crate) use shutdown_probe::{Suspicion, until_shutdown};
pub(crate) use slot::{ensure_slot, reader_replied};
pub(crate) use slot_status::slot_status;
pub(crate) use snapshot::{LockedLeaf, Snapshot, SnapshotId, is_waited_for, join as join_snapshot, wait_for_writers};
pub(crate) use stream::{Apart, Marked, StreamRequest, check_two_phase, frames_around, marks, open_stream};
