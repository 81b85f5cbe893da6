//! What do tables ask of the main cursor? To share it, to leave it, and to give up what it has yet to read.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::GiveUp;
use crate::error::{EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::relay::Reader;
use crate::schema::TableId;
use crate::source::{Follow, Reading};
use crate::transform::Selection;

/// A table asks to share the main cursor.
#[derive(Debug)]
pub(in crate::pipeline) struct JoinRequest {
    pub(in crate::pipeline) table: TableId,
    /// The last commit that the table's cursor has begun to read.
    pub(in crate::pipeline) begun: Lsn,
    pub(in crate::pipeline) follow: Follow,
    /// Answers with the commit after which its changes come with the main cursor.
    pub(in crate::pipeline) answer: oneshot::Sender<Lsn>,
    /// Told once the table has made everything up to there durable, with how it is read from there on.
    pub(in crate::pipeline) arrived: oneshot::Receiver<Reading>,
}

/// A table is to leave the main cursor.
#[derive(Debug)]
pub(in crate::pipeline) struct LeaveRequest {
    pub(in crate::pipeline) table: TableId,
    pub(in crate::pipeline) why: Leave,
    /// Answers once that is durable.
    pub(in crate::pipeline) answer: oneshot::Sender<EtlResult<Left>>,
}

/// Why a table leaves the main cursor.
#[derive(Debug)]
pub(in crate::pipeline) enum Leave {
    /// It goes on later.
    Pause,
    /// It is copied anew.
    Resync,
    /// It gets another name, and comes back.
    Rename,
    /// It failed, alone.
    Quarantine(EtlError),
}

/// A table that has left.
#[derive(Debug)]
pub(in crate::pipeline) struct Left {
    /// Everything up to here is durable.
    pub(in crate::pipeline) upto: Position,
    /// Keeps what comes after.
    pub(in crate::pipeline) hold: Reader,
    /// How that begins to be read; further on it may be read otherwise already.
    pub(in crate::pipeline) selection: Option<Arc<Selection>>,
}

/// What tables ask of the main cursor.
#[derive(Debug)]
pub(in crate::pipeline) enum MainRequest {
    Join(JoinRequest),
    Leave(LeaveRequest),
    GiveUp(GiveUp),
}
