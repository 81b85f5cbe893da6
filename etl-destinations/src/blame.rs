//! Which table is an error about? The one that it names, among those that were written.

use std::sync::Arc;

use etl::error::{ErrorKind, EtlError};

use crate::writer::{Step, TargetTable};

/// The tables that a unit touches.
#[derive(Debug)]
pub(crate) struct Touched(Vec<Arc<TargetTable>>);

impl Touched {
    /// Those of these steps.
    pub(crate) fn by(steps: &[Step]) -> Self {
        let mut tables = Vec::new();
        for step in steps {
            match step {
                Step::Ensure(table) | Step::Alter(table, _) | Step::Fill(table, _) => tables.push(Arc::clone(table)),
                Step::Truncate(several) => tables.extend(several.iter().map(|truncated| Arc::clone(&truncated.table))),
                Step::Write(batch) => tables.push(Arc::clone(&batch.table)),
            }
        }
        Self(tables)
    }

    /// An error that waiting does not help against, and that names one of the tables, is that table's alone.
    pub(crate) fn blame(&self, error: EtlError) -> EtlError {
        let Some(name) = error.context("table").filter(|_| may_be_of_one(&error) && error.table().is_none()) else {
            return error;
        };
        let is_named = |table: &TargetTable| {
            [&table.name, &table.source.name, table.source.source_name()].iter().any(|own| own.to_string() == name)
        };
        match self.0.iter().find(|table| is_named(table)).map(|table| table.id) {
            Some(table) => error.of_table(table),
            None => error,
        }
    }
}

/// Whether waiting does not help against the error, so that the table which it is about had better stop alone.
pub(crate) fn may_be_of_one(error: &EtlError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Config
            | ErrorKind::Value
            | ErrorKind::SchemaChanged
            | ErrorKind::DestinationRejected
            | ErrorKind::DestinationUnsupported
    )
}
