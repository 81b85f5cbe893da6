//! What is a column's Arrow type? A map from kinds, and what the place behind it can hold.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use etl::schema::{Column, Kind};

/// The metadata key of the type as the source writes it.
pub const POSTGRES_TYPE: &str = "postgres.type";

/// What the place behind the columns can hold beyond Arrow's own rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrowLimits {
    /// How the place writes infinite dates and timestamps; an error where it cannot.
    pub infinities: Option<Infinities>,
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
pub fn arrow_field(name: &str, column: &Column) -> Field {
    let metadata = HashMap::from([(POSTGRES_TYPE.to_owned(), column.type_name.to_string())]);
    // An old row holds nulls outside of its key, so every field takes them.
    Field::new(name, DataType::Null, true).with_data_type_of(&column.kind, metadata)
}

/// Whether values of a `numeric(p, s)` are 128-bit decimals, and with which precision and scale.
pub(super) fn decimal128(of: Option<(u16, i16)>) -> Option<(u8, i8)> {
    let (precision, scale) = of?;
    let (precision, scale) = (u8::try_from(precision).ok()?, i8::try_from(scale).ok()?);
    (precision <= 38 && scale >= 0 && scale <= precision as i8).then_some((precision, scale))
}

/// The field of an array's elements.
pub(super) fn element_field(kind: &Kind) -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Null, true).with_data_type_of(kind, HashMap::new()))
}

trait OfKind {
    fn with_data_type_of(self, kind: &Kind, metadata: HashMap<String, String>) -> Self;
}

impl OfKind for Field {
    fn with_data_type_of(self, kind: &Kind, mut metadata: HashMap<String, String>) -> Self {
        let extension = match kind {
            Kind::Uuid => Some("arrow.uuid"),
            Kind::Json | Kind::Jsonb => Some("arrow.json"),
            _ => None,
        };
        if let Some(extension) = extension {
            metadata.insert("ARROW:extension:name".to_owned(), extension.to_owned());
        }
        self.with_data_type(data_type(kind)).with_metadata(metadata)
    }
}

fn data_type(kind: &Kind) -> DataType {
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
        Kind::Bytea => DataType::Binary,
        Kind::Date => DataType::Date32,
        Kind::Time => DataType::Time64(TimeUnit::Microsecond),
        Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        Kind::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Kind::Uuid => DataType::FixedSizeBinary(16),
        Kind::Array(element) => DataType::List(element_field(element)),
        _ => DataType::Utf8,
    }
}
