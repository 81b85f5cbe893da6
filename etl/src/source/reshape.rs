//! Is it certain what a RELATION's columns are? Only then is a table followed in place; else it is copied again (R10).

use super::catalog::PublishedTable;
use super::shape::{Shape, difference};
use crate::schema::{Column, Kind, SchemaChange, changes};

/// Whether rows of this shape have the columns that the catalog shows `now`, and older rows have values in them that are
/// known: `known` is how the table looked when its rows last did as expected. Otherwise says why not.
///
/// A RELATION names columns and has no `attnum`, and the catalog may be ahead of the stream. Columns never come back and
/// each new one takes the next `attnum`. So where no new one is gone again, and either none is new or none is gone, the
/// columns at the RELATION are those of the catalog: every set of columns between `known` and `now` of the same size is
/// the same set.
pub(crate) fn follow(known: &PublishedTable, now: &PublishedTable, shape: &Shape) -> Result<(), String> {
    if let Some(what) = difference(&now.schema, shape) {
        return Err(format!("the catalog is ahead of the stream: {what}"));
    }
    let last = known.schema.last_attnum;
    let new = now.attnums.iter().filter(|attnum| **attnum > last).count();
    let is_gone = known.attnums.iter().any(|attnum| !now.attnums.contains(attnum));
    let was_given = usize::try_from(now.schema.last_attnum - last).unwrap_or(usize::MAX);
    if last <= 0 || new != was_given || (is_gone && new > 0) {
        return Err("columns came and went: which ones these are is not certain".to_owned());
    }
    // Their names say nothing of their rows.
    if !known.leaves.iter().map(|leaf| leaf.id).eq(now.leaves.iter().map(|leaf| leaf.id))
        || known.row_filter != now.row_filter
    {
        return Err("what is published of it changed too".to_owned());
    }
    if known.filenodes != now.filenodes || now.filenodes.contains(&None) {
        return Err("it was rewritten: its rows may have other values".to_owned());
    }
    let is_partitioned = now.leaves.iter().any(|leaf| leaf.id != now.schema.id);
    for change in changes(&known.schema, &now.schema) {
        match change {
            SchemaChange::AddColumn(column)
                if is_partitioned || (now.filled.contains(&column.attnum) && !is_plain(&column)) =>
            {
                return Err(format!("older rows have a value in the new column {}", column.name));
            }
            SchemaChange::RetypeColumn { from, to } if !is_alike(&from, &to) => {
                return Err(format!("the column {} has values of another kind", to.name));
            }
            SchemaChange::ChangeKey { .. } => return Err("its key is another".to_owned()),
            _ => {}
        }
    }
    Ok(())
}

/// Whether what older rows have in a column is a text that says the same everywhere.
fn is_plain(column: &Column) -> bool {
    let is_of_plain_kind = match &column.kind {
        Kind::Bool | Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Numeric(Some(_)) | Kind::Text | Kind::Uuid => true,
        Kind::Date | Kind::Timestamp | Kind::TimestampTz => {
            // Neither an infinity nor a year before Christ.
            column.fill.as_ref().is_some_and(|fill| fill.len() <= 32 && !fill.contains(['y', 'B']))
        }
        _ => false,
    };
    is_of_plain_kind && column.fill.as_deref().is_some_and(|fill| fill != "NaN")
}

/// Whether a value that was not rewritten is read as the same value. What is only read as text may be written in
/// another way by another type.
fn is_alike(from: &Column, to: &Column) -> bool {
    match (&from.kind, &to.kind) {
        (Kind::Numeric(_), Kind::Numeric(_)) => true,
        (before, after) => before == after && (from.type_oid == to.type_oid || before.has_binary()),
    }
}

#[cfg(test)]
mod tests;
