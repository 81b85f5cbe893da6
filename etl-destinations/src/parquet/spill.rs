//! How does a table that is larger than memory should be come in pieces? By the hash of the key, through unnamed files.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, BufWriter, Seek, SeekFrom};

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use etl::error::{ErrorKind, EtlResult, ResultExt};

use super::fold::{Fold, Keys};
use super::normal::{CHANGE, LSN, Normal, ORDINAL};
use crate::metadata_columns::ChangeType;
use crate::storage::unnamed_file;

/// Rows by the hash of their keys: all of a key are in one bucket.
pub(super) struct Buckets {
    moves: Moves,
    files: Vec<StreamWriter<BufWriter<File>>>,
}

impl Buckets {
    /// As many as are asked for.
    pub(super) fn new(normal: &Normal, count: usize, moves: Moves) -> EtlResult<Self> {
        let doing = "put rows aside";
        let file = |_| {
            let file = BufWriter::with_capacity(256 << 10, unnamed_file()?);
            StreamWriter::try_new(file, &normal.schema).or_etl(ErrorKind::Disk, doing)
        };
        Ok(Self { moves, files: (0..count).map(file).collect::<EtlResult<_>>()? })
    }

    pub(super) fn push_all(&mut self, normal: &Normal, batch: &RecordBatch) -> EtlResult<()> {
        let keys = Keys::new(normal, std::slice::from_ref(batch))?;
        let kinds = batch.column(normal.width() + CHANGE).as_string::<i32>();
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.files.len()];
        for row in 0..batch.num_rows() {
            // It is about every key.
            if kinds.value(row) == ChangeType::Truncate.as_str() {
                rows.iter_mut().for_each(|rows| rows.push(row as u32));
            } else {
                let bucket = self.moves.bucket(keys.of((0, row)), rows.len());
                rows[bucket].push(row as u32);
            }
        }
        for (file, rows) in self.files.iter_mut().zip(rows).filter(|(_, rows)| !rows.is_empty()) {
            let part = take_record_batch(batch, &UInt32Array::from(rows)).or_etl(ErrorKind::Internal, "choose rows")?;
            file.write(&part).or_etl(ErrorKind::Disk, "put rows aside")?;
        }
        Ok(())
    }

    /// One after the other, each with the rows that were put there.
    pub(super) fn into_files(self) -> EtlResult<Vec<File>> {
        let file = |writer: StreamWriter<BufWriter<File>>| {
            let file = writer.into_inner().or_etl(ErrorKind::Disk, "put rows aside")?;
            let mut file = file.into_inner().or_etl(ErrorKind::Disk, "put rows aside")?;
            file.seek(SeekFrom::Start(0)).or_etl(ErrorKind::Disk, "put rows aside")?;
            Ok(file)
        };
        self.files.into_iter().map(file).collect()
    }
}

/// What is left of the rows of a bucket.
pub(super) fn folded(normal: &Normal, bucket: File) -> EtlResult<Vec<RecordBatch>> {
    let doing = "read rows that were put aside";
    let mut fold = Fold::new(normal);
    for batch in StreamReader::try_new(BufReader::new(bucket), None).or_etl(ErrorKind::Disk, doing)? {
        fold.push(batch.or_etl(ErrorKind::Disk, doing)?);
    }
    fold.finish()
}

/// The place of a delete, and its key.
type Deleted = ((i64, i64), Box<[u8]>);

/// Keys that rows may have moved between: they belong into one bucket.
#[derive(Debug, Default)]
pub(super) struct Moves {
    parents: HashMap<Box<[u8]>, Box<[u8]>>,
    /// The last change, where it was a delete.
    deleted: Option<Deleted>,
}

impl Moves {
    /// Looks at rows of the log, in their order.
    pub(super) fn look_at(&mut self, normal: &Normal, batch: &RecordBatch) -> EtlResult<()> {
        let keys = Keys::new(normal, std::slice::from_ref(batch))?;
        let column = |column: usize| batch.column(normal.width() + column);
        let kinds = column(CHANGE).as_string::<i32>();
        let (lsn, ordinal) = (column(LSN).as_primitive::<Int64Type>(), column(ORDINAL).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            let (position, key) = ((lsn.value(row), ordinal.value(row)), keys.of((0, row)));
            let before = self.deleted.take();
            if kinds.value(row) == ChangeType::Delete.as_str() {
                self.deleted = Some((position, key.into()));
            } else if kinds.value(row) == ChangeType::Update.as_str()
                && let Some((_, from)) = before.filter(|(at, _)| *at == (position.0, position.1 - 1))
            {
                let (from, to) = (self.root(&from).to_vec(), self.root(key).to_vec());
                if from != to {
                    self.parents.insert(from.into(), to.into());
                }
            }
        }
        Ok(())
    }

    fn root<'k>(&'k self, mut key: &'k [u8]) -> &'k [u8] {
        while let Some(parent) = self.parents.get(key) {
            key = parent;
        }
        key
    }

    fn bucket(&self, key: &[u8], count: usize) -> usize {
        let mut hasher = DefaultHasher::new();
        self.root(key).hash(&mut hasher);
        (hasher.finish() % count.max(1) as u64) as usize
    }
}
