//! What is kept of a row that could not be delivered? Its values as text, by column, and its key.

use etl::data::{RawValue, TableRow};
use etl::error::EtlResult;
use serde_json::{Map, Value};

use crate::writer::TargetTable;

/// The values by the names that the columns have in the destination; of a partial row those that were sent.
///
/// # Errors
/// `Value` where a value cannot be read, or was not sent of a row that is whole.
pub(crate) fn image(table: &TargetTable, row: &TableRow, is_partial: bool) -> EtlResult<Value> {
    let mut image = Map::new();
    for (place, name) in table.columns.iter().enumerate() {
        if !is_partial || row.raw(place) != RawValue::Unchanged {
            let text = row.text(place)?;
            image.insert(name.to_string(), text.map_or(Value::Null, |text| text.into_owned().into()));
        }
    }
    Ok(image.into())
}

/// The values of the key, as the server writes them; `None` for a table without one.
///
/// # Errors
/// `Value` where one cannot be read.
pub(crate) fn key(table: &TargetTable, row: &TableRow) -> EtlResult<Option<Box<[String]>>> {
    let text = |place: &u16| Ok(row.text(usize::from(*place))?.map_or_else(String::new, |text| text.into_owned()));
    table.source.has_key().then(|| table.source.key.iter().map(text).collect()).transpose()
}
