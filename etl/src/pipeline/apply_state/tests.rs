//! Is what comes next decided as it should be, whatever has come?

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
    let piece =
        |commit| Assembly { boundary: None, position: Some(Position::new(Lsn(commit), 10)), ..transaction(10, commit) };
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

/// A cursor of a run whose changes up to before this are shown at once.
fn whole(until: u64) -> ApplyState {
    state().shown_whole(Some(Lsn(until)))
}

#[test]
fn what_a_run_brings_becomes_durable_with_the_first_write_that_reaches_its_end() {
    let now = clock::monotonic();
    let late = now + LIMITS.max_age;
    let mut state = whole(31);
    for (commit, from) in [(10, after(5)), (20, Position::new(Lsn(10), Position::WHOLE - 1))] {
        state.add(transaction(3, commit), now);
        assert_eq!(state.decide(late), Decision::Write);
        let Sealed { from: begins, upto, boundary, .. } = state.take(late).unwrap().sealed;
        assert_eq!((begins, upto.commit, upto.is_boundary(), boundary), (from, Lsn(commit), false, None));
        assert!(state.is_open() && state.keeps_back());
        state.written();
    }
    // Nothing of a quiet stream is acknowledged before what is kept back.
    state.add(transaction(0, 25), now);
    assert_eq!(state.decide(late), reads(None));
    state.add(transaction(2, 30), now);
    assert_eq!(state.decide(late), Decision::Write);
    let Sealed { upto, boundary: end, .. } = state.take(late).unwrap().sealed;
    assert_eq!((upto, end, state.is_open()), (after(30), Some(boundary(30)), false));
    state.written();
    state.add(transaction(3, 40), now);
    assert_eq!(state.take(late).unwrap().sealed.upto, after(40), "what comes after the end is written as it comes");
}

/// The beginning of a transaction whose end is yet to come.
fn beginning(events: usize, commit: u64) -> Assembly {
    Assembly {
        boundary: None,
        position: Some(Position::new(Lsn(commit), events as u64)),
        ..transaction(events, commit)
    }
}

#[test]
fn a_quiet_boundary_in_the_middle_of_a_run_keeps_no_large_transaction_after_it_from_being_written() {
    let now = clock::monotonic();
    let late = now + LIMITS.max_age;
    let mut state = whole(50);
    state.add(transaction(10, 10), now);
    state.take(now).unwrap();
    state.written();
    state.add(transaction(0, 20), now);
    state.add(beginning(4, 30), now);
    assert_eq!(state.decide(late), reads(None), "there is nothing to write, however old it is");
    state.add(beginning(10, 30), now);
    assert_eq!(state.decide(now), Decision::Write);
    let Sealed { events, from, upto, boundary: end, .. } = state.take(now).unwrap().sealed;
    assert_eq!((events.len(), from.commit, upto, end), (14, Lsn(10), Position::new(Lsn(30), 10), None));
    assert!(state.is_open());
    state.written();
    state.add(Assembly { boundary: Some((0, boundary(50))), ..Assembly::default() }, now);
    assert_eq!((state.decide(now), state.take(now).unwrap().sealed.upto), (Decision::Write, after(50)));
}

#[test]
fn an_old_beginning_after_a_quiet_boundary_is_read_on_while_a_write_is_under_way() {
    let now = clock::monotonic();
    let mut state = state();
    state.add(transaction(10, 10), now);
    state.take(now).unwrap();
    state.add(transaction(0, 20), now);
    state.add(beginning(3, 30), now);
    assert_eq!(state.decide(now + LIMITS.max_age), reads(None));
}

#[test]
fn what_is_kept_back_becomes_durable_although_nothing_comes_after_it() {
    let now = clock::monotonic();
    let mut state = whole(50);
    state.add(transaction(10, 10), now);
    state.take(now).unwrap();
    state.written();
    let quiet = Boundary { position: after(5), end: Lsn(50), offset: 50 };
    state.add(Assembly { boundary: Some((0, quiet)), ..Assembly::default() }, now);
    assert_eq!(state.decide(now), Decision::Write);
    let Sealed { events, upto, boundary, .. } = state.take(now).unwrap().sealed;
    assert_eq!((events.len(), upto, boundary), (0, after(10), Some(quiet)));
}

#[test]
fn a_run_that_is_told_to_stop_before_its_end_writes_nothing_more_and_ends() {
    let now = clock::monotonic();
    let mut state = whole(50);
    state.add(transaction(10, 10), now);
    state.take(now).unwrap();
    state.add(transaction(2, 20), now);
    state.drain();
    assert_eq!(state.decide(now), Decision::Wait { read: false, until: None }, "one is under way");
    state.written();
    assert_eq!(state.decide(now), Decision::Finish);
}

#[test]
fn a_table_joins_between_two_transactions_of_a_run_with_all_that_was_kept_back() {
    let now = clock::monotonic();
    let mut state = whole(50);
    state.add(transaction(10, 10), now);
    state.take(now).unwrap();
    state.written();
    state.expect(TABLE, Lsn(20));
    state.arrived(TABLE, true);
    state.add(transaction(10, 20), now);
    assert_eq!(state.decide(now), Decision::Write);
    let Taken { sealed, joining, .. } = state.take(now).unwrap();
    assert_eq!((sealed.upto, joining.len(), state.is_open()), (after(20), 1, false));
}

#[test]
fn a_run_for_which_there_is_no_room_is_written_as_it_comes() {
    let now = clock::monotonic();
    let mut state = whole(50);
    state.add(transaction(10, 10), now);
    state.take(now).unwrap();
    state.show_in_parts();
    state.restart(after(5));
    state.add(transaction(10, 10), now);
    assert_eq!((state.take(now).unwrap().sealed.upto, state.keeps_back()), (after(10), false));
}
