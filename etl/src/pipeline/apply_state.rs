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
        }
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

    fn decide_if(&self, now: Instant, is_pressed: bool) -> Decision {
        let boundary = self.filling.boundary();
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
        // However little the last piece holds.
        let closes = self.is_open && boundary.is_some();

        if self.is_parting {
            return Decision::Wait { read: !is_full && !is_ending, until: None };
        }
        if self.leaving.iter().any(|table| self.shares(*table)) && !is_ending {
            // Alone, so that it is known where the table leaves.
            let can_leave = self.in_flight == 0 && !is_held;
            return if can_leave { Decision::Write } else { Decision::Wait { read: false, until: None } };
        }
        let gives_piece = boundary.is_none() && (is_full || (is_pressed && !is_ending && self.filling.len() > 0));
        let wants_write =
            can_join || gives_piece || closes || (has_batch && (is_full || is_old || is_ending || is_pressed));
        if wants_write && !is_held && self.in_flight < self.writes_in_flight {
            return Decision::Write;
        }
        if let Some(boundary) = boundary
            && self.in_flight == 0
            && !is_held
            && !has_batch
            && !closes
        {
            return Decision::Advance(boundary);
        }
        if is_ending && self.in_flight == 0 && (is_held || boundary.is_none()) {
            return Decision::Finish;
        }
        let until = if wants_write { None } else { self.filling.deadline(&self.limits).filter(|_| boundary.is_some()) };
        Decision::Wait { read: !is_full && !is_ending, until }
    }

    /// Takes out what [`Decision::Write`] is about, with the tables that join and leave by it.
    pub(super) fn take(&mut self, now: Instant) -> Option<Taken> {
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
mod tests {
    use super::*;
    use crate::byte_size::ByteSize;
    use crate::clock;
    use crate::data::Event;
    use std::time::Duration;

    const LIMITS: BatchSettings =
        BatchSettings { max_bytes: ByteSize(1 << 20), max_rows: 10, max_age: Duration::from_secs(1) };
    const TABLE: TableId = TableId(7);

    fn after(commit: u64) -> Position {
        Position::after(Lsn(commit))
    }

    fn boundary(commit: u64) -> Boundary {
        Boundary { position: after(commit), end: Lsn(commit + 1), offset: commit }
    }

    fn transaction(events: usize, commit: u64) -> Assembly {
        Assembly {
            made: 0,
            events: vec![Event::Begin { xid: 1, commit: Lsn(commit) }; events],
            bytes: events,
            boundary: Some((events, boundary(commit))),
            position: Some(after(commit)),
            stopped: None,
        }
    }

    fn state() -> ApplyState {
        ApplyState::new(after(5), LIMITS, Capabilities::default())
    }

    fn reads(until: Option<Instant>) -> Decision {
        Decision::Wait { read: true, until }
    }

    #[test]
    fn a_batch_is_written_when_it_is_old_or_full_and_no_write_is_under_way() {
        let now = clock::monotonic();
        let mut state = state();
        assert_eq!(state.decide(now), reads(None));
        state.add(transaction(3, 10), now);
        let deadline = now + LIMITS.max_age;
        assert_eq!(state.decide(now), reads(Some(deadline)));
        assert_eq!(state.decide(deadline), Decision::Write);
        let Taken { sealed, joining, .. } = state.take(deadline).unwrap();
        assert_eq!((sealed.from, sealed.upto, joining.len()), (after(5), after(10), 0));
        state.add(transaction(10, 20), now);
        assert_eq!(state.decide(now), Decision::Wait { read: false, until: None }, "full, and one is under way");
        state.written();
        assert_eq!(state.decide(now), Decision::Write);
    }

    #[test]
    fn p1_positions_without_events_wait_for_the_writes_before_them() {
        let now = clock::monotonic();
        let mut state = state();
        state.add(transaction(10, 10), now);
        state.take(now).unwrap();
        state.add(transaction(0, 20), now);
        assert_eq!(state.decide(now), reads(None));
        state.written();
        assert_eq!(state.decide(now), Decision::Advance(boundary(20)));
        state.advance(now);
        assert_eq!(state.decide(now), reads(None));
    }

    #[test]
    fn nothing_beyond_a_joining_table_is_written_before_it_arrives() {
        let now = clock::monotonic();
        let late = now + LIMITS.max_age;
        let mut state = state();
        state.expect(TABLE, Lsn(10));
        state.add(transaction(2, 10), now);
        assert_eq!(state.decide(late), Decision::Write, "up to the join");
        assert!(state.take(late).unwrap().joining.is_empty());
        state.written();
        state.add(transaction(2, 20), now);
        assert!(matches!(state.decide(late), Decision::Wait { .. }), "held");
        state.arrived(TABLE, true);
        assert_eq!(state.decide(now), Decision::Write);
        let joining = state.take(now).unwrap().joining;
        assert_eq!(joining.iter().map(|join| join.table).collect::<Vec<_>>(), [TABLE]);
    }

    #[test]
    fn a_table_joins_an_idle_cursor_by_a_batch_without_events() {
        let now = clock::monotonic();
        let mut state = state();
        state.expect(TABLE, Lsn(3));
        state.arrived(TABLE, true);
        assert_eq!(state.decide(now), Decision::Write);
        let Taken { sealed, joining, .. } = state.take(now).unwrap();
        assert_eq!((sealed.events.len(), sealed.upto, joining.len()), (0, after(5), 1));
        state.written();
        assert_eq!(state.decide(now), reads(None));
    }

    #[test]
    fn pieces_that_are_kept_together_end_with_the_transaction_and_nobody_joins_or_leaves_between() {
        let now = clock::monotonic();
        let whole = Capabilities::default().with_whole_transactions().with_writes_in_flight(5);
        let mut state = ApplyState::new(after(5), LIMITS, whole);
        let piece = |commit| Assembly {
            boundary: None,
            position: Some(Position::new(Lsn(commit), 10)),
            ..transaction(10, commit)
        };
        state.expect(TABLE, Lsn(5));
        state.add(piece(10), now);
        assert!(matches!(state.decide(now), Decision::Wait { .. }), "held");
        state.arrived(TABLE, true);
        assert!(state.take(now).unwrap().joining.is_empty());
        assert_eq!(state.decide(now), reads(None), "one at a time");
        state.written();
        assert_eq!((state.decide(now), state.is_open()), (reads(None), true), "it joins with the last one");
        state.add(transaction(0, 10), now);
        assert_eq!(state.decide(now), Decision::Write);
        let Taken { sealed, joining, .. } = state.take(now).unwrap();
        assert_eq!((sealed.events.len(), sealed.upto, joining.len()), (0, after(10), 1));
        state.written();
        assert!(!state.is_open());

        state.add(piece(20), now);
        state.take(now).unwrap();
        state.leave(TABLE);
        assert!(state.has_to_return());
        state.restart(after(10));
        assert_eq!((state.decide(now), state.has_to_return()), (Decision::Write, false));
    }

    #[test]
    fn a_table_leaves_with_a_write_of_its_own_and_takes_its_later_changes_with_it() {
        let now = clock::monotonic();
        let change = |commit| {
            let position = Position::new(Lsn(commit), 1);
            Event::Truncate { tables: [TABLE].into(), positions: [position].into(), at: Timestamp(0) }
        };
        let mut state = ApplyState::new(after(5), LIMITS, Capabilities::default().with_writes_in_flight(2));
        state.add(transaction(10, 10), now);
        state.take(now).unwrap();
        state.leave(TABLE);
        assert_eq!(state.decide(now), Decision::Wait { read: false, until: None }, "one is under way");
        state.written();
        let mut both = transaction(1, 20);
        both.events.extend([change(20), change(30)]);
        both.boundary = Some((2, boundary(20)));
        both.position = Some(Position::new(Lsn(30), 1));
        state.add(both, now);
        assert_eq!(state.decide(now), Decision::Write);
        let Taken { sealed, leaving, .. } = state.take(now).unwrap();
        assert_eq!((sealed.events.len(), sealed.upto, leaving), (2, after(20), vec![TABLE]));
        state.add(transaction(20, 40), now);
        assert_eq!(state.decide(now), Decision::Wait { read: false, until: None }, "it may fail");
        state.expect_again(Vec::new(), [TABLE]);
        state.restart(after(10));
        assert_eq!(state.decide(now), Decision::Write, "an idle cursor too");
        assert_eq!(state.take(now).unwrap().sealed.upto, after(10));
        state.written();
        state.add(Assembly { events: vec![change(50)], ..transaction(1, 50) }, now);
        assert!(state.oldest().is_some());
    }

    #[test]
    fn a_table_leaves_only_once_it_has_joined() {
        let now = clock::monotonic();
        let mut state = state();
        state.expect(TABLE, Lsn(10));
        state.arrived(TABLE, true);
        state.leave(TABLE);
        assert_eq!(state.decide(now), reads(None));
        state.add(transaction(2, 10), now);
        assert_eq!(state.decide(now), Decision::Write, "it joins");
        let Taken { joining, leaving, .. } = state.take(now).unwrap();
        assert_eq!((joining.len(), leaving.len()), (1, 0));
        assert!(matches!(state.decide(now), Decision::Wait { .. }));
        state.written();
        assert_eq!(state.decide(now), Decision::Write, "it leaves");
        assert_eq!(state.take(now).unwrap().leaving, [TABLE]);
    }

    #[test]
    fn where_a_table_stands_is_known_until_its_joining_was_sent() {
        let now = clock::monotonic();
        let mut state = state();
        state.expect(TABLE, Lsn(3));
        state.arrived(TABLE, true);
        let joining = state.take(now).unwrap().joining;
        state.expect_again(joining, []);
        assert_eq!(state.forget_join(TABLE), Some(None));
        state.expect(TABLE, Lsn(3));
        assert_eq!(state.forget_join(TABLE), Some(Some(after(3))));
        assert_eq!(state.forget_join(TABLE), None);
    }

    #[test]
    fn draining_writes_what_is_complete_and_ends_even_while_held() {
        let now = clock::monotonic();
        let mut state = state();
        state.add(transaction(2, 10), now);
        state.drain();
        assert_eq!(state.decide(now), Decision::Write);
        state.take(now).unwrap();
        assert_eq!(state.decide(now), Decision::Wait { read: false, until: None });
        state.written();
        assert_eq!(state.decide(now), Decision::Finish);
        state.expect(TABLE, Lsn(10));
        state.add(transaction(1, 20), now);
        assert_eq!(state.decide(now), Decision::Finish);
    }

    #[test]
    fn a_tables_own_cursor_ends_where_no_commit_is_left_though_none_is_there() {
        let now = clock::monotonic();
        let mut state = state();
        state.finish_at(Lsn(39));
        let quiet = |end| Boundary { position: after(5), end: Lsn(end), offset: end };
        for (end, is_over) in [(39, false), (40, true)] {
            state.add(Assembly { boundary: Some((0, quiet(end))), ..Assembly::default() }, now);
            assert_eq!(state.decide(now), Decision::Advance(quiet(end)));
            state.advance(now);
            assert_eq!((state.has_finished(), state.decide(now) == Decision::Finish), (is_over, is_over));
        }
    }

    #[test]
    fn a_tables_own_cursor_ends_where_it_was_told_to() {
        let now = clock::monotonic();
        let mut state = state();
        state.finish_at(Lsn(10));
        assert_eq!(state.decide(now), reads(None));
        state.add(transaction(2, 10), now);
        assert_eq!(state.decide(now), Decision::Write);
        state.take(now).unwrap();
        state.written();
        assert_eq!(state.decide(now), Decision::Finish);
    }
}
