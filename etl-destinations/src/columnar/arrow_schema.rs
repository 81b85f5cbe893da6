//! What is a column's Arrow type? A map from kinds, and what the place behind it can hold.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit};
use etl::destination::{IntervalLimit, ValueLimits, is_struct};
use etl::schema::{Attribute, Column, Kind};

/// The metadata key of the type as the source writes it.
pub const POSTGRES_TYPE: &str = "postgres.type";

/// What the place behind the columns can hold beyond Arrow's own rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrowLimits {
    /// How the place writes infinite dates and timestamps; an error where it cannot.
    pub infinities: Option<Infinities>,
    /// Whether it has floats of 16 bits; 32 where not.
    pub half_floats: bool,
    /// Whether intervals can be handed over as Arrow's; where not they are text, `N months N days N microseconds`.
    pub intervals: bool,
    /// The most digits of a decimal: 38 or 76. A numeric with more is text.
    pub decimal_digits: u8,
    /// Whether it has types for what is made of parts: lists, structs, maps, intervals, times of day. Where not, that is
    /// text, as Postgres writes it.
    pub parts: bool,
    /// Whether it takes uuids as 16 bytes; text where not.
    pub uuids: bool,
    /// The dates and timestamps that it has.
    pub calendar: Calendar,
}

/// Which dates and timestamps a place has, infinities apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    /// The first and the last day, from 1970-01-01.
    pub dates: (i32, i32),
    /// The first and the last microsecond, from 1970-01-01.
    pub timestamps: (i64, i64),
}

impl ArrowLimits {
    /// What Arrow has itself.
    pub const ARROW: Self = Self {
        infinities: None,
        half_floats: true,
        intervals: true,
        decimal_digits: 38,
        parts: true,
        uuids: true,
        calendar: Calendar { dates: (i32::MIN, i32::MAX), timestamps: (i64::MIN, i64::MAX) },
    };

    /// What columns of these types can hold.
    pub fn values(&self) -> ValueLimits {
        // One that stands for an infinity stands for nothing else.
        let most = |stands_for: i64| i64::MAX - i64::from(stands_for == i64::MAX);
        let last = self.infinities.map_or(i64::MAX, |infinities| most(infinities.timestamps.1));
        let Calendar { dates, timestamps } = self.calendar;
        let all = ValueLimits::NONE;
        let day = |day: i32| day.saturating_sub(EPOCH_DAYS);
        ValueLimits {
            decimal_digits: Some(self.decimal_digits.into()),
            dates: (all.dates.0.max(day(dates.0)), all.dates.1.min(day(dates.1))),
            timestamps: (
                all.timestamps.0.max(timestamps.0.saturating_sub(EPOCH_MICROS)),
                last.min(timestamps.1) - EPOCH_MICROS,
            ),
            infinities: self.infinities.is_some(),
            lists: self.parts,
            parts: self.parts,
            intervals: match (self.parts, self.intervals) {
                (false, _) => IntervalLimit::None,
                (true, true) => IntervalLimit::Nanoseconds,
                (true, false) => IntervalLimit::Finite,
            },
        }
    }
}

/// From Postgres's epoch, 2000-01-01, to Unix's.
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The numbers that stand for infinite dates and timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Infinities {
    /// `-infinity` and `infinity` as days.
    pub dates: (i32, i32),
    /// `-infinity` and `infinity` as microseconds.
    pub timestamps: (i64, i64),
}

/// The field of a column. What has no type of its own is text; the source's type is kept in the metadata.
pub fn arrow_field(name: &str, column: &Column, limits: ArrowLimits) -> Field {
    let metadata = HashMap::from([(POSTGRES_TYPE.to_owned(), column.type_name.to_string())]);
    // An old row holds nulls outside of its key, so every field takes them.
    Field::new(name, DataType::Null, true).with_data_type_of(&column.kind, limits, metadata)
}

/// Whether values of a `numeric(p, s)` are decimals, and with which precision and scale.
pub(super) fn decimal(of: Option<(u16, i16)>, limits: ArrowLimits) -> Option<(u8, i8)> {
    let (precision, scale) = of?;
    let (precision, scale) = (u8::try_from(precision).ok()?, i8::try_from(scale).ok()?);
    (precision <= limits.decimal_digits && scale >= 0 && scale <= precision as i8).then_some((precision, scale))
}

/// Up to here a decimal has 128 bits, beyond it 256.
pub(super) const DIGITS_OF_128: u8 = 38;

/// Whether the place has no type for the kind, so that it is text.
pub(super) fn is_spelled(kind: &Kind, limits: ArrowLimits) -> bool {
    match kind {
        Kind::Array(_) | Kind::Composite(_) | Kind::Range(_) | Kind::Multirange(_) | Kind::Hstore => !limits.parts,
        Kind::Vector(_) | Kind::HalfVector(_) | Kind::Interval | Kind::Time => !limits.parts,
        Kind::Uuid => !limits.uuids,
        _ => false,
    }
}

/// The field of an array's elements.
pub(super) fn element_field(kind: &Kind, limits: ArrowLimits) -> FieldRef {
    part_field("item", kind, limits)
}

fn part_field(name: &str, kind: &Kind, limits: ArrowLimits) -> FieldRef {
    Arc::new(Field::new(name, DataType::Null, true).with_data_type_of(kind, limits, HashMap::new()))
}

/// The field of a vector's numbers.
pub(super) fn number_field(number: &DataType) -> FieldRef {
    Arc::new(Field::new("item", number.clone(), true))
}

/// The numbers of a `halfvec`.
pub(super) fn half_float(limits: ArrowLimits) -> DataType {
    if limits.half_floats { DataType::Float16 } else { DataType::Float32 }
}

/// The fields of a composite.
pub(super) fn composite_fields(attributes: &[Attribute], limits: ArrowLimits) -> Fields {
    attributes.iter().map(|attribute| part_field(&attribute.name, &attribute.kind, limits)).collect()
}

/// The fields of a range.
pub(super) fn range_fields(kind: &Kind, limits: ArrowLimits) -> Fields {
    let bounds = ["lower", "upper"].map(|name| part_field(name, kind, limits));
    let flags = ["lower_inclusive", "upper_inclusive", "empty"];
    bounds.into_iter().chain(flags.map(|name| Arc::new(Field::new(name, DataType::Boolean, true)))).collect()
}

/// The field of the pairs of an `hstore`, and their own fields.
pub(super) fn entries_field() -> (FieldRef, Fields) {
    let fields =
        Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)]);
    (Arc::new(Field::new("entries", DataType::Struct(fields.clone()), false)), fields)
}

trait OfKind {
    fn with_data_type_of(self, kind: &Kind, limits: ArrowLimits, metadata: HashMap<String, String>) -> Self;
}

impl OfKind for Field {
    fn with_data_type_of(self, kind: &Kind, limits: ArrowLimits, mut metadata: HashMap<String, String>) -> Self {
        let extension = match kind {
            Kind::Uuid => Some("arrow.uuid"),
            Kind::Json | Kind::Jsonb => Some("arrow.json"),
            Kind::Geometry(Some(srid)) => {
                let crs = format!(r#"{{"crs":"{srid}","crs_type":"srid"}}"#);
                metadata.insert("ARROW:extension:metadata".to_owned(), crs);
                Some("geoarrow.wkb")
            }
            _ => None,
        };
        if let Some(extension) = extension {
            metadata.insert("ARROW:extension:name".to_owned(), extension.to_owned());
        }
        self.with_data_type(data_type(kind, limits)).with_metadata(metadata)
    }
}

fn data_type(kind: &Kind, limits: ArrowLimits) -> DataType {
    match kind {
        _ if is_spelled(kind, limits) => DataType::Utf8,
        Kind::Bool => DataType::Boolean,
        Kind::Int2 => DataType::Int16,
        Kind::Int4 => DataType::Int32,
        Kind::Int8 => DataType::Int64,
        Kind::Oid => DataType::UInt32,
        Kind::Float4 => DataType::Float32,
        Kind::Float8 => DataType::Float64,
        Kind::Numeric(of) => match decimal(*of, limits) {
            Some((precision @ ..=DIGITS_OF_128, scale)) => DataType::Decimal128(precision, scale),
            Some((precision, scale)) => DataType::Decimal256(precision, scale),
            None => DataType::Utf8,
        },
        Kind::Bytea | Kind::Geometry(_) => DataType::Binary,
        Kind::Date => DataType::Date32,
        Kind::Time => DataType::Time64(TimeUnit::Microsecond),
        Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        Kind::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Kind::Uuid => DataType::FixedSizeBinary(16),
        Kind::Interval if limits.intervals => DataType::Interval(IntervalUnit::MonthDayNano),
        Kind::Array(element) => DataType::List(element_field(element, limits)),
        Kind::Composite(attributes) if is_struct(attributes) => DataType::Struct(composite_fields(attributes, limits)),
        Kind::Range(element) => DataType::Struct(range_fields(element, limits)),
        Kind::Multirange(element) => DataType::List(element_field(&Kind::Range(Arc::clone(element)), limits)),
        Kind::Hstore => DataType::Map(entries_field().0, false),
        Kind::Vector(dimensions) => vector(DataType::Float32, *dimensions),
        Kind::HalfVector(dimensions) => vector(half_float(limits), *dimensions),
        _ => DataType::Utf8,
    }
}

fn vector(number: DataType, dimensions: Option<u16>) -> DataType {
    let field = number_field(&number);
    match dimensions {
        Some(dimensions) => DataType::FixedSizeList(field, dimensions.into()),
        None => DataType::List(field),
    }
}
