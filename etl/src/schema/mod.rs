//! What shape do the rows have? Tables, columns, types, and how a schema changes.

mod change;
mod extras;
mod kind;
mod patterns;
mod table;
mod widening;

pub use change::{SchemaChange, changes};
pub use extras::{Index, TableExtras};
pub use kind::{Attribute, Kind, Shape};
pub use patterns::TablePatterns;
pub use table::{Column, ReplicaIdentity, TableId, TableName, TableSchema};
