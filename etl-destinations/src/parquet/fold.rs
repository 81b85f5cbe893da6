//! What is left of a log? Done in order, the last state of each key.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray};
use arrow::compute::interleave;
use arrow::datatypes::{Field, Int64Type, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use etl::error::{ErrorKind, EtlResult, ResultExt};

use super::keyless::KeylessRows;
use super::normal::{CHANGE, KEPT, LSN, MARKED, Normal, ORDINAL, UNCHANGED, places};
use crate::metadata_columns::ChangeType;
use crate::write_mode::WriteMode;

/// Rows of a batch that is written.
const BATCH_ROWS: usize = 8 << 10;

/// A row: its batch, and its place there.
pub(super) type At = (usize, usize);

/// The state of a key.
pub(super) struct Version {
    /// Where its values are: all of them in one row, or each in its own.
    pub(super) values: Values,
    /// The change that made it so.
    pub(super) stamp: At,
    /// Only marked as deleted.
    pub(super) is_deleted: bool,
}

pub(super) enum Values {
    Whole(At),
    Mixed(Box<[At]>),
}

impl Values {
    fn of(&self, column: usize) -> At {
        match self {
            Self::Whole(at) => *at,
            Self::Mixed(all) => all[column],
        }
    }
}

/// Rows of a table in its newest shape, all that there are of each of their keys.
pub(super) struct Fold<'n> {
    normal: &'n Normal,
    batches: Vec<RecordBatch>,
}

impl<'n> Fold<'n> {
    pub(super) fn new(normal: &'n Normal) -> Self {
        Self { normal, batches: Vec::new() }
    }

    pub(super) fn push(&mut self, batch: RecordBatch) {
        self.batches.push(batch);
    }

    /// The rows that are left, by their keys.
    pub(super) fn finish(self) -> EtlResult<Vec<RecordBatch>> {
        let keys = Keys::new(self.normal, &self.batches)?;
        let mut left: Vec<(&[u8], Version)> = match self.normal.target.source.has_key() {
            true => {
                let mut state = State { fold: &self, keys: &keys, versions: HashMap::new(), gone: None };
                self.do_in_order(|position, at| state.change(position, at));
                state.versions.into_iter().collect()
            }
            false => {
                let mut rows = KeylessRows::new(&self, &keys);
                self.do_in_order(|position, at| rows.change(position, at));
                rows.left()
            }
        };
        left.sort_by_key(|(key, _)| *key);
        left.chunks(BATCH_ROWS).map(|rows| self.batch(rows)).collect()
    }

    fn do_in_order(&self, mut change: impl FnMut((i64, i64), At)) {
        let mut last = None;
        for (position, at) in self.in_order() {
            if [KEPT, MARKED].contains(&self.kind(at)) {
                change(position, at);
                continue;
            }
            // What was written twice, without a position of the cursor, is the same.
            if position.1 > 0 && last == Some(position) {
                continue;
            }
            change(position, at);
            last = Some(position);
        }
    }

    /// What the row says that has happened.
    pub(super) fn kind(&self, (batch, row): At) -> &str {
        self.metadata(batch, CHANGE).as_string::<i32>().value(row)
    }

    /// Whether deleted rows are marked.
    pub(super) fn is_soft(&self) -> bool {
        self.normal.target.write_mode == WriteMode::SoftDelete
    }

    fn metadata(&self, batch: usize, column: usize) -> &ArrayRef {
        self.batches[batch].column(self.normal.width() + column)
    }

    /// All rows by their positions; those of one position as they came.
    fn in_order(&self) -> Vec<((i64, i64), At)> {
        let mut rows = Vec::with_capacity(self.batches.iter().map(RecordBatch::num_rows).sum());
        for (place, batch) in self.batches.iter().enumerate() {
            let lsn = self.metadata(place, LSN).as_primitive::<Int64Type>();
            let ordinal = self.metadata(place, ORDINAL).as_primitive::<Int64Type>();
            rows.extend((0..batch.num_rows()).map(|row| ((lsn.value(row), ordinal.value(row)), (place, row))));
        }
        rows.sort_by_key(|(position, _)| *position);
        rows
    }

    fn batch(&self, rows: &[(&[u8], Version)]) -> EtlResult<RecordBatch> {
        let schema = current_schema(self.normal);
        let (width, change) = (self.normal.width(), self.normal.width() + CHANGE);
        let gather = |column: usize| {
            let at = |version: &Version| if column < width { version.values.of(column) } else { version.stamp };
            let places: Vec<At> = rows.iter().map(|(_, version)| at(version)).collect();
            let sources: Vec<&dyn Array> = self.batches.iter().map(|batch| &**batch.column(column)).collect();
            interleave(&sources, &places).or_etl(ErrorKind::Internal, "gather rows")
        };
        let kind = |version: &Version| if version.is_deleted { ChangeType::Delete } else { ChangeType::Upsert };
        let kinds = || StringArray::from_iter_values(rows.iter().map(|(_, version)| kind(version).as_str()));
        let columns = 0..schema.fields().len();
        let columns =
            columns.map(|column| if column == change { Ok(Arc::new(kinds()) as ArrayRef) } else { gather(column) });
        RecordBatch::try_new(schema, columns.collect::<EtlResult<_>>()?)
            .or_etl(ErrorKind::Internal, "put columns together")
    }
}

/// The columns of a current state: those of the log without what was not sent.
pub(super) fn current_schema(normal: &Normal) -> SchemaRef {
    let fields = normal.schema.fields();
    Arc::new(arrow::datatypes::Schema::new(fields[..fields.len() - 1].to_vec()))
}

/// The keys of all rows, as bytes that are equal where they are. Rows without a key have all their values.
pub(super) struct Keys(Vec<Rows>);

impl Keys {
    pub(super) fn new(normal: &Normal, batches: &[RecordBatch]) -> EtlResult<Self> {
        let doing = "compare rows";
        let source = &normal.target.source;
        let places: Vec<usize> = match source.has_key() {
            true => source.key.iter().map(|place| usize::from(*place)).collect(),
            false => normal.target.compared_columns().collect(),
        };
        let columns = |batch: &RecordBatch| places.iter().map(|place| comparable(batch.column(*place))).collect();
        let none: Vec<ArrayRef> = columns(&RecordBatch::new_empty(Arc::clone(&normal.schema)));
        let fields = none.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let converter = RowConverter::new(fields).or_etl(ErrorKind::DestinationUnsupported, doing)?;
        let rows = batches.iter().map(|batch| {
            let columns: Vec<ArrayRef> = columns(batch);
            converter.convert_columns(&columns).or_etl(ErrorKind::Internal, doing)
        });
        rows.collect::<EtlResult<_>>().map(Self)
    }

    pub(super) fn of(&self, (batch, row): At) -> &[u8] {
        let rows = &self.0[batch];
        // Rows of no columns are all the same.
        if row < rows.num_rows() { rows.row(row).data() } else { &[] }
    }
}

/// Maps are compared as the lists that they are.
fn comparable(column: &ArrayRef) -> ArrayRef {
    let Some(map) = column.as_map_opt() else { return Arc::clone(column) };
    let item = Arc::new(Field::new("item", map.entries().data_type().clone(), false));
    let (offsets, entries, nulls) = (map.offsets().clone(), Arc::new(map.entries().clone()), map.nulls().cloned());
    Arc::new(ListArray::new(item, offsets, entries, nulls))
}

struct State<'f> {
    fold: &'f Fold<'f>,
    keys: &'f Keys,
    versions: HashMap<&'f [u8], Version>,
    /// The row that was deleted last, and where: the next change may say that it has only moved.
    gone: Option<((i64, i64), At, Version)>,
}

impl<'f> State<'f> {
    fn change(&mut self, position: (i64, i64), at: At) {
        let key = self.keys.of(at);
        let (is_soft, kind) = (self.fold.is_soft(), self.fold.kind(at));
        if kind == MARKED {
            if is_soft {
                self.versions.insert(key, Version { values: Values::Whole(at), stamp: at, is_deleted: true });
            }
        } else if kind == ChangeType::Truncate.as_str() {
            self.truncate(is_soft, at);
        } else if kind == ChangeType::Delete.as_str() {
            let before = self.versions.remove(key);
            if is_soft {
                let values = before.as_ref().map_or(Values::Whole(at), |before| before.values.copy());
                self.versions.insert(key, Version { values, stamp: at, is_deleted: true });
            }
            self.gone = before.map(|before| (position, at, before));
        } else {
            let before = self.versions.remove(key).filter(|before| !before.is_deleted);
            // A row that moves carries the place of the change, which is that of the delete.
            let (base, stamp) = match before {
                None if kind == ChangeType::Update.as_str() => match self.moved(position) {
                    Some((from, base)) => (Some(base), from),
                    None => (None, at),
                },
                before => (before, at),
            };
            let not_sent = self.fold.metadata(at.0, UNCHANGED).as_binary::<i32>();
            let values = match (base, not_sent.is_valid(at.1)) {
                (Some(base), true) => {
                    let mut all = vec![at; self.fold.normal.width()];
                    places(not_sent.value(at.1)).for_each(|place| all[place] = base.values.of(place));
                    Values::Mixed(all.into())
                }
                // There is nothing that it could be a part of.
                (None, true) => return,
                (_, false) => Values::Whole(at),
            };
            self.versions.insert(key, Version { values, stamp, is_deleted: false });
        }
    }

    /// The row that the change before has deleted, where that was half of a move.
    fn moved(&mut self, (lsn, ordinal): (i64, i64)) -> Option<(At, Version)> {
        let (position, at, before) = self.gone.take()?;
        if position != (lsn, ordinal - 1) {
            return None;
        }
        // A key that a row has left is not marked: nothing was deleted.
        self.versions.remove(self.keys.of(at));
        Some((at, before))
    }

    fn truncate(&mut self, is_soft: bool, at: At) {
        if !is_soft {
            self.versions.clear();
        }
        for version in self.versions.values_mut().filter(|version| !version.is_deleted) {
            (version.stamp, version.is_deleted) = (at, true);
        }
    }
}

impl Values {
    fn copy(&self) -> Self {
        match self {
            Self::Whole(at) => Self::Whole(*at),
            Self::Mixed(all) => Self::Mixed(all.clone()),
        }
    }
}
