//! What do noted rows become? Events, once the block is read; what is masked or left out on its way is that by then.

use std::sync::Arc;

use super::Assembly;
use crate::clock::Timestamp;
use crate::data::{Change, Event, OldRow, Op, RowBuffer, RowBuilder, TableRow};
use crate::error::EtlResult;
use crate::lsn::Position;
use crate::postgres::pgoutput::{NotedChange, NotedOld};
use crate::schema::TableId;
use crate::transform::Selection;

/// An event whose rows are still indexes into the block's spans.
pub(super) enum Draft {
    Ready(Event),
    /// Those of a selection that changes rows are yet to be passed on.
    Row {
        place: Place,
        noted: NotedChange,
        passes: Option<Arc<Selection>>,
    },
}

/// Where a change stands.
pub(super) struct Place {
    pub(super) table_id: TableId,
    pub(super) position: Position,
    pub(super) committed_at: Timestamp,
}

/// Makes events of the drafts; what is not passed on is none.
pub(super) fn finish(drafts: Vec<Draft>, buffer: &Arc<RowBuffer>, assembly: &mut Assembly) -> EtlResult<()> {
    if !drafts.iter().any(|draft| matches!(draft, Draft::Row { passes: Some(_), .. })) {
        assembly.events = drafts.into_iter().map(|draft| draft.finish(buffer)).collect();
        return Ok(());
    }
    let mut builder = RowBuilder::new();
    let mut passed = Vec::with_capacity(drafts.len());
    let mut boundary = assembly.boundary.as_ref().map(|(before, _)| *before);
    for (place, draft) in drafts.into_iter().enumerate() {
        if boundary == Some(place) {
            boundary = None;
            assembly.boundary.iter_mut().for_each(|(before, _)| *before = passed.len());
        }
        match draft {
            Draft::Row { place, noted, passes: Some(selection) } => {
                let Some(pass) = &selection.pass else { continue };
                if let Some(noted) = pass.change(&selection.schema, noted, buffer, &mut builder)? {
                    passed.push(Draft::Row { place, noted, passes: Some(selection) });
                }
            }
            draft => passed.push(draft),
        }
    }
    if boundary.is_some() {
        assembly.boundary.iter_mut().for_each(|(before, _)| *before = passed.len());
    }
    let made = builder.into_buffer();
    assembly.made = made.byte_size();
    assembly.bytes += assembly.made;
    assembly.events = passed
        .into_iter()
        .map(|draft| {
            let is_made = matches!(draft, Draft::Row { passes: Some(_), .. });
            draft.finish(if is_made { &made } else { buffer })
        })
        .collect();
    Ok(())
}

impl Draft {
    pub(super) fn finish(self, buffer: &Arc<RowBuffer>) -> Event {
        let row = |row| TableRow::new(Arc::clone(buffer), row);
        let image = |old| match old {
            NotedOld::Key(old) => OldRow::Key(row(old)),
            NotedOld::Full(old) => OldRow::Full(row(old)),
        };
        match self {
            Self::Ready(event) => event,
            Self::Row { place: Place { table_id, position, committed_at }, noted, .. } => {
                let op = match noted {
                    NotedChange::Insert { new } => Op::Insert { new: row(new) },
                    NotedChange::Update { old, new } => Op::Update { old: old.map(image), new: row(new) },
                    NotedChange::Delete { old } => Op::Delete { old: image(old) },
                };
                Event::Change(Change { table_id, position, committed_at, op })
            }
        }
    }
}
