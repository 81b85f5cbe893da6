//! What is a column's Arrow type? A map from kinds, and what the place behind it can hold.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit};
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
}

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

/// Whether values of a `numeric(p, s)` are 128-bit decimals, and with which precision and scale.
pub(super) fn decimal128(of: Option<(u16, i16)>) -> Option<(u8, i8)> {
    let (precision, scale) = of?;
    let (precision, scale) = (u8::try_from(precision).ok()?, i8::try_from(scale).ok()?);
    (precision <= 38 && scale >= 0 && scale <= precision as i8).then_some((precision, scale))
}

/// Whether a composite type has a struct: it has attributes, and nobody can take one for another. It is text where not.
pub fn is_struct(attributes: &[Attribute]) -> bool {
    let names: std::collections::HashSet<String> = attributes.iter().map(|of| of.name.to_lowercase()).collect();
    !attributes.is_empty() && names.len() == attributes.len()
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
        Kind::Bool => DataType::Boolean,
        Kind::Int2 => DataType::Int16,
        Kind::Int4 => DataType::Int32,
        Kind::Int8 => DataType::Int64,
        Kind::Oid => DataType::UInt32,
        Kind::Float4 => DataType::Float32,
        Kind::Float8 => DataType::Float64,
        Kind::Numeric(of) => match decimal128(*of) {
            Some((precision, scale)) => DataType::Decimal128(precision, scale),
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
