//! Where do the changes of a run wait until the last of them is there? In files that do not have their names, beyond what the
//! journal knows; it is told of all of them at once.

use std::fs;

use etl::destination::Batch;
use etl::error::EtlResult;
use etl::schema::TableId;
use etl::{CursorId, Position};

use super::directory::{Directory, Pending, expect_same};
use super::error::FileResult;
use crate::writer::WriteUnit;

/// What the main cursor has brought that counts with a later batch.
#[derive(Debug)]
pub(super) struct KeptBack {
    pending: Pending,
    /// What was stored before the first of it.
    stored: Option<Position>,
    upto: Position,
}

impl KeptBack {
    /// Whether something of the table is among it.
    pub(super) fn has(&self, table: TableId) -> bool {
        self.pending.tables.contains_key(&table)
    }

    /// The table has begun anew.
    pub(super) fn forget(&mut self, table: TableId) {
        self.pending.tables.remove(&table);
        self.pending.finished.retain(|name| name.table != table);
    }
}

impl Directory {
    /// Writes a batch of the main cursor, or keeps it back where more belongs to it.
    pub(super) fn write_main(&mut self, unit: &WriteUnit, batch: &Batch, encoded: &[Vec<u8>]) -> EtlResult<()> {
        if self.kept_back.as_ref().is_some_and(|kept| kept.upto != batch.from) {
            self.take_back();
        }
        let begun = self.kept_back.take();
        let is_begun = begun.is_some();
        let mut run = match begun {
            Some(run) => run,
            None => KeptBack { pending: Pending::of(self.claim()), stored: unit.stored, upto: batch.from },
        };
        let expected = if is_begun { Some(run.upto) } else { run.stored };
        let written = self.expect_position(CursorId::Main, run.stored).and_then(|()| {
            expect_same(expected, unit.stored)?;
            self.write_steps(unit, encoded, &mut run.pending)?;
            self.rest(&mut run.pending)
        });
        run.upto = batch.upto;
        // Tables join and leave between transactions.
        let is_piece = batch.is_piece && !batch.upto.is_boundary() && batch.moves.is_empty();
        if is_piece || written.is_err() {
            self.kept_back = Some(run);
            return written.inspect_err(|_| self.take_back());
        }
        run.pending.covers(unit, batch);
        let told = if is_begun { self.finish_run(run.pending) } else { self.commit(run.pending) };
        if told.is_err() {
            // Opened again they are cut to what the journal knows.
            self.parts.clear();
        }
        told
    }

    /// Tells the journal of all that the run has brought. Its files are complete: all of them get their names.
    fn finish_run(&mut self, mut pending: Pending) -> EtlResult<()> {
        let tables: Vec<TableId> = pending.tables.keys().copied().collect();
        tables.into_iter().try_for_each(|table| self.finish_part(table, &mut pending))?;
        self.commit(pending)
    }

    /// Forgets what waits for the rest of a run, which comes again from the beginning.
    pub(super) fn take_back(&mut self) {
        let Some(KeptBack { pending, .. }) = self.kept_back.take() else { return };
        // Opened again they are cut to what the journal knows.
        self.parts.clear();
        for table in pending.tables.keys() {
            if let Err(error) = self.remove_unknown(*table, &pending) {
                tracing::debug!(%error, "what a run has left stays until the directory is opened again");
            }
        }
    }

    /// Removes the files of a table that the journal does not know.
    fn remove_unknown(&self, table: TableId, pending: &Pending) -> EtlResult<()> {
        let Some(files) = pending.tables.get(&table) else { return Ok(()) };
        let (generation, next) = self.state.tables.get(&table).map_or((0, 0), |known| (known.generation, known.next));
        for (name, is_part) in self.names(files)?.into_iter().filter(|(name, _)| name.table == table) {
            if is_part && (name.generation > generation || (name.generation == generation && name.sequence >= next)) {
                let path = self.root.join(&name.directory).join(name.partial());
                fs::remove_file(&path).or_file("remove a file", &path)?;
            }
        }
        Ok(())
    }

    /// The position that a cursor has in the journal: what waits for the rest of a run comes again.
    pub(super) fn durable_position(&mut self, cursor: CursorId) -> Option<Position> {
        if cursor == CursorId::Main {
            self.take_back();
        }
        self.position(cursor)
    }
}
