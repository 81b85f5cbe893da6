//! How does a log become a current state? The state before and what came since, folded by key into a new set of files.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use bytes::Bytes;
use etl::clock;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::TableId;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use super::encoding::Encoded;
use super::fold::current_schema;
use super::lake::{Lake, blocking};
use super::layout;
use super::manifest::Manifests;
use super::normal::Normal;
use super::retain::Replaced;
use super::spill::{Buckets, Moves, folded};
use super::state::{Current, DataFile, Entry, Shape, Table, TablePart};
use crate::compacted::Compacted;
use crate::write_mode::WriteMode;

/// How much more memory rows take than their compressed columns, about.
const EXPANSION: u64 = 8;

/// How often what was made is held against what has come meanwhile.
const MOST_RACES: usize = 32;

/// What has become of an attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    Made(Compacted),
    /// Nothing has come since the last one.
    Nothing,
    /// Somebody else has rearranged the files meanwhile.
    Overtaken,
}

/// What a reader finds in `current.json`.
#[derive(Serialize)]
struct Pointer<'p> {
    table: &'p str,
    generation: u64,
    rows: u64,
    /// Below the location.
    files: Vec<&'p str>,
}

/// What a table is made of at a moment.
struct Inputs {
    id: TableId,
    normal: Arc<Normal>,
    table: Table,
    /// The current state, then what came since.
    files: Vec<(Arc<Shape>, DataFile)>,
    upto: u64,
    mode: WriteMode,
}

impl Lake {
    /// Makes the current state of a table.
    pub(super) async fn compact(self: &Arc<Self>, id: TableId, mode: WriteMode, memory: u64) -> EtlResult<Outcome> {
        let Some(inputs) = self.inputs(id, mode).await? else { return Ok(Outcome::Nothing) };
        match self.fold(&inputs, memory).await {
            Ok(made) => self.publish(inputs, made).await,
            Err(error) => {
                // Whoever has rearranged the files may have removed those that were to be read.
                let mut manifests = self.manifests().await;
                manifests.refresh().await?;
                let is_still = manifests.state().tables.get(&id).is_some_and(|known| inputs.are_of(known));
                if is_still { Err(error) } else { Ok(Outcome::Overtaken) }
            }
        }
    }

    /// Folds the files into new ones, which do not count yet.
    async fn fold(self: &Arc<Self>, inputs: &Inputs, memory: u64) -> EtlResult<Vec<DataFile>> {
        let bytes: u64 = inputs.files.iter().map(|(_, file)| file.bytes).sum();
        let count = usize::try_from((bytes * EXPANSION).div_ceil(memory.max(1)).clamp(1, 1024)).unwrap_or(1);
        let mut moves = Moves::default();
        if count > 1 {
            for (shape, file) in inputs.files.iter().filter(|(_, file)| !inputs.is_current(file)) {
                moves = self.read(inputs, shape, file, moves, Moves::look_at).await?;
            }
        }
        let mut buckets = Buckets::new(&inputs.normal, count, moves)?;
        for (shape, file) in &inputs.files {
            buckets = self.read(inputs, shape, file, buckets, Buckets::push_all).await?;
        }
        let mut made = Vec::new();
        for bucket in buckets.into_files()? {
            let (lake, normal) = (Arc::clone(self), Arc::clone(&inputs.normal));
            let encoded = blocking(move || {
                let rows = folded(&normal, bucket)?;
                lake.encoding().encode_batches(&normal.target, current_schema(&normal), &rows)
            });
            for file in encoded.await? {
                made.push(self.put_current(inputs, file).await?);
            }
        }
        Ok(made)
    }

    async fn inputs(&self, id: TableId, mode: WriteMode) -> EtlResult<Option<Inputs>> {
        let manifests = self.manifests().await;
        let Some(table) = manifests.state().tables.get(&id).cloned() else { return Ok(None) };
        drop(manifests);
        self.inputs_of(id, table, mode)
    }

    /// The current state of a table of which nothing counts yet; it counts with the log that it is made of.
    pub(super) async fn state_before(
        self: &Arc<Self>,
        id: TableId,
        table: Table,
        mode: WriteMode,
        memory: u64,
    ) -> EtlResult<Option<Current>> {
        let Some(inputs) = self.inputs_of(id, table, mode)? else { return Ok(None) };
        let made = self.fold(&inputs, memory).await?;
        Ok(Some(self.state_of(&inputs, made)))
    }

    fn inputs_of(&self, id: TableId, table: Table, mode: WriteMode) -> EtlResult<Option<Inputs>> {
        let Some(newest) = table.shape() else { return Ok(None) };
        let before = table.current.as_ref();
        let last = table.files.last().map(|file| file.order);
        let upto = last.max(before.map(|before| before.upto)).unwrap_or(0);
        if before.is_some_and(|before| before.upto == upto && before.shape == newest.id && before.mode == mode) {
            return Ok(None);
        }
        let normal = Arc::new(Normal::new(newest, mode, self.encoding().limits())?);
        // What was not marked before is gone: another mode begins with the whole log, as long as there is one.
        let before = before.filter(|before| before.mode == mode || before.cut > 0);
        let since = before.map_or(0, |before| before.upto + 1);
        let log = table.files.iter().filter(|file| file.order >= since);
        let files = before.iter().flat_map(|before| &before.files).chain(log).filter(|file| file.rows > 0);
        let shaped = files.map(|file| {
            let shape = table.shapes.get(&file.shape).cloned();
            let shape = shape.ok_or_else(|| EtlError::new(ErrorKind::Internal, "a file has no shape"))?;
            Ok((Arc::new(shape), file.clone()))
        });
        let files = shaped.collect::<EtlResult<_>>()?;
        Ok(Some(Inputs { id, normal, files, upto, mode, table }))
    }

    /// Reads a file piece by piece, each in the newest shape, into something that takes them.
    async fn read<T: Send + 'static>(
        &self,
        inputs: &Inputs,
        shape: &Arc<Shape>,
        file: &DataFile,
        mut into: T,
        take: impl Fn(&mut T, &Normal, &RecordBatch) -> EtlResult<()> + Send + 'static,
    ) -> EtlResult<T> {
        let (path, is_state) = (file.path.clone(), inputs.is_current(file));
        let file = self.location().fetch(&path).await?;
        let (normal, shape) = (Arc::clone(&inputs.normal), Arc::clone(shape));
        let work = move || {
            for batch in batches(file)? {
                let batch = batch.or_etl(ErrorKind::DestinationRejected, "read a file")?;
                take(&mut into, &normal, &normal.of(&shape, &batch, is_state)?)?;
            }
            Ok(into)
        };
        blocking(work).await.map_err(|error| error.with("file", path))
    }

    async fn put_current(&self, inputs: &Inputs, file: Encoded) -> EtlResult<DataFile> {
        let Encoded { bytes, rows, first, last, .. } = file;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (generation, shape) = (inputs.table.generation, inputs.table.shape().map_or(0, |shape| shape.id));
        let name = layout::FileName { table: inputs.id, generation, number, session: self.session() };
        let path = name.current_path(&inputs.normal.target.name);
        let size = bytes.len() as u64;
        self.location().put(&path, bytes).await?;
        Ok(DataFile { path, number, order: number, shape, rows, bytes: size, first, last })
    }

    /// Writes what names the current states, of which a crash may have left an older one.
    pub(super) async fn restore_pointers(&self) -> EtlResult<()> {
        let mut manifests = self.manifests().await;
        let tables: Vec<TableId> = manifests.state().tables.keys().copied().collect();
        for table in tables {
            self.point(&mut manifests, table).await?;
        }
        Ok(())
    }

    /// Writes what names the current state of a table, until it is that which counts.
    pub(super) async fn point(&self, manifests: &mut Manifests, id: TableId) -> EtlResult<()> {
        loop {
            let Some(table) = manifests.state().tables.get(&id) else { return Ok(()) };
            let (Some(current), Some(path)) = (table.current.clone(), table.pointer()) else { return Ok(()) };
            let content = pointer(&compacted(table.name.clone(), &current), table.generation)?;
            self.location().put(&path, content).await?;
            manifests.refresh().await?;
            let now = manifests.state().tables.get(&id).and_then(|table| table.current.as_ref());
            if now.is_none_or(|now| *now == current) {
                return Ok(());
            }
        }
    }

    /// Makes the new files the current state; those of the one before stay for a while.
    async fn publish(&self, inputs: Inputs, made: Vec<DataFile>) -> EtlResult<Outcome> {
        let current = self.state_of(&inputs, made.clone());
        let mut manifests = self.manifests().await;
        for _ in 0..MOST_RACES {
            manifests.refresh().await?;
            let Some(known) = manifests.state().tables.get(&inputs.id) else { break };
            // An attempt whose answer was lost has arrived.
            let is_there = known.current.as_ref().is_some_and(|current| current.files == made);
            if !is_there && !inputs.are_of(known) {
                break;
            }
            if !is_there {
                let entry = self.entry_of(&inputs, known, current.clone());
                match manifests.append(entry).await {
                    // Now it is seen whether that is in the way.
                    Err(error) if error.kind() == ErrorKind::StoreConflict => {}
                    written => written?,
                }
                continue;
            }
            let compacted = compacted(inputs.normal.target.name.to_string(), &current);
            let named = layout::pointer(&inputs.normal.target.name);
            let old_pointer = inputs.table.pointer().filter(|path| *path != named);
            let gone = self.replaced(&inputs).gone.into_iter().chain(old_pointer).collect();
            self.point(&mut manifests, inputs.id).await?;
            drop(manifests);
            self.location().delete(gone).await?;
            return Ok(Outcome::Made(compacted));
        }
        drop(manifests);
        self.location().delete(made.into_iter().map(|file| file.path).collect()).await?;
        Ok(Outcome::Overtaken)
    }

    fn entry_of(&self, inputs: &Inputs, known: &Table, current: Current) -> Entry {
        let table = TablePart { current: Some(current), ..TablePart::new(inputs.id, known, known.generation) };
        let (next, retained) = (self.next.load(Ordering::Relaxed), self.replaced(inputs).retained);
        Entry { next, tables: vec![table], retained, ..Entry::default() }
    }

    /// What becomes of the files of the state before.
    fn replaced(&self, inputs: &Inputs) -> Replaced {
        let old = inputs.table.current.iter().flat_map(|old| &old.files);
        Replaced::new(inputs.id, old, self.retain().states)
    }

    /// What the new files are.
    fn state_of(&self, inputs: &Inputs, files: Vec<DataFile>) -> Current {
        let old = inputs.table.current.as_ref();
        let mut folds = old.map_or_else(Vec::new, |old| old.folds.clone());
        if !self.retain().folded.is_zero() {
            folds.push((inputs.upto, clock::now()));
        }
        let shape = inputs.table.shape().map_or(0, |shape| shape.id);
        Current { upto: inputs.upto, mode: inputs.mode, shape, files, folds, cut: old.map_or(0, |old| old.cut) }
    }
}

impl Inputs {
    fn is_current(&self, file: &DataFile) -> bool {
        self.table.current.as_ref().is_some_and(|current| current.files.contains(file))
    }

    /// Whether the table still has what was folded, and nothing else up to there.
    fn are_of(&self, known: &Table) -> bool {
        let folded = |table: &Table| table.files.iter().filter(|file| file.order <= self.upto).count();
        let are_there = self.table.files.iter().all(|file| file.order > self.upto || known.files.contains(file));
        known.generation == self.table.generation
            && known.current == self.table.current
            && are_there
            && folded(known) == folded(&self.table)
    }
}

fn compacted(table: String, current: &Current) -> Compacted {
    let rows = current.files.iter().map(|file| file.rows).sum();
    Compacted { table, rows, files: current.files.iter().map(|file| file.path.clone()).collect() }
}

fn pointer(Compacted { table, rows, files }: &Compacted, generation: u64) -> EtlResult<Bytes> {
    let files = files.iter().map(|path| &**path).collect();
    let pointer = Pointer { table, generation, rows: *rows, files };
    serde_json::to_vec_pretty(&pointer).map(Bytes::from).or_etl(ErrorKind::Internal, "write a pointer")
}

/// The rows of a file, piece by piece.
pub(super) fn batches(file: File) -> EtlResult<impl Iterator<Item = Result<RecordBatch, arrow::error::ArrowError>>> {
    let doing = "read a file";
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).or_etl(ErrorKind::DestinationRejected, doing)?;
    reader.with_batch_size(8 << 10).build().or_etl(ErrorKind::DestinationRejected, doing)
}
