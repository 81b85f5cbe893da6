//! What does logical decoding say? The messages of the `pgoutput` plugin, protocol 1.
//!
//! Source: the Postgres manual, "Logical Replication Message Formats". Nothing is copied: [`parse`] reads
//! headers, and [`note_change`] notes where the values of a row lie.

mod change;
mod message;
mod relation;
#[cfg(test)]
mod tests;
mod transaction;
mod tuple;

pub use change::{NotedChange, NotedOld, note_change};
pub use message::{Message, Peek, parse, peek};
pub use relation::{Relation, RelationColumn, RelationOids, Truncate, TypeName};
pub use transaction::{Begin, Commit, Emitted, Origin};
