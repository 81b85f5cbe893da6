//! What is to be done with a table? Decided from what is stored about it, and nothing else.

use crate::lsn::Position;
use crate::store::{Mixed, Phase, SnapshotFilter, TableState};

/// What a table begins with when the pipeline starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begin {
    /// Its rows are copied, as this generation.
    Copy {
        /// Counts the copies of the table.
        generation: u64,
    },
    /// Its copy goes on where it was cut short.
    Resume,
    /// It reads on from the relay.
    CatchUp {
        /// Everything up to here is durable.
        from: Position,
        /// The cursor P of its snapshot.
        cursor: Position,
        /// What its copy has seen.
        snapshot: SnapshotFilter,
        /// What is known of its rows where they are from more than one snapshot.
        mixed: Option<Mixed>,
    },
    /// It shares the main cursor, for changes after this position.
    Share {
        /// Changes up to here are durable, though the main cursor may be behind.
        after: Position,
        /// What its copy has seen of what comes after that.
        snapshot: Option<SnapshotFilter>,
    },
    /// Nothing, until somebody lets it go on with what waits for it in the relay.
    Wait,
    /// Nothing: somebody has to act first.
    Rest,
}

impl Begin {
    /// Whether the table shares the main cursor only once it has joined it.
    pub(super) fn has_own_cursor(&self) -> bool {
        matches!(self, Self::Copy { .. }) || self.needs_relay()
    }

    /// Whether it goes on with what an earlier run has left in the relay.
    pub(super) fn needs_relay(&self) -> bool {
        match self {
            Self::CatchUp { .. } | Self::Resume | Self::Wait => true,
            Self::Share { after, .. } => *after > Position::ZERO,
            Self::Copy { .. } | Self::Rest => false,
        }
    }
}

/// What is known besides the stored state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// What the main cursor has made durable.
    pub(super) main: Position,
    /// What the table's own cursor has made durable.
    pub(super) own: Option<Position>,
    /// Whether the relay still holds everything after `own`, or after the snapshot's cursor without one.
    pub(super) relay_holds: bool,
    /// Whether nothing after `own` counts as durable of the main cursor: that is true of the tables alone that shared it.
    pub(super) is_level: bool,
    /// Whether the destination has lost what was copied: it stores positions, and has none of the table.
    pub(super) is_replaced: bool,
}

/// Decides. A table whose copy was cut short is copied anew; one that was catching up goes on where the relay
/// still holds what it needs, and is done where it had reached the main cursor. The source may have been told to
/// forget what lies beyond either position, so nothing goes on without the relay.
pub(super) fn begin(state: &TableState, known: Known) -> Begin {
    let copy = Begin::Copy { generation: state.generation + 1 };
    match &state.phase {
        Phase::Ready => Begin::Share { after: Position::ZERO, snapshot: None },
        Phase::CatchingUp { .. } | Phase::Copying { so_far: Some(_), .. } if known.is_replaced => copy,
        Phase::CatchingUp { cursor, snapshot, mixed } => match known.own {
            // A destination that stores positions says the main one for a table that has joined it. One with rows
            // from more than one snapshot never has. Within a transaction nothing joins: of a large one, the main cursor
            // would write pieces before the table's place says that they are there. Nor where the main cursor has passed
            // what the table lacks: it would be ready at once, and the next restart begin behind that.
            Some(own)
                if own >= known.main
                    && own > *cursor
                    && known.is_level
                    && (own.ordinal == Position::WHOLE || own == known.main)
                    && known.relay_holds
                    && mixed.is_none() =>
            {
                Begin::Share { after: own, snapshot: Some(snapshot.clone()) }
            }
            own if known.relay_holds => {
                let (from, snapshot) = (own.unwrap_or(*cursor), snapshot.clone());
                Begin::CatchUp { from, cursor: *cursor, snapshot, mixed: *mixed }
            }
            _ => copy,
        },
        Phase::Copying { so_far: Some(_), .. } if known.relay_holds => Begin::Resume,
        Phase::Pending | Phase::Copying { .. } | Phase::Removed => copy,
        waiting @ (Phase::Paused(_) | Phase::Quarantined(_)) => {
            let goes_on = waiting.held().is_some_and(|held| held.cursor.is_some());
            if goes_on && known.relay_holds && !known.is_replaced { Begin::Wait } else { Begin::Rest }
        }
    }
}

/// Where a table that has a cursor of its own has to read on in the relay.
pub(super) fn reads_on_from(phase: &Phase, own: Option<Position>) -> Option<Position> {
    match phase {
        // Nothing is read before all is copied.
        Phase::Copying { cursor, so_far: Some(_) } => Some(*cursor),
        Phase::CatchingUp { cursor, .. } => Some(own.unwrap_or(*cursor)),
        waiting => waiting.held()?.cursor.map(|cursor| own.unwrap_or(cursor)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::lsn::Lsn;
    use crate::store::{CopySoFar, Held, Quarantine};

    fn quarantine(held: Held) -> Quarantine {
        let (reason, kind, since) = ("it failed".to_owned(), "value".to_owned(), Timestamp(0));
        Quarantine { reason, kind, hint: None, since, failures: 1, retry_at: None, held }
    }

    fn state(phase: Phase) -> TableState {
        TableState { revision: 3, generation: 7, phase }
    }

    fn known(main: u64, own: Option<u64>, relay_holds: bool) -> Known {
        let own = own.map(|lsn| Position::after(Lsn(lsn)));
        Known { main: Position::after(Lsn(main)), own, relay_holds, is_level: true, is_replaced: false }
    }

    #[test]
    fn each_stored_phase_leads_to_one_beginning() {
        let snapshot = SnapshotFilter { xmin: 1, xmax: 1, in_progress: Box::new([]), until: Lsn(20) };
        let cursor = Position::new(Lsn(10), 0);
        let catching = || Phase::CatchingUp { cursor, snapshot: snapshot.clone(), mixed: None };
        let mixed = Some(Mixed { snapshots: 2, until: Lsn(40), has_gaps: true });
        let catching_mixed = || Phase::CatchingUp { cursor, snapshot: snapshot.clone(), mixed };
        let so_far = CopySoFar { snapshot: snapshot.clone(), snapshots: 1, until: Lsn(20) };
        let half_copied = || Phase::Copying { cursor, so_far: Some(so_far.clone()) };
        let paused = |cursor| Phase::Paused(Held { cursor, ..Held::default() });
        let failed = |cursor| Phase::Quarantined(Box::new(quarantine(Held { cursor, ..Held::default() })));
        let behind = |known: Known| Known { is_level: false, ..known };
        let replaced = |known: Known| Known { is_replaced: true, ..known };
        let again = Begin::Copy { generation: 8 };
        let shared = |lsn| Begin::Share { after: Position::after(Lsn(lsn)), snapshot: Some(snapshot.clone()) };
        let on = |from| Begin::CatchUp { from, cursor, snapshot: snapshot.clone(), mixed: None };
        let on_mixed = |from| Begin::CatchUp { from, cursor, snapshot: snapshot.clone(), mixed };
        let place = Position::new(Lsn(60), 4);
        let within = Known { own: Some(place), ..known(50, None, true) };
        let joined_within = Known { main: place, ..within };
        let shared_within = Begin::Share { after: place, snapshot: Some(snapshot.clone()) };
        for (phase, known, expected) in [
            (Phase::Pending, known(0, None, false), again.clone()),
            (Phase::Copying { cursor, so_far: None }, known(50, None, true), again.clone()),
            (half_copied(), known(50, None, true), Begin::Resume),
            (half_copied(), known(50, None, false), again.clone()),
            (half_copied(), replaced(known(50, None, true)), again.clone()),
            (catching(), replaced(known(50, None, true)), again.clone()),
            (catching_mixed(), known(50, Some(60), true), on_mixed(Position::after(Lsn(60)))),
            (Phase::Removed, known(50, None, true), again.clone()),
            (Phase::Ready, known(50, None, false), Begin::Share { after: Position::ZERO, snapshot: None }),
            (catching(), known(50, Some(30), true), on(Position::after(Lsn(30)))),
            (catching(), known(50, None, true), on(cursor)),
            (catching(), known(50, Some(30), false), again.clone()),
            (catching(), known(50, Some(50), false), again),
            (catching(), known(50, Some(50), true), shared(50)),
            (catching(), known(50, Some(60), true), shared(60)),
            (catching(), behind(known(50, Some(60), true)), on(Position::after(Lsn(60)))),
            (catching(), within, on(place)),
            (catching(), joined_within, shared_within),
            (paused(Some(cursor)), known(50, None, true), Begin::Wait),
            (paused(Some(cursor)), known(50, None, false), Begin::Rest),
            (paused(None), known(50, None, true), Begin::Rest),
            (failed(Some(cursor)), known(50, None, true), Begin::Wait),
            (failed(Some(cursor)), replaced(known(50, None, true)), Begin::Rest),
            (failed(Some(cursor)), known(50, None, false), Begin::Rest),
            (failed(None), known(50, None, true), Begin::Rest),
        ] {
            assert_eq!(begin(&state(phase), known), expected);
        }
    }
}
