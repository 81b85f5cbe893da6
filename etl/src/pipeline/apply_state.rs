//! What does a cursor do next? Decided from what it holds, and nothing else.

use tokio::time::Instant;

use super::batch::{Filling, Sealed};
use super::settings::BatchSettings;
use crate::clock::Timestamp;
use crate::destination::Capabilities;
use crate::lsn::{Lsn, Position};
use crate::schema::TableId;
use crate::source::{Assembly, Boundary};

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Take the batch out and write it.
    Write,
    /// Nothing needs to be written: move on to this boundary.
    Advance(Boundary),
    /// Wait for what comes: for reads if `read`, and not longer than `until`.
    Wait { read: bool, until: Option<Instant> },
    /// All that was to be done is done.
    Finish,
}

/// A table that joins the main cursor once it has made everything up to `at` durable itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Join {
    pub(super) table: TableId,
    at: Position,
    has_arrived: bool,
    /// A write by which it joins was sent and has failed: the destination may have it all the same.
    was_sent: bool,
}

/// What is written next.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) sealed: Sealed,
    /// Tables that share the cursor from then on.
    pub(super) joining: Vec<Join>,
    /// Tables that share it no more.
    pub(super) leaving: Vec<TableId>,
}

/// What a cursor holds.
#[derive(Debug)]
pub(super) struct ApplyState {
    limits: BatchSettings,
    writes_in_flight: usize,
    /// The destination keeps no piece of a transaction without the others.
    is_whole: bool,
    /// Such pieces were taken out, and not the last one.
    is_open: bool,
    filling: Filling,
    in_flight: usize,
    joins: Vec<Join>,
    /// Tables that leave the cursor with the next write.
    leaving: Vec<TableId>,
    /// Whether the write under way is the last one with a table: until it is durable, nothing else is written.
    is_parting: bool,
    /// Everything up to here was taken out to be written, or needs no write.
    taken: Position,
    /// Everything that was committed before this is among it.
    end: Lsn,
    /// Reads no further than this commit, then finishes.
    finish_at: Option<Lsn>,
    is_draining: bool,
    /// Somebody waits for memory that this cursor holds a part of.
    is_pressed: bool,
    /// What was committed before this becomes durable at once, with the first write that reaches it.
    whole_until: Option<Lsn>,
}

impl ApplyState {
    /// A cursor that begins after this position.
    pub(super) fn new(from: Position, limits: BatchSettings, can: Capabilities) -> Self {
        Self {
            limits,
            writes_in_flight: if can.whole_transactions { 1 } else { can.writes_in_flight.max(1) },
            is_whole: can.whole_transactions,
            is_open: false,
            filling: Filling::new(from),
            in_flight: 0,
            joins: Vec::new(),
            leaving: Vec::new(),
            is_parting: false,
            taken: from,
            end: Lsn::ZERO,
            finish_at: None,
            is_draining: false,
            is_pressed: false,
            whole_until: None,
        }
    }

    /// What was committed before `until` becomes durable at once.
    pub(super) fn shown_whole(mut self, until: Option<Lsn>) -> Self {
        if until.is_some() {
            (self.whole_until, self.is_whole, self.writes_in_flight) = (until, true, 1);
        }
        self
    }

    /// It becomes durable as it comes.
    pub(super) fn show_in_parts(&mut self) {
        self.whole_until = None;
    }

    /// Whether the destination has something that becomes durable only with what is to come.
    pub(super) fn keeps_back(&self) -> bool {
        self.is_open && self.whole_until.is_some()
    }

    /// Whether what is written up to there becomes durable with something later only; not where a table joins.
    fn is_kept_back(&self, boundary: Boundary) -> bool {
        let joins = self.joins.iter().any(|join| join.has_arrived && self.taken.max(boundary.position) >= join.at);
        !joins && self.whole_until.is_some_and(|until| boundary.end < until)
    }

    /// Begins again after what is durable; tables that are about to join still are.
    pub(super) fn restart(&mut self, durable: Position) {
        self.filling = Filling::new(durable);
        self.taken = durable;
        self.end = Lsn::ZERO;
        self.is_open = false;
        self.in_flight = 0;
        self.is_parting = false;
    }

    /// Everything before was durable when it began again: a table may leave there.
    pub(super) fn has_reached(&mut self, end: Lsn) {
        self.end = self.end.max(end);
    }

    /// The table joins no more; returns up to where it is durable by itself, if that is known.
    pub(super) fn forget_join(&mut self, table: TableId) -> Option<Option<Position>> {
        let place = self.joins.iter().position(|join| join.table == table)?;
        let join = self.joins.swap_remove(place);
        Some(Some(join.at).filter(|_| !join.was_sent))
    }

    /// The write that tables would have joined or left by has failed.
    pub(super) fn expect_again(&mut self, joins: Vec<Join>, leaving: impl IntoIterator<Item = TableId>) {
        self.joins.extend(joins.into_iter().map(|join| Join { was_sent: true, ..join }));
        self.leaving.extend(leaving);
    }

    /// The table's changes come with another cursor after the next write.
    pub(super) fn leave(&mut self, table: TableId) {
        self.leaving.push(table);
    }

    /// What was read is dropped, and everything before `end`, with these tables: the next write says so.
    pub(super) fn give_up(&mut self, tables: &[TableId], end: Lsn) {
        self.filling = Filling::new(self.taken);
        self.joins.clear();
        self.leaving = tables.to_vec();
        self.end = self.end.max(end);
    }

    /// Whether somebody waits for memory: what there is goes out, within a transaction if there is no other place.
    pub(super) fn press(&mut self, is_pressed: bool) {
        self.is_pressed = is_pressed;
    }

    /// How many events wait to be written.
    pub(super) fn len(&self) -> usize {
        self.filling.len()
    }

    /// Whether there is something to write should anybody wait for memory.
    pub(super) fn can_give(&self, now: Instant) -> bool {
        !self.is_pressed && self.decide_if(now, true) == Decision::Write
    }

    /// What waits to be written weighs this.
    pub(super) fn bytes(&self) -> usize {
        self.filling.bytes()
    }

    /// Whether pieces are to come again from the first one on: a table leaves between two transactions.
    pub(super) fn has_to_return(&self) -> bool {
        self.is_open && self.leaving.iter().any(|table| self.shares(*table))
    }

    /// Whether the destination has pieces of a transaction that it keeps only with the others.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the table has joined; before, there is no place at which it could leave.
    fn shares(&self, table: TableId) -> bool {
        self.joins.iter().all(|join| join.table != table)
    }

    /// When the oldest change that waits to be written was committed.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.filling.oldest()
    }

    /// A block was read.
    pub(super) fn add(&mut self, assembly: Assembly, now: Instant) {
        self.filling.add(assembly, now);
    }

    /// The position up to which events were handed out by the assembler.
    pub(super) fn handed_out(&self) -> Position {
        self.filling.position()
    }

    /// The incomplete transaction will come again.
    pub(super) fn rewind(&mut self) {
        self.filling.rewind();
    }

    /// A table will join after this commit.
    pub(super) fn expect(&mut self, table: TableId, at: Lsn) {
        self.joins.push(Join { table, at: Position::after(at), has_arrived: false, was_sent: false });
    }

    /// The table has made everything before durable; without, it has given up.
    pub(super) fn arrived(&mut self, table: TableId, has_arrived: bool) {
        if has_arrived {
            self.joins.iter_mut().filter(|join| join.table == table).for_each(|join| join.has_arrived = true);
        } else {
            self.joins.retain(|join| join.table != table);
            self.filling.drop_table(table);
        }
    }

    /// Finish once everything up to this commit is durable.
    pub(super) fn finish_at(&mut self, commit: Lsn) {
        self.finish_at = Some(commit);
    }

    /// Whether everything that was to be read is taken out.
    pub(super) fn has_finished(&self) -> bool {
        self.is_beyond(self.taken, self.end)
    }

    /// Whether no commit up to the one at which it finishes is left: no position need be there where the main cursor is
    /// beyond all commits.
    fn is_beyond(&self, reach: Position, end: Lsn) -> bool {
        self.finish_at.is_some_and(|commit| reach >= Position::after(commit) || end > commit)
    }

    /// Read no more, write what is complete, finish.
    pub(super) fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether it was told to.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// The oldest write under way is durable.
    pub(super) fn written(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.is_parting = false;
    }

    /// What to do next.
    pub(super) fn decide(&self, now: Instant) -> Decision {
        self.decide_if(now, self.is_pressed)
    }

    /// A boundary that nothing waits before and that nothing becomes durable with: what comes after it goes on as if
    /// there were none.
    fn is_passing(&self, boundary: Boundary) -> bool {
        self.is_open && !self.filling.has_events_before_boundary() && self.is_kept_back(boundary)
    }

    fn decide_if(&self, now: Instant, is_pressed: bool) -> Decision {
        let boundary = self.filling.boundary().filter(|boundary| !self.is_passing(*boundary));
        let reach = boundary.map_or(self.taken, |boundary| self.taken.max(boundary.position));
        let is_over = self.is_beyond(reach, self.end.max(boundary.map_or(Lsn::ZERO, |boundary| boundary.end)));
        let is_ending = self.is_draining || is_over;
        let is_full = self.filling.is_full(&self.limits);
        let is_old = self.filling.deadline(&self.limits).is_some_and(|deadline| now >= deadline);
        let target = if boundary.is_some() { reach } else { self.filling.position() };
        let is_held = self.joins.iter().any(|join| !join.has_arrived && target > join.at);
        let is_between = !self.is_open || boundary.is_some();
        let can_join = is_between && self.joins.iter().any(|join| join.has_arrived && reach >= join.at);
        let has_batch = self.filling.has_events_before_boundary();
        let is_kept_back = boundary.is_some_and(|boundary| self.is_kept_back(boundary));
        // However little the last piece holds.
        let closes = self.is_open && boundary.is_some() && !is_kept_back;

        if self.is_parting {
            return Decision::Wait { read: !is_full && !is_ending, until: None };
        }
        if self.leaving.iter().any(|table| self.shares(*table)) && !is_ending {
            // Alone, so that it is known where the table leaves.
            let can_leave = self.in_flight == 0 && !is_held;
            return if can_leave { Decision::Write } else { Decision::Wait { read: false, until: None } };
        }
        let gives_piece = boundary.is_none() && (is_full || (is_pressed && !is_ending && self.filling.len() > 0));
        // What is kept back is of no use without the rest, however full or old it is.
        let is_in_vain = is_ending && is_kept_back;
        let is_due = has_batch && !is_in_vain && (is_full || is_old || is_pressed || is_ending);
        let wants_write = can_join || gives_piece || closes || is_due;
        if wants_write && !is_held && self.in_flight < self.writes_in_flight {
            return Decision::Write;
        }
        if let Some(boundary) = boundary
            && self.in_flight == 0
            && !is_held
            && !has_batch
            && !self.is_open
        {
            return Decision::Advance(boundary);
        }
        if is_ending && self.in_flight == 0 && (is_held || is_kept_back || boundary.is_none()) {
            return Decision::Finish;
        }
        // Where nothing would be written, no time changes that.
        let is_timed = has_batch && !wants_write && !is_in_vain;
        let until = self.filling.deadline(&self.limits).filter(|_| is_timed);
        Decision::Wait { read: !is_full && !is_ending, until }
    }

    /// Takes out what [`Decision::Write`] is about, with the tables that join and leave by it.
    pub(super) fn take(&mut self, now: Instant) -> Option<Taken> {
        if self.filling.boundary().is_some_and(|boundary| self.is_passing(boundary)) {
            self.filling.pass_boundary();
        }
        let empty = Sealed { events: Vec::new(), bytes: 0, from: self.taken, upto: self.taken, boundary: None };
        let gives_piece = self.is_pressed && self.filling.boundary().is_none() && self.filling.len() > 0;
        let sealed = match self.filling.seal(&self.limits, now) {
            None if gives_piece && self.leaving.is_empty() => Some(self.filling.seal_piece()),
            sealed => sealed,
        };
        let can_join = self.joins.iter().any(|join| join.has_arrived && self.taken >= join.at);
        let (leaving, staying) = std::mem::take(&mut self.leaving).into_iter().partition(|table| self.shares(*table));
        self.leaving = staying;
        let leaving: Vec<TableId> = leaving;
        if sealed.is_none() && !can_join && leaving.is_empty() {
            return None;
        }
        let mut sealed = sealed.unwrap_or(empty);
        if !sealed.events.is_empty()
            && leaving.is_empty()
            && sealed.boundary.is_some_and(|boundary| self.is_kept_back(boundary))
        {
            sealed = self.filling.keep_back(sealed);
        } else if sealed.boundary.is_some() && !sealed.upto.is_boundary() {
            // What was kept back ends here, although nothing has come since.
            sealed.upto = Position::after(sealed.upto.commit);
            self.filling.begin_after(sealed.upto);
        }
        self.end = self.end.max(sealed.boundary.map_or(Lsn::ZERO, |boundary| boundary.end));
        if let Some(before) = self.end.0.checked_sub(1).filter(|_| !leaving.is_empty()) {
            // The relay may not reach back to the last commit of these tables, but it does to what was read since.
            sealed.upto = sealed.upto.max(Position::after(Lsn(before)));
            self.filling.begin_after(sealed.upto);
        }
        self.taken = self.taken.max(sealed.upto);
        self.is_open = self.is_whole && !sealed.events.is_empty() && !sealed.upto.is_boundary();
        let joins = |join: &Join| join.has_arrived && sealed.upto >= join.at && !self.is_open;
        let (joining, waiting) = self.joins.drain(..).partition::<Vec<_>, _>(joins);
        self.joins = waiting;
        self.in_flight += 1;
        self.is_parting = !leaving.is_empty();
        leaving.iter().for_each(|table| self.filling.drop_table(*table));
        Some(Taken { sealed, joining, leaving })
    }

    /// Takes out what [`Decision::Advance`] is about.
    pub(super) fn advance(&mut self, now: Instant) {
        if let Some(sealed) = self.filling.seal(&self.limits, now) {
            self.taken = self.taken.max(sealed.upto);
            self.end = self.end.max(sealed.boundary.map_or(Lsn::ZERO, |boundary| boundary.end));
        }
    }
}

#[cfg(test)]
mod tests;
