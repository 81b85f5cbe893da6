//! Where do the changes of a run wait until the last of them is there? Below `.etl/staged`, known to this process alone: the
//! manifest of the last batch counts all of them, and what a dead process has left is removed like any file of no manifest.

use etl::destination::Batch;
use etl::error::EtlResult;
use etl::failpoint;
use etl::schema::TableId;
use etl::{CursorId, Position};

use super::lake::{EncodedTables, Lake, Piece, Place, conflict, never_counts};
use super::layout;
use crate::writer::WriteUnit;

/// What the main cursor has brought that counts with a later batch.
#[derive(Debug)]
pub(super) struct KeptBack {
    pieces: Vec<Piece>,
    /// What was stored before the first of them.
    stored: Option<Position>,
    upto: Position,
}

impl Lake {
    /// Writes a batch of the main cursor, or keeps it back where more belongs to it.
    pub(super) async fn apply_main(&self, unit: &WriteUnit, batch: &Batch, encoded: EncodedTables) -> EtlResult<()> {
        // One after the other: what somebody has given up may be under way still.
        let mut kept = self.kept_back.lock().await;
        let mut before = kept.take();
        if before.as_ref().is_some_and(|before| before.upto != batch.from) {
            before = None;
            self.remove_kept_back().await;
        }
        // Tables join and leave between transactions.
        let is_piece = batch.is_piece && !batch.upto.is_boundary() && batch.moves.is_empty();
        let begun = match before {
            None if !is_piece => return self.write(unit, encoded, None).await,
            None => KeptBack { pieces: Vec::new(), stored: unit.stored, upto: batch.from },
            Some(before) => before,
        };
        let done = match is_piece {
            true => self.keep_back(begun, unit, batch, encoded).await.map(Some),
            false => self.count_all(begun, unit, encoded).await.map(|()| None),
        };
        match done {
            Ok(left) => *kept = left,
            Err(error) => {
                self.remove_kept_back().await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes a piece that does not count yet.
    async fn keep_back(
        &self,
        mut kept: KeptBack,
        unit: &WriteUnit,
        batch: &Batch,
        encoded: EncodedTables,
    ) -> EtlResult<KeptBack> {
        let manifests = self.manifests().await;
        kept.expect(self.position_in(manifests.state(), batch.cursor), unit)?;
        let named = self.named(&manifests.state().tables, Place::Staged(self.session()), unit, encoded)?;
        drop(manifests);
        let uploaded = self.upload(named).await?;
        kept.pieces.push(Piece::new(unit, uploaded));
        kept.upto = batch.upto;
        Ok(kept)
    }

    /// Writes the last piece: all of them count, by one manifest. Their files are in the logs of their tables by then.
    async fn count_all(&self, mut kept: KeptBack, unit: &WriteUnit, encoded: EncodedTables) -> EtlResult<()> {
        let manifests = self.manifests().await;
        let named = self.named(&manifests.state().tables, Place::Log, unit, encoded)?;
        drop(manifests);
        let last = Piece::new(unit, self.upload(named).await?);
        let mut paths = last.paths();
        if let Err(error) = self.gather(&mut kept, &mut paths).await {
            // They do not count; what cannot be removed now is when the location is opened again.
            let _ = self.location().delete(paths).await;
            return Err(error);
        }
        let counted = self.count_together(kept, last, unit).await;
        if counted.as_ref().is_err_and(never_counts) {
            self.location().delete(paths).await?;
        }
        counted?;
        self.remove_kept_back().await;
        Ok(())
    }

    /// Puts the files of all pieces into the logs; `paths` has them then.
    async fn gather(&self, kept: &mut KeptBack, paths: &mut Vec<String>) -> EtlResult<()> {
        for uploaded in kept.pieces.iter_mut().flat_map(|piece| &mut piece.uploaded) {
            let path = layout::shown(self.session(), &uploaded.file.path, &uploaded.table.name);
            paths.push(path.clone());
            self.location().copy(&uploaded.file.path, &path).await?;
            uploaded.file.path = path;
        }
        failpoint::visit("parquet.run_gathered").await
    }

    async fn count_together(&self, mut kept: KeptBack, last: Piece, unit: &WriteUnit) -> EtlResult<()> {
        let manifests = self.manifests().await;
        kept.expect(self.position_in(manifests.state(), CursorId::Main), unit)?;
        kept.pieces.push(last);
        // After whatever has been written meanwhile.
        for uploaded in kept.pieces.iter_mut().flat_map(|piece| &mut piece.uploaded) {
            uploaded.file.order = self.number();
        }
        self.count(manifests, unit, kept.pieces).await
    }

    /// Forgets what waits for the rest of a run, which comes again from the first piece on.
    pub(super) async fn take_back(&self) {
        if self.kept_back.lock().await.take().is_some() {
            self.remove_kept_back().await;
        }
    }

    /// As [`take_back`](Self::take_back), of one table.
    pub(super) async fn take_back_of(&self, table: TableId) {
        if let Some(kept) = &mut *self.kept_back.lock().await {
            kept.pieces.iter_mut().for_each(|piece| piece.forget(table));
        }
    }

    async fn remove_kept_back(&self) {
        if let Err(error) = self.location().delete_folder(&layout::staged(self.session())).await {
            tracing::debug!(%error, "what a run has left stays until the location is opened again");
        }
    }
}

impl KeptBack {
    /// That the unit was made for what is stored, with these pieces.
    fn expect(&self, found: Option<Position>, unit: &WriteUnit) -> EtlResult<()> {
        let stored = if self.pieces.is_empty() { self.stored } else { Some(self.upto) };
        if found == self.stored && unit.stored == stored { Ok(()) } else { Err(conflict(CursorId::Main, found)) }
    }
}
