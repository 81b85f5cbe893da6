//! What is to be done with a table? Decided from what is stored about it, and nothing else.

use crate::lsn::Position;
use crate::store::{Phase, SnapshotFilter, TableState};

/// What a table begins with when the pipeline starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begin {
    /// Its rows are copied, as this generation.
    Copy {
        /// Counts the copies of the table.
        generation: u64,
    },
    /// It reads on from the relay.
    CatchUp {
        /// Everything up to here is durable.
        from: Position,
        /// The cursor P of its snapshot.
        cursor: Position,
        /// What its copy has seen.
        snapshot: SnapshotFilter,
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
            Self::CatchUp { .. } | Self::Wait => true,
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
}

/// Decides. A table whose copy was cut short is copied anew; one that was catching up goes on where the relay
/// still holds what it needs, and is done where it had reached the main cursor. The source may have been told to
/// forget what lies beyond either position, so nothing goes on without the relay.
pub(super) fn begin(state: &TableState, known: Known) -> Begin {
    let copy = Begin::Copy { generation: state.generation + 1 };
    match &state.phase {
        Phase::Ready => Begin::Share { after: Position::ZERO, snapshot: None },
        Phase::CatchingUp { cursor, snapshot } => match known.own {
            // A destination that stores positions says the main one for a table that has joined it.
            Some(own) if own >= known.main && own > *cursor && known.relay_holds => {
                Begin::Share { after: own, snapshot: Some(snapshot.clone()) }
            }
            own if known.relay_holds => {
                Begin::CatchUp { from: own.unwrap_or(*cursor), cursor: *cursor, snapshot: snapshot.clone() }
            }
            _ => copy,
        },
        Phase::Pending | Phase::Copying { .. } | Phase::Removed => copy,
        Phase::Paused { cursor: Some(_), .. } if known.relay_holds => Begin::Wait,
        Phase::Paused { .. } | Phase::Quarantined { .. } => Begin::Rest,
    }
}

/// Where a table that has a cursor of its own has to read on in the relay.
pub(super) fn reads_on_from(phase: &Phase, own: Option<Position>) -> Option<Position> {
    match phase {
        Phase::CatchingUp { cursor, .. } | Phase::Paused { cursor: Some(cursor), .. } => Some(own.unwrap_or(*cursor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    fn state(phase: Phase) -> TableState {
        TableState { revision: 3, generation: 7, phase }
    }

    fn known(main: u64, own: Option<u64>, relay_holds: bool) -> Known {
        Known { main: Position::after(Lsn(main)), own: own.map(|lsn| Position::after(Lsn(lsn))), relay_holds }
    }

    #[test]
    fn each_stored_phase_leads_to_one_beginning() {
        let snapshot = SnapshotFilter { xmin: 1, xmax: 1, in_progress: Box::new([]), until: Lsn(20) };
        let cursor = Position::new(Lsn(10), 0);
        let catching = || Phase::CatchingUp { cursor, snapshot: snapshot.clone() };
        let again = Begin::Copy { generation: 8 };
        let shared = |lsn| Begin::Share { after: Position::after(Lsn(lsn)), snapshot: Some(snapshot.clone()) };
        let on = |from| Begin::CatchUp { from, cursor, snapshot: snapshot.clone() };
        for (phase, known, expected) in [
            (Phase::Pending, known(0, None, false), again.clone()),
            (Phase::Copying { cursor }, known(50, None, true), again.clone()),
            (Phase::Removed, known(50, None, true), again.clone()),
            (Phase::Ready, known(50, None, false), Begin::Share { after: Position::ZERO, snapshot: None }),
            (catching(), known(50, Some(30), true), on(Position::after(Lsn(30)))),
            (catching(), known(50, None, true), on(cursor)),
            (catching(), known(50, Some(30), false), again.clone()),
            (catching(), known(50, Some(50), false), again),
            (catching(), known(50, Some(50), true), shared(50)),
            (catching(), known(50, Some(60), true), shared(60)),
            (Phase::Paused { cursor: Some(cursor), snapshot: None }, known(50, None, true), Begin::Wait),
            (Phase::Paused { cursor: Some(cursor), snapshot: None }, known(50, None, false), Begin::Rest),
            (Phase::Paused { cursor: None, snapshot: None }, known(50, None, true), Begin::Rest),
        ] {
            assert_eq!(begin(&state(phase), known), expected);
        }
    }
}
