//! What are names, texts and types in ClickHouse's SQL?

use etl::data::RawValue;
use etl::data::decode;
use etl::schema::{Column, Kind, TableName};

use crate::writer::TargetTable;

/// Says which of several rows with one key is the newest: made of `_LSN` and `_ORDINAL`.
pub(super) const VERSION: &str = "_ETL_VERSION";
/// Says that a row is gone; without a key, that one row like it is.
pub(super) const DELETED: &str = "_ETL_DELETED";

/// The most digits of a decimal.
pub(super) const DIGITS: u8 = 76;

/// A name as SQL takes it.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A table's name as SQL takes it.
pub(super) fn quoted_table(name: &TableName) -> String {
    format!("{}.{}", quoted(&name.schema), quoted(&name.name))
}

/// A text as SQL takes it.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The names of all columns that are written, as SQL takes them; the metadata columns last.
pub(super) fn columns_of(table: &TargetTable) -> Vec<String> {
    let metadata = table.metadata.iter().flat_map(|metadata| metadata.names());
    table.columns.iter().map(|name| &**name).chain(metadata).map(quoted).collect()
}

/// The version of a row, from its metadata columns.
pub(super) fn version(table: &TargetTable) -> String {
    let Some(metadata) = &table.metadata else { return "toUInt128(0)".to_owned() };
    version_of(&quoted(&metadata.lsn), &quoted(&metadata.ordinal))
}

/// The version that these two make.
pub(super) fn version_of(lsn: &str, ordinal: &str) -> String {
    format!("bitOr(bitShiftLeft(toUInt128({lsn}), 64), toUInt128({ordinal}))")
}

/// The type of a column that may be null, or that is in the key.
pub(super) fn sql_type(kind: &Kind, is_key: bool) -> String {
    match (kind, is_key) {
        (Kind::Enum, true) => "LowCardinality(String)".to_owned(),
        (Kind::Enum, false) => "LowCardinality(Nullable(String))".to_owned(),
        (_, true) => plain(kind),
        (_, false) => format!("Nullable({})", plain(kind)),
    }
}

/// The type of a column of a stage.
pub(super) fn staged_type(kind: &Kind, is_key: bool) -> String {
    match kind {
        Kind::Enum if is_key => "String".to_owned(),
        Kind::Enum => "Nullable(String)".to_owned(),
        _ => sql_type(kind, is_key),
    }
}

fn plain(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "Bool",
        Kind::Int2 => "Int16",
        Kind::Int4 => "Int32",
        Kind::Int8 => "Int64",
        Kind::Oid => "UInt32",
        Kind::Float4 => "Float32",
        Kind::Float8 => "Float64",
        Kind::Numeric(Some((precision, scale @ 0..)))
            if *precision <= DIGITS.into() && scale.unsigned_abs() <= *precision =>
        {
            return format!("Decimal({precision}, {scale})");
        }
        Kind::Date => "Date32",
        Kind::Timestamp | Kind::TimestampTz => "DateTime64(6, 'UTC')",
        Kind::Uuid => "UUID",
        // Bytes are a `String`, and so is everything whose text says more than any type: arrays of any dimension, which
        // may be null, intervals, times to 24:00, JSON to the byte.
        _ => "String",
    }
    .to_owned()
}

/// The types of the metadata columns.
pub(super) const METADATA: [&str; 4] = ["LowCardinality(String)", "Int64", "Int64", "DateTime64(6, 'UTC')"];

/// What older rows have in a column, as SQL takes it; nothing where that is not known.
pub(super) fn fill(column: &Column) -> Option<String> {
    let text = column.fill.as_deref()?;
    let raw = RawValue::Text(text.as_bytes());
    Some(match &column.kind {
        Kind::Bytea => {
            let mut bytes = Vec::new();
            decode::bytea(raw, &mut bytes).ok()?;
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("unhex('{hex}')")
        }
        Kind::Timestamp => moment(decode::timestamp(raw).ok()?)?,
        Kind::TimestampTz => moment(decode::timestamptz(raw).ok()?)?,
        _ => literal(text),
    })
}

/// From Postgres's epoch, 2000-01-01, to Unix's.
const EPOCH: i64 = 946_684_800_000_000;

fn moment(micros: i64) -> Option<String> {
    Some(format!("fromUnixTimestamp64Micro({}, 'UTC')", micros.checked_add(EPOCH)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted_and_types_are_spelled_as_clickhouse_does() {
        assert_eq!(quoted("a`b\\c"), "`a\\`b\\\\c`");
        assert_eq!(literal("it's \\n"), "'it\\'s \\\\n'");
        for (kind, key, nullable) in [
            (Kind::Numeric(Some((76, 30))), "Decimal(76, 30)", "Nullable(Decimal(76, 30))"),
            (Kind::Numeric(Some((77, 0))), "String", "Nullable(String)"),
            (Kind::Numeric(Some((3, -2))), "String", "Nullable(String)"),
            (Kind::Numeric(Some((3, 5))), "String", "Nullable(String)"),
            (Kind::Numeric(None), "String", "Nullable(String)"),
            (Kind::Enum, "LowCardinality(String)", "LowCardinality(Nullable(String))"),
            (Kind::TimestampTz, "DateTime64(6, 'UTC')", "Nullable(DateTime64(6, 'UTC'))"),
        ] {
            assert_eq!((sql_type(&kind, true).as_str(), sql_type(&kind, false).as_str()), (key, nullable));
        }
    }
}
