//! Which rows may have been missed between two snapshots of a copy? They are read again by their keys (`SOURCE.md` R5).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::run::Run;
use super::table::told;
use super::table_copy::{copy_options, first_index};
use crate::data::{Change, Event, OldRow, Op, RawValue, TableRow};
use crate::destination::{CopyChunk, Destination};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::memory::Part;
use crate::postgres::{Connection, Session};
use crate::schema::TableId;
use crate::source::{RowReader, Rows, Snapshot, wait_for_writers};
use crate::store::{Mixed, RepairKey};

/// How many keys one query names.
const KEYS: usize = 500;

/// The rows of a table that are to be read again before it is whole.
#[derive(Debug)]
pub(super) struct Owed {
    mixed: Mixed,
    keys: HashSet<RepairKey>,
}

impl Owed {
    /// What was noted before, of a table whose copy had several snapshots.
    pub(super) fn new(mixed: Mixed, keys: Vec<RepairKey>) -> Self {
        Self { mixed, keys: keys.into_iter().collect() }
    }

    /// The keys of rows that these events may not find whole; they are owed from now on.
    ///
    /// An update without some of the values needs the row before it. Where that is missing, or is newer than the change
    /// of its key, only the source has the values. Rows that are owed may go to other keys after all snapshots, too:
    /// they are found under those then.
    pub(super) fn of(&mut self, events: &[Event]) -> EtlResult<Vec<RepairKey>> {
        let mut found = BTreeSet::new();
        for event in events {
            let Event::Change(Change { position, op: Op::Update { old, new }, .. }) = event else { continue };
            let is_whole = !new.has_unchanged() || matches!(old, Some(OldRow::Full(_)));
            if is_whole || !new.schema().has_key() {
                continue;
            }
            let old = old.as_ref().map(OldRow::row);
            let key = key_of(new, old)?;
            let old_key = old.map(|old| key_of(old, None)).transpose()?.filter(|old| *old != key);
            let is_lacking = match &old_key {
                Some(old_key) => position.commit <= self.mixed.until || self.keys.contains(old_key),
                None => position.commit <= self.mixed.until && self.mixed.has_gaps,
            };
            for key in old_key.into_iter().chain([key]).filter(|_| is_lacking) {
                self.keys.insert(key.clone());
                found.insert(key);
            }
        }
        Ok(found.into_iter().collect())
    }
}

/// Of the row before where it was not sent: then it is the same.
fn key_of(row: &TableRow, before: Option<&TableRow>) -> EtlResult<RepairKey> {
    let value = |place: &u16| {
        let place = usize::from(*place);
        let row = match (row.raw(place), before) {
            (RawValue::Unchanged, Some(before)) => before,
            _ => row,
        };
        Ok(row.text(place)?.unwrap_or_default().into_owned())
    };
    let values: EtlResult<Vec<String>> = row.schema().key.iter().map(value).collect();
    Ok(RepairKey(values?.into()))
}

/// Reads these rows again, under R1 to R3, and puts them in the place of what is there. Returns up to where events may
/// meet them newer; nothing where the table is to rest. `snapshots` counts this one, for the tokens.
///
/// A row that the source does not have any more is deleted by an event that is yet to come.
///
/// # Errors
/// [`SchemaChanged`](ErrorKind::SchemaChanged) for a table that looks different now.
pub(super) async fn read_again(
    run: &Arc<Run>,
    id: TableId,
    snapshots: u32,
    keys: &[RepairKey],
    leave: &watch::Receiver<bool>,
) -> EtlResult<Option<Lsn>> {
    let table = run.table(id)?;
    let selection = run.selection(id)?;
    let options = copy_options(run, &table);
    let session = Session::connect(&options).await?;
    let position = Position::new(run.relay.head().end, 0);
    let shows = |who| run.board.table(id, |status| status.waits_for = who);
    let snapshot = async {
        wait_for_writers(session.client(), &table, shows).await?;
        Snapshot::take(Connection::connect(&options).await?, &options, &table, session.client(), shows).await
    };
    let Snapshot { mut connection, filter, read_at, leaves, .. } = tokio::select! {
        snapshot = Box::pin(snapshot) => snapshot?,
        () = told(leave.clone()) => {
            shows(None);
            return Ok(None);
        }
    };
    connection.within(&run.board.memory, Part::Copies);
    if let Some(what) = run.change_of(&session, &table).await? {
        return Err(EtlError::new(ErrorKind::SchemaChanged, "the table looks different now").with("change", what));
    }
    let token = CopyChunk {
        generation: run.states.get(id).generation,
        index: first_index(snapshots),
        position,
        read_at,
        replaces: true,
    };
    let mut piece = 0;
    let mut found = 0;
    for leaf in &leaves {
        for keys in keys.chunks(KEYS) {
            let mut reader = RowReader::open(&mut connection, &table, &selection, Rows::With(&leaf.leaf, keys)).await?;
            while let Some(more) = reader.next().await? {
                // Not in the middle of a write, with which a destination may go on.
                if *leave.borrow() {
                    return Ok(None);
                }
                found += more.rows.len();
                let token = CopyChunk { index: token.index | piece, ..token };
                run.destination.write_copy_chunk(id, token, more.rows).await?;
                piece += 1;
            }
        }
    }
    tracing::info!(table = %run.name(id), keys = keys.len(), found, "rows were read again");
    Ok(Some(filter.until))
}
