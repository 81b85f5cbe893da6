//! What is known of one table's batches? What is under way, and up to where all is settled.

use std::sync::Arc;

use etl::Position;
use etl::store::{Operation, OperationId};

use crate::writer::WriteUnit;

/// One table's batches.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) generation: u64,
    /// The run that its rows are staged in.
    pub(super) run: Option<Arc<str>>,
    /// Up to where the changes since its copy are settled: what comes again of them is left out.
    pub(super) settled: Position,
    /// Whether a write is under way, or was when it was cut short.
    pub(super) is_writing: bool,
    /// Whether letters are handed over again, or were when that was cut short.
    pub(super) is_replaying: bool,
    /// What is not settled yet, in order.
    pub(super) live: Vec<Operation>,
    /// The operation by which `settled` is known after a restart.
    pub(super) last: Option<OperationId>,
}

/// Where rows come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// The copy of this generation.
    Copy(u64),
    /// The stream: their positions say what is settled of them.
    Stream,
    /// Nobody says.
    Unknown,
}

impl Source {
    /// That of a unit's rows.
    pub(super) fn of(unit: &WriteUnit) -> Self {
        match (&unit.chunk, &unit.batch) {
            (Some((_, chunk)), _) => Self::Copy(chunk.generation),
            (None, Some(_)) => Self::Stream,
            (None, None) => Self::Unknown,
        }
    }
}

impl Lane {
    /// One of a run that stages.
    pub(super) fn of_run(run: &str, generation: u64) -> Self {
        Self { generation, run: Some(Arc::from(run)), ..Self::default() }
    }

    /// An operation is settled; returns one that nobody has to know of any more: this one, or the last before it.
    pub(super) fn has_settled(&mut self, operation: Operation) -> Option<OperationId> {
        let is_copied = operation.first.ordinal == 0;
        let is_of_stream = operation.generation == self.generation && !operation.is_replay;
        if !is_of_stream || operation.last < self.settled || (is_copied && self.settled > Position::ZERO) {
            return Some(operation.id);
        }
        // Copied rows are of a snapshot, and say nothing of the changes before it that other snapshots lack.
        if !is_copied {
            self.settled = operation.last;
        }
        self.last.replace(operation.id.clone()).filter(|before| *before != operation.id)
    }
}
