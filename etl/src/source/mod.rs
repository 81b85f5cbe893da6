//! What does the source have, and how is it read without missing a row? Catalog, slot, snapshots, stream.

mod assembler;
mod between_runs;
mod catalog;
mod check;
mod chunk;
mod config;
mod copy;
mod extras;
mod failover;
mod heartbeat;
mod identity;
mod judgement;
mod leftovers;
mod look;
mod membership;
mod origin;
mod publication;
mod reshape;
mod shape;
mod shutdown_probe;
mod slot;
mod slot_status;
mod snapshot;
mod standby;
mod stream;
mod touched;
mod types;
mod wal_guard;

pub use between_runs::check_between_runs;
pub use check::{Finding, Severity, check, check_copies};
pub use config::{OnPartitionGone, Origin, SourceConfig};
pub use identity::{Place, place};
pub use leftovers::{Leftover, LeftoverKind, Standing, leftovers, remove_leftover};
pub use slot_status::SlotStatus;
pub use wal_guard::{AtWalLimit, WalGuard};

pub(crate) use assembler::{Assembler, Assembly, Boundary, Follow, Reading, ShapeChange, Stopped};
pub(crate) use catalog::{Leaf, PublishedTable, existing_tables, published_table, published_tables};
pub(crate) use chunk::{Chunk, Chunks};
pub(crate) use copy::{RowReader, Rows};
pub(crate) use extras::table_extras;
pub(crate) use heartbeat::heartbeat;
pub(crate) use identity::{is_resyncing, remember, set_diverged, set_resyncing};
pub(crate) use judgement::{Break, Extent, Found, Judgement, Remembered, judge};
pub(crate) use look::{LABEL, LeafSight, Look, Sight, are_empty, has_confirmed, look, wal_end};
pub(crate) use origin::check_origin;
pub(crate) use publication::{ensure_publication, extend_own};
pub(crate) use reshape::follow;
pub(crate) use shape::{Shape, difference};
pub(crate) use shutdown_probe::{Suspicion, until_shutdown};
pub(crate) use slot::{can_failover, create_slot, drop_slot, reader_replied, set_failover};
pub(crate) use slot_status::{FLUSHED, slot_status};
pub(crate) use snapshot::{
    LockedLeaf, Snapshot, SnapshotId, WRITTEN, is_waited_for, join as join_snapshot, wait_for_writers,
};
pub(crate) use standby::{can_read_standby, is_standby};
pub(crate) use stream::{
    Apart, Marked, Opened, StreamRequest, check_two_phase, frames_around, look_again, marks, open_stream,
};
pub(crate) use touched::{Affected, Touched, affected, forget_touched};
pub(crate) use wal_guard::GuardLevel;
