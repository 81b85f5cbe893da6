//! How does the engine hold a destination whose type it does not know? The object-safe twin of the trait.

use std::fmt;
use std::sync::Arc;

use super::{Batch, Capabilities, CopyChunk, Destination, Replayed, StagedRun, TableChange, ValueLimits};
use crate::data::{CopiedRows, Event, TableRow};
use crate::error::EtlResult;
use crate::lsn::Position;
use crate::schema::{TableExtras, TableId, TableSchema};
use crate::store::{BoxFuture, CursorId, DeadLetter};

/// Any destination; clones are the same one. Every call is forwarded, the provided ones too.
#[derive(Clone)]
pub struct AnyDestination(Arc<dyn Twin>);

impl AnyDestination {
    /// Forgets the type.
    pub fn new(destination: impl Destination) -> Self {
        Self(Arc::new(destination))
    }
}

impl fmt::Debug for AnyDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyDestination").field(&self.0.name()).finish()
    }
}

/// The calls that return futures, in both shapes.
macro_rules! forward {
    ($($call:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        trait Twin: Send + Sync {
            fn name(&self) -> &str;
            fn capabilities(&self) -> Capabilities;
            fn value_limits(&self) -> ValueLimits;
            fn needs_all_values(&self, schema: &TableSchema) -> bool;
            fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool;
            $(fn $call<'a>(&'a self, $($arg: $type),*) -> BoxFuture<'a, EtlResult<$out>>;)*
        }

        impl<D: Destination> Twin for D {
            fn name(&self) -> &str {
                Destination::name(self)
            }
            fn capabilities(&self) -> Capabilities {
                Destination::capabilities(self)
            }
            fn value_limits(&self) -> ValueLimits {
                Destination::value_limits(self)
            }
            fn needs_all_values(&self, schema: &TableSchema) -> bool {
                Destination::needs_all_values(self, schema)
            }
            fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
                Destination::replaces_copied_rows(self, schema)
            }
            $(fn $call<'a>(&'a self, $($arg: $type),*) -> BoxFuture<'a, EtlResult<$out>> {
                Box::pin(async move { Destination::$call(self, $($arg),*).await })
            })*
        }

        impl Destination for AnyDestination {
            fn name(&self) -> &str {
                self.0.name()
            }
            fn capabilities(&self) -> Capabilities {
                self.0.capabilities()
            }
            fn value_limits(&self) -> ValueLimits {
                self.0.value_limits()
            }
            fn needs_all_values(&self, schema: &TableSchema) -> bool {
                self.0.needs_all_values(schema)
            }
            fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
                self.0.replaces_copied_rows(schema)
            }
            $(async fn $call(&self, $($arg: $type),*) -> EtlResult<$out> {
                self.0.$call($($arg),*).await
            })*
        }
    };
}

forward! {
    truncate_table(table_id: TableId) -> ();
    write_table_rows(table_id: TableId, table_rows: Vec<TableRow>) -> ();
    write_events(events: Vec<Event>) -> ();
    check_connection() -> ();
    startup() -> ();
    shutdown() -> ();
    begin_run(run: StagedRun) -> ();
    finalize_run(run: StagedRun) -> ();
    abandon_run(run: StagedRun) -> ();
    write_copy_chunk(table_id: TableId, chunk: CopyChunk, table_rows: CopiedRows) -> ();
    allow_change(change: TableChange) -> ();
    write_batch(batch: Batch, events: Vec<Event>) -> ();
    complete_table(table_id: TableId, extras: TableExtras) -> ();
    go_back(to: Position) -> ();
    replay(letters: Vec<DeadLetter>) -> Replayed;
    durable_position(cursor: CursorId) -> Option<Position>;
}

#[cfg(test)]
mod tests;
