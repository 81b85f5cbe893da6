//! How do rows become the bytes of a file? Column by column, cut where a file is large enough.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use etl::Position;
use etl::data::RawValue;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::config::{ParquetCompression, ParquetConfig, ParquetInfinities, ParquetLayout, ParquetStatistics};
use super::layout::day;
use crate::columnar::{ArrowLimits, ArrowTable, Infinities, copied_pieces, pieces};
use crate::metadata_columns::ChangeType;
use crate::writer::{BatchRows, StampedRow, TargetTable};

/// Parquet has no infinite dates, and its readers differ about floats of 16 bits; its intervals end at milliseconds.
const LIMITS: ArrowLimits = ArrowLimits { half_floats: false, intervals: false, ..ArrowLimits::ARROW };

/// As DuckDB has them.
const INFINITIES: Infinities = Infinities { dates: (-i32::MAX, i32::MAX), timestamps: (-i64::MAX, i64::MAX) };

/// The column that names what an update did not send.
const UNCHANGED: &str = "_UNCHANGED";

/// How files are written.
#[derive(Debug, Clone)]
pub(super) struct Encoding {
    properties: WriterProperties,
    file_bytes: usize,
    layout: ParquetLayout,
    limits: ArrowLimits,
}

/// A whole file.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The day of its rows, where there is a directory a day.
    pub(super) day: Option<i64>,
    pub(super) bytes: Bytes,
    pub(super) rows: u64,
    pub(super) first: Position,
    pub(super) last: Position,
}

impl Encoding {
    pub(super) fn new(config: &ParquetConfig) -> EtlResult<Self> {
        let compression = match config.compression {
            ParquetCompression::None => Compression::UNCOMPRESSED,
            ParquetCompression::Zstd => {
                let level = ZstdLevel::try_new(config.compression_level.into()).map_err(|error| {
                    EtlError::new(ErrorKind::Config, "there is no such level of compression")
                        .with("compression_level", config.compression_level)
                        .because(error)
                        .hint("Give one from 1 to 22")
                })?;
                Compression::ZSTD(level)
            }
        };
        let size = |name, size: u64| match usize::try_from(size) {
            Ok(size @ 1..) => Ok(size),
            _ => Err(EtlError::new(ErrorKind::Config, "a size must be more than nothing").with("option", name)),
        };
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_bytes(Some(size("row_group_bytes", config.row_group_bytes.0)?))
            .set_statistics_enabled(match config.statistics {
                ParquetStatistics::Page => EnabledStatistics::Page,
                ParquetStatistics::Chunk => EnabledStatistics::Chunk,
                ParquetStatistics::None => EnabledStatistics::None,
            })
            .set_created_by(concat!("etl ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let infinities = (config.infinities == ParquetInfinities::DuckDb).then_some(INFINITIES);
        Ok(Self {
            properties,
            file_bytes: size("file_bytes", config.file_bytes.0)?,
            layout: config.layout,
            limits: ArrowLimits { infinities, ..LIMITS },
        })
    }

    /// What Parquet can hold.
    pub(super) fn limits(&self) -> ArrowLimits {
        self.limits
    }

    /// The files of some rows.
    ///
    /// # Errors
    /// `Value`, when a value cannot be held exactly.
    pub(super) fn encode(&self, table: &Arc<TargetTable>, rows: &BatchRows) -> EtlResult<Vec<Encoded>> {
        let of = ParquetTable::new(table, self.limits);
        match rows {
            BatchRows::Copied { rows, position, at } => {
                let mut files = Files::new(self, &of, self.day(*at));
                for piece in copied_pieces(rows) {
                    files.write(&of.copied(of.arrow.copied(piece, *position, *at)?)?, *position, *position)?;
                }
                files.finish()
            }
            BatchRows::Log(rows) => {
                let mut all = Vec::new();
                for rows in rows.chunk_by(|a, b| self.day(a.at) == self.day(b.at)) {
                    let mut files = Files::new(self, &of, rows.first().and_then(|row| self.day(row.at)));
                    for piece in pieces(rows, |stamped| &stamped.row) {
                        let (Some(first), Some(last)) = (piece.first(), piece.last()) else { continue };
                        files.write(&of.changes(piece)?, first.position, last.position)?;
                    }
                    all.extend(files.finish()?);
                }
                Ok(all)
            }
            BatchRows::Keyed(_) | BatchRows::Keyless(_) => {
                Err(EtlError::new(ErrorKind::Internal, "a log was told to change rows"))
            }
        }
    }

    /// The files of a current state, at least one.
    pub(super) fn encode_batches(
        &self,
        table: &Arc<TargetTable>,
        schema: SchemaRef,
        batches: &[RecordBatch],
    ) -> EtlResult<Vec<Encoded>> {
        let of = ParquetTable { schema: numbered(table, &schema), ..ParquetTable::new(table, self.limits) };
        let mut files = Files::new(self, &of, None);
        let none = RecordBatch::new_empty(schema);
        for batch in if batches.is_empty() { std::slice::from_ref(&none) } else { batches } {
            let batch = RecordBatch::try_new(Arc::clone(&of.schema), batch.columns().to_vec());
            files.write(&batch.or_etl(ErrorKind::Internal, "put columns together")?, Position::ZERO, Position::ZERO)?;
        }
        files.finish()
    }

    /// A file without rows, which says what the table looks like.
    pub(super) fn empty(&self, table: &Arc<TargetTable>) -> EtlResult<Encoded> {
        let of = ParquetTable::new(table, self.limits);
        let bytes = self.begin(&of)?.into_inner().or_etl(ErrorKind::Internal, "write a file")?;
        Ok(Encoded { day: None, bytes: bytes.into(), rows: 0, first: Position::ZERO, last: Position::ZERO })
    }

    fn day(&self, at: etl::clock::Timestamp) -> Option<i64> {
        (self.layout == ParquetLayout::Hive).then(|| day(at))
    }

    /// About how large a file may become.
    pub(super) fn file_bytes(&self) -> usize {
        self.file_bytes
    }

    /// What writes a file of these columns.
    pub(super) fn writer(&self, schema: SchemaRef) -> EtlResult<ArrowWriter<Vec<u8>>> {
        ArrowWriter::try_new(Vec::new(), schema, Some(self.properties.clone()))
            .or_etl(ErrorKind::DestinationUnsupported, "make a file of these columns")
    }

    fn begin(&self, of: &ParquetTable) -> EtlResult<ArrowWriter<Vec<u8>>> {
        self.writer(Arc::clone(&of.schema)).map_err(|error| error.with("table", &of.target.name))
    }
}

/// Files that follow each other.
struct Files<'e> {
    encoding: &'e Encoding,
    of: &'e ParquetTable,
    day: Option<i64>,
    open: Option<(ArrowWriter<Vec<u8>>, Encoded)>,
    done: Vec<Encoded>,
}

impl<'e> Files<'e> {
    fn new(encoding: &'e Encoding, of: &'e ParquetTable, day: Option<i64>) -> Self {
        Self { encoding, of, day, open: None, done: Vec::new() }
    }

    fn write(&mut self, batch: &RecordBatch, first: Position, last: Position) -> EtlResult<()> {
        let (mut writer, mut file) = match self.open.take() {
            Some(open) => open,
            None => {
                let file = Encoded { day: self.day, bytes: Bytes::new(), rows: 0, first, last };
                (self.encoding.begin(self.of)?, file)
            }
        };
        writer.write(batch).or_etl(ErrorKind::Internal, "write rows into a file")?;
        file.rows += batch.num_rows() as u64;
        file.last = last;
        let is_enough = writer.bytes_written() + writer.in_progress_size() >= self.encoding.file_bytes;
        self.open = Some((writer, file));
        if is_enough { self.complete() } else { Ok(()) }
    }

    fn complete(&mut self) -> EtlResult<()> {
        if let Some((writer, file)) = self.open.take() {
            let bytes = writer.into_inner().or_etl(ErrorKind::Internal, "complete a file")?;
            self.done.push(Encoded { bytes: bytes.into(), ..file });
        }
        Ok(())
    }

    fn finish(mut self) -> EtlResult<Vec<Encoded>> {
        self.complete()?;
        Ok(self.done)
    }
}

/// A table's columns as its files have them: the source's by their numbers, so that a renamed one is still known.
struct ParquetTable {
    target: Arc<TargetTable>,
    arrow: ArrowTable,
    schema: SchemaRef,
    /// Whether there is a column that names what was not sent.
    tells_unchanged: bool,
}

impl ParquetTable {
    fn new(target: &Arc<TargetTable>, limits: ArrowLimits) -> Self {
        let arrow = ArrowTable::new(target, limits);
        let mut fields = numbered(target, arrow.schema()).fields().to_vec();
        let tells_unchanged = target.metadata.is_some();
        if tells_unchanged {
            let item = Arc::new(Field::new("item", DataType::Utf8, true));
            fields.push(Arc::new(Field::new(unchanged_name(target), DataType::List(item), true)));
        }
        Self { target: Arc::clone(target), arrow, schema: Arc::new(Schema::new(fields)), tells_unchanged }
    }

    /// Copied rows have all values.
    fn copied(&self, batch: RecordBatch) -> EtlResult<RecordBatch> {
        let mut unchanged = ListBuilder::new(StringBuilder::new());
        (0..batch.num_rows()).for_each(|_| unchanged.append_null());
        self.with(batch, unchanged)
    }

    fn changes(&self, rows: &[StampedRow]) -> EtlResult<RecordBatch> {
        if !self.tells_unchanged {
            return self.with(self.arrow.stamped(rows)?, ListBuilder::new(StringBuilder::new()));
        }
        // Only what an update did not send is what it was.
        let is_wrong = |row: &StampedRow| row.change_type == ChangeType::Insert && row.row.has_unchanged();
        if let Some(wrong) = rows.iter().find(|row| is_wrong(row)) {
            self.arrow.stamped(std::slice::from_ref(wrong))?;
        }
        let mut unchanged = ListBuilder::new(StringBuilder::new());
        for StampedRow { row, change_type, .. } in rows {
            let is_partial = *change_type == ChangeType::Update && row.has_unchanged();
            if is_partial {
                let columns = self.target.columns.iter().enumerate();
                let not_sent = columns.filter(|(place, _)| matches!(row.raw(*place), RawValue::Unchanged));
                not_sent.for_each(|(_, name)| unchanged.values().append_value(name));
            }
            unchanged.append(is_partial);
        }
        self.with(self.arrow.partial(rows)?, unchanged)
    }

    fn with(&self, batch: RecordBatch, mut unchanged: ListBuilder<StringBuilder>) -> EtlResult<RecordBatch> {
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        if self.tells_unchanged {
            columns.push(Arc::new(unchanged.finish()));
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .or_etl(ErrorKind::Internal, "put columns together")
            .map_err(|error| error.with("table", &self.target.name))
    }
}

/// The schema with the numbers of the source's columns.
fn numbered(target: &TargetTable, schema: &SchemaRef) -> SchemaRef {
    let number = |(place, field): (usize, &Arc<Field>)| match target.source.columns.get(place) {
        Some(column) => {
            let mut metadata: HashMap<String, String> = field.metadata().clone();
            metadata.insert(PARQUET_FIELD_ID_META_KEY.to_owned(), column.attnum.to_string());
            Arc::new(Field::clone(field).with_metadata(metadata))
        }
        None => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().enumerate().map(number).collect::<Vec<_>>()))
}

/// The name of that column: one that no other column has.
pub(super) fn unchanged_name(table: &TargetTable) -> String {
    let metadata = table.metadata.iter().flat_map(|metadata| metadata.names());
    let taken: Vec<String> = table.columns.iter().map(|name| &**name).chain(metadata).map(str::to_lowercase).collect();
    let mut name = UNCHANGED.to_owned();
    while taken.contains(&name.to_lowercase()) {
        name.push('_');
    }
    name
}
