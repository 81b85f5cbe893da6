//! How is a batch filled? Row by row, until one more would not fit; then it is sealed and settled.

use std::sync::atomic::Ordering;

use etl::Position;
use etl::clock;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::failpoint;
use etl::store::{DeadLetter, Operation, OperationState};

use super::lane::Lane;
use super::sealed::{Draft, ManifestRow, Spool, named};
use super::writer::Bulk;
use super::{BulkDestination, BulkRow};
use crate::row_image::{image, key};
use crate::write_mode::WriteMode;
use crate::writer::TargetTable;

/// No generation of a table is as large.
const REPLAYS: u64 = 1 << 63;

/// What is kept of a row beside its bytes.
///
/// # Errors
/// `Value` where a value was not sent of a row that is new.
pub(super) fn known(BulkRow { table, row, stamp, is_partial }: &BulkRow<'_>) -> EtlResult<ManifestRow> {
    Ok(ManifestRow {
        position: stamp.position,
        change_type: stamp.change_type.as_str().into(),
        key: key(table, row)?,
        row: image(table, row, *is_partial)?,
        is_partial: *is_partial,
        is_logged: table.write_mode == WriteMode::Append,
        bytes: 0,
    })
}

/// A batch of a table that is being filled.
pub(super) struct Filling<'f, B> {
    pub(super) writer: &'f Bulk<B>,
    pub(super) spool: &'f Spool,
    pub(super) table: &'f TargetTable,
    pub(super) lane: &'f mut Lane,
    pub(super) draft: Draft,
    /// The last change of the rows so far.
    pub(super) reach: Position,
    /// How many rows there are in all.
    pub(super) of: usize,
    /// How many of them cannot be handed over.
    pub(super) so_far: usize,
    /// The letters of those that are not kept yet.
    pub(super) unsendable: Vec<DeadLetter>,
    /// The letters that the rows of the draft are handed over again of, one a row; none where they are from the stream.
    pub(super) replayed: Vec<DeadLetter>,
}

impl<B: BulkDestination> Filling<'_, B> {
    /// Adds a row, after those whose first changes come before its own.
    pub(super) async fn push(&mut self, since: Position, row: ManifestRow, bytes: &[u8]) -> EtlResult<()> {
        let limits = self.writer.bulk.limits();
        let is_full = self.draft.rows().len() as u64 >= u64::from(limits.max_rows)
            || self.draft.bytes_with(bytes.len()) > limits.max_bytes;
        if is_full && !self.draft.rows().is_empty() {
            self.keep_left_out().await?;
            self.seal(Some(since)).await?;
        }
        if self.draft.bytes_with(bytes.len()) > limits.max_bytes {
            let error = EtlError::new(ErrorKind::Value, "a row is larger than a batch may be")
                .with("bytes", bytes.len())
                .with("limit", limits.max_bytes);
            return self.leave_out(row, error);
        }
        self.reach = self.reach.max(row.position);
        self.draft.push(row, bytes);
        Ok(())
    }

    /// Whether a row of so many bytes is no larger than a batch may be.
    pub(super) fn fits_alone(&self, bytes: usize) -> bool {
        let frame = self.writer.bulk.frame(self.table);
        Draft::new(self.table.name.clone(), frame).bytes_with(bytes) <= self.writer.bulk.limits().max_bytes
    }

    /// Leaves a row out that cannot be handed over, unless there are too many.
    pub(super) fn leave_out(&mut self, row: ManifestRow, error: EtlError) -> EtlResult<()> {
        self.unsendable.push(self.writer.unsendable(self.table, row, error, self.so_far, self.of)?);
        self.so_far += 1;
        Ok(())
    }

    /// Keeps what was left out: before anything is settled that comes after it, or a restart would not see it again.
    pub(super) async fn keep_left_out(&mut self) -> EtlResult<()> {
        let letters = std::mem::take(&mut self.unsendable);
        if letters.is_empty() {
            return Ok(());
        }
        let (census, count) = (&self.writer.census, letters.len() as u64);
        self.writer.store.put_dead_letters(letters).await?;
        census.metrics().dead_letters(&census.name(self.table.id), "unsendable", count);
        Ok(())
    }

    /// Seals what there is, and settles it. `next` is the first change of the row that comes after: what is settled ends
    /// before it.
    pub(super) async fn seal(&mut self, next: Option<Position>) -> EtlResult<()> {
        let frame = self.lane.framed(self.writer.bulk.frame(self.table));
        let draft = std::mem::replace(&mut self.draft, Draft::new(self.table.name.clone(), frame));
        let Some(first) = draft.rows().first().map(|row| row.position) else { return Ok(()) };
        let before = |next: Position| Position::new(next.commit, next.ordinal.saturating_sub(1));
        let last = next.map_or(self.reach, |next| self.reach.min(before(next)));
        let rows = draft.rows().len();
        let (manifest, body) = draft.finish();
        let bytes = body.len() as u64;
        let sequence = self.writer.sequence.fetch_add(1, Ordering::SeqCst) + 1;
        let mut replayed = std::mem::take(&mut self.replayed);
        let is_replay = !replayed.is_empty();
        // The same row may come again after it was refused again: that is another operation.
        let family = if is_replay { clock::now().0.unsigned_abs() | REPLAYS } else { self.lane.generation };
        let id = named(self.table.id, family, &manifest, &body);
        replayed.iter_mut().for_each(|letter| letter.replayed_in = Some(id.clone()));
        let operation = Operation {
            id: id.clone(),
            revision: 0,
            sequence,
            is_replay,
            table: self.table.id,
            generation: self.lane.generation,
            first,
            last,
            rows: u32::try_from(rows).or_etl(ErrorKind::Internal, "count the rows of a batch")?,
            bytes,
            sealed_at: clock::now(),
            attempts: 0,
            state: OperationState::Sealed { not_before: None, reason: None },
        };
        self.spool.seal(&id, body, manifest).await?;
        match self.writer.store.put_operation(None, operation.clone(), replayed).await {
            Ok(revision) => {
                self.writer.census.saw(&operation);
                self.lane.live.push(Operation { revision, ..operation });
            }
            // The very same rows were handed over before, or were about to be when that was cut short.
            Err(error) if error.kind() == ErrorKind::StoreConflict => {
                self.writer.read_again(self.lane, self.table.id).await?;
                if self.lane.live.iter().all(|live| live.id != id) {
                    return self.spool.remove(&id);
                }
            }
            Err(error) => return Err(error),
        }
        failpoint::visit("bulk.sealed").await?;
        self.writer.finish(self.spool, self.lane).await
    }
}
