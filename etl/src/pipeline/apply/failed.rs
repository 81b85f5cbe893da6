//! What when something fails? What is not durable is read again; with a table that fails alone, the main cursor parts.

use tokio::sync::oneshot;

use super::{Applier, Leave, LeaveRequest, Left, start_after};
use crate::error::{ErrorKind, EtlError, EtlResult, RetryClass};
use crate::lsn::Position;
use crate::pipeline::control::Stop;
use crate::pipeline::quarantine::is_of_one_table;
use crate::relay::StartAt;
use crate::schema::TableId;
use crate::store::{CursorId, Held};

/// How often in a row writes may fail because of one table alone before it is left out, although trying again may help.
const PATIENCE: u32 = 3;

/// How often in a row writes may fail because of tables that are about to leave.
const MOST_STRIKES: u32 = 20;

/// A table with which the main cursor parts because it failed.
#[derive(Debug)]
pub(in crate::pipeline) struct LeftFailed {
    pub(in crate::pipeline) table: TableId,
    /// Told once it has left, durably.
    pub(in crate::pipeline) left: oneshot::Receiver<EtlResult<Left>>,
}

impl Applier {
    /// Goes on after an error.
    ///
    /// # Errors
    /// The given one, where nothing helps.
    pub(super) async fn recover(&mut self, error: EtlError) -> EtlResult<()> {
        if let Some(table) = self.blamed(&error) {
            return self.part_with_failed(table, error).await;
        }
        match error.retry_class() {
            RetryClass::Transient => self.begin_again(error).await,
            _ => Err(error.with("cursor", self.cursor)),
        }
    }

    /// The table without which the main cursor could go on.
    fn blamed(&mut self, error: &EtlError) -> Option<TableId> {
        let table = error.table().filter(|_| self.cursor == CursorId::Main && self.given_up.is_none())?;
        self.strikes += 1;
        let patience_ends = error.retry_class() == RetryClass::Transient && self.strikes >= PATIENCE;
        let may_leave = self.strikes <= MOST_STRIKES && self.may_follow(table);
        (may_leave && (is_of_one_table(error) || patience_ends)).then_some(table)
    }

    fn may_follow(&self, table: TableId) -> bool {
        let leaves = self.in_flight.iter().flat_map(|write| &write.leaves);
        self.assembler.followed().chain(leaves.map(|(leave, _)| leave.table)).any(|followed| followed == table)
    }

    /// Nothing of the failed batch counts as durable: the table leaves where the last durable one ends, and what comes
    /// after is read and written again without it.
    async fn part_with_failed(&mut self, table: TableId, error: EtlError) -> EtlResult<()> {
        self.recall_writes().await;
        if let Some(at) = self.state.forget_join(table) {
            self.turn_away(table, at, &error).await?;
        } else if !self.leaves.iter().any(|leave| leave.table == table) {
            let (answer, left) = oneshot::channel();
            self.leaves.push(LeaveRequest { table, why: Leave::Quarantine(error), answer });
            self.state.leave(table);
            // The task of the tables is gone when the pipeline ends.
            let _ = self.run.failed.send(LeftFailed { table, left });
        }
        self.read_again()
    }

    /// The table was about to join: its own cursor goes on later from where it has arrived. Where the destination may
    /// take it for joined, nobody knows where that is, and it is copied anew then.
    async fn turn_away(&mut self, table: TableId, at: Option<Position>, error: &EtlError) -> EtlResult<()> {
        self.read_as_before(self.durable);
        let follow = self.assembler.unfollow(table);
        let Some(at) = at else {
            self.run.own_cursor_closed();
            return self.run.quarantine(table, error, Held::default()).await;
        };
        let (snapshot, selection) = follow.map_or((None, None), |follow| (follow.seen, Some(follow.selection)));
        let mut hold = self.run.relay.reader_of(CursorId::Table(table), start_after(at))?;
        hold.stay();
        let (answer, left) = oneshot::channel();
        // As above: the task of the tables, or its end.
        let _ = self.run.failed.send(LeftFailed { table, left });
        let held = Held { cursor: Some(at), snapshot, ..Held::default() };
        self.run.quarantine(table, error, held).await?;
        let _ = answer.send(Ok(Left { upto: at, hold, selection }));
        Ok(())
    }

    /// Waits, then reads again what is not durable.
    pub(super) async fn begin_again(&mut self, error: EtlError) -> EtlResult<()> {
        self.run.board.failed(&error);
        self.recall_writes().await;
        tokio::select! {
            waited = self.waits.after(error) => waited?,
            _ = self.stop.wait_for(|stop| *stop == Stop::Abort) => {
                return Err(EtlError::new(ErrorKind::Cancelled, "the pipeline was aborted"));
            }
        }
        self.read_again()
    }

    /// The relay has no room for all that the run brings: what is kept back comes again, and is shown as it comes.
    pub(super) async fn show_in_parts(&mut self) -> EtlResult<()> {
        tracing::warn!("the relay is full before the run has read all: its changes are shown commit by commit");
        self.state.show_in_parts();
        self.recall_writes().await;
        self.read_again()
    }

    /// Ends every write that is under way.
    pub(super) async fn recall_writes(&mut self) {
        let mut failed = Vec::new();
        // The last one first: none is to go on while those before it have ended.
        self.in_flight.iter().rev().for_each(|write| write.task.0.abort());
        self.calls.begin_again();
        for mut write in self.in_flight.drain(..) {
            // Whether it ended by itself or by the abort, nothing of it goes on after this.
            let _ = (&mut write.task.0).await;
            failed.push((write.joins, write.leaves));
        }
        failed.into_iter().for_each(|(joins, leaves)| self.take_back(joins, leaves));
    }

    /// Reads again what is not durable.
    pub(super) fn read_again(&mut self) -> EtlResult<()> {
        self.pieces = 0;
        if self.given_up.is_none() {
            self.read_from(start_after(self.durable))?;
        }
        self.stopped = None;
        self.read_as_before(self.durable);
        self.assembler.restart(self.durable);
        self.state.restart(self.durable);
        self.state.has_reached(self.reached);
        drop(self.notes.split(usize::MAX));
        if let Some(given_up) = &self.given_up {
            self.state.give_up(&given_up.tables, given_up.end);
        }
        Ok(())
    }

    /// Reads from somewhere else.
    pub(super) fn read_from(&mut self, from: StartAt) -> EtlResult<()> {
        let mut reader = self.run.relay.reader_of(self.cursor, from)?;
        reader.stay();
        reader.within(&self.run.board.memory, super::part_of(self.cursor));
        std::mem::replace(&mut self.reader, reader).leave();
        Ok(())
    }

    /// Ends where it is, whatever is under way; returns where that is, with what keeps the rest.
    ///
    /// # Errors
    /// The relay cannot be read any more.
    pub(in crate::pipeline) async fn stop_here(mut self) -> EtlResult<Left> {
        self.recall_writes().await;
        self.hold()
    }
}
