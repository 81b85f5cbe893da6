//! What when a table's rows look different from here on? It is followed in place where that is certain; otherwise it
//! leaves the cursor, alone, and is copied as it is now.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Applier, Leave, LeaveRequest, Left, LeftFailed, notes_of, part_of};
use crate::clock;
use crate::error::{EtlError, EtlResult};
use crate::lsn::Position;
use crate::relay::Aborted;
use crate::schema::TableId;
use crate::source::{Reading, ShapeChange, Stopped};
use crate::store::CursorId;
use crate::transform::Selection;

/// A block, or what is left of one.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) bytes: Bytes,
    /// Where it begins in the relay.
    pub(super) offset: u64,
    pub(super) in_stream: Option<Arc<Aborted>>,
}

/// A table whose rows do not look as they are known to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pipeline) struct Changed {
    pub(in crate::pipeline) table: TableId,
    /// What is different.
    pub(in crate::pipeline) what: String,
}

/// A table that leaves the main cursor because it has changed.
#[derive(Debug)]
pub(in crate::pipeline) struct LeftChanged {
    pub(in crate::pipeline) changed: Changed,
    /// Told once it has left, durably: no earlier write to it can come any more.
    pub(in crate::pipeline) left: oneshot::Receiver<EtlResult<Left>>,
}

/// What is left, and who has changed.
#[derive(Debug)]
pub(super) struct Waiting {
    rest: Rest,
    changed: Changed,
    /// The table has yet to arrive: until then nobody knows what its rows look like.
    is_expected: bool,
}

/// A table whose rows are read in another shape since.
#[derive(Debug)]
pub(super) struct Reshaped {
    /// Where the shape begins.
    pub(super) position: Position,
    pub(super) table: TableId,
    before: Arc<Selection>,
    change: ShapeChange,
}

impl Applier {
    /// Reads a block as far as it is certain what its rows look like.
    pub(super) async fn block(&mut self, mut rest: Rest) -> EtlResult<()> {
        loop {
            let mut assembly = self.assembler.read(&rest.bytes, rest.offset, rest.in_stream.as_deref())?;
            let stopped = assembly.stopped.take();
            self.meet_strangers();
            let notes = notes_of(&assembly, rest.bytes.len());
            self.notes.join(self.run.board.memory.charge(part_of(self.cursor), notes));
            self.state.add(assembly, clock::monotonic());
            let Some(stopped) = stopped else { return Ok(()) };
            rest = Rest { bytes: rest.bytes.slice(stopped.at..), offset: rest.offset + stopped.at as u64, ..rest };
            let is_expected = self.assembler.expects(stopped.table);
            let may_copy = match is_expected {
                true => Ok(()),
                false => match self.is_followed_in_place(&stopped).await {
                    Ok(true) => continue,
                    Ok(false) => self.run.expect_copy_allowed(stopped.table, &stopped.change.what).await,
                    Err(error) => Err(error),
                },
            };
            let changed = Changed { table: stopped.table, what: stopped.change.what };
            match (may_copy, self.cursor) {
                _ if is_expected => {}
                (Ok(()), CursorId::Main) => self.part_with(changed.clone()),
                (Ok(()), CursorId::Table(_)) => {}
                (Err(error), CursorId::Main) if error.table() == Some(stopped.table) => {
                    self.part_with_refused(stopped.table, error);
                }
                (Err(error), _) => return Err(error),
            }
            self.stopped = Some(Waiting { rest, changed, is_expected });
            return Ok(());
        }
    }

    /// Whoever watches the publication looks at once where rows come of a table that nobody knows.
    fn meet_strangers(&mut self) {
        let strangers = std::mem::take(&mut self.assembler.strangers);
        if self.cursor == CursorId::Main && strangers.iter().any(|table| !self.run.published.knows(*table)) {
            self.run.strangers.notify_one();
        }
    }

    /// Goes on with the table as it is now, where that is certain.
    async fn is_followed_in_place(&mut self, stopped: &Stopped) -> EtlResult<bool> {
        let Stopped { table, position, change, .. } = stopped;
        let Some(shape) = &change.shape else { return Ok(false) };
        let Some(selection) = self.run.follow(*table, shape, *position).await? else { return Ok(false) };
        let (assembly, before) = self.assembler.reshape(*table, selection, *position)?;
        self.state.add(assembly, clock::monotonic());
        let reshaped = |before| Reshaped { position: *position, table: *table, before, change: change.clone() };
        self.reshaped.extend(before.map(reshaped));
        Ok(true)
    }

    /// Everything after this is read again, and in the shape that it had.
    pub(super) fn read_as_before(&mut self, after: Position) {
        let again: Vec<Reshaped> = self.reshaped.extract_if(.., |reshaped| reshaped.position > after).collect();
        for Reshaped { table, before, change, .. } in again.into_iter().rev() {
            self.assembler.read_as_before(table, before, change);
        }
    }

    /// How a table was read before the first change of its shape that is not durable.
    pub(super) fn read_before(&self, table: TableId) -> Option<Arc<Selection>> {
        self.reshaped.iter().find(|reshaped| reshaped.table == table).map(|reshaped| Arc::clone(&reshaped.before))
    }

    /// How the cursor's table is read now.
    pub(in crate::pipeline) fn reading_of(&self, table: TableId) -> Option<Reading> {
        self.assembler.reading(table)
    }

    /// Nothing after the change becomes durable before it is stored that the table is to be copied: what is read up to
    /// here is written, and the table leaves by that.
    fn part_with(&mut self, changed: Changed) {
        let table = changed.table;
        if self.leaves.iter().any(|leave| leave.table == table) {
            return;
        }
        let (answer, left) = oneshot::channel();
        self.leaves.push(LeaveRequest { table, why: Leave::Resync, answer });
        self.state.leave(table);
        // The task of the tables is gone when the pipeline ends.
        let _ = self.run.changed.send(LeftChanged { changed, left });
    }

    /// The table is not to go on by itself: it leaves as the one that changes does, and waits.
    fn part_with_refused(&mut self, table: TableId, error: EtlError) {
        if self.leaves.iter().any(|leave| leave.table == table) {
            return;
        }
        let (answer, left) = oneshot::channel();
        self.leaves.push(LeaveRequest { table, why: Leave::Quarantine(error), answer });
        self.state.leave(table);
        // As above.
        let _ = self.run.failed.send(LeftFailed { table, left });
    }

    /// Reads on once the table that had changed is gone, or the one that was expected has arrived.
    pub(super) async fn go_on(&mut self) -> EtlResult<()> {
        match self.stopped.take() {
            Some(waiting) if self.keeps_waiting(&waiting) => {
                self.stopped = Some(waiting);
                Ok(())
            }
            Some(waiting) => self.block(waiting.rest).await,
            None => Ok(()),
        }
    }

    fn keeps_waiting(&self, Waiting { changed, is_expected, .. }: &Waiting) -> bool {
        if *is_expected {
            return self.assembler.expects(changed.table);
        }
        self.assembler.follow_of(changed.table).is_some()
    }

    /// The cursor's table, if it looks different from where the cursor stands.
    pub(in crate::pipeline) fn changed(&self) -> Option<&Changed> {
        self.stopped.as_ref().map(|waiting| &waiting.changed)
    }
}
