//! What does logical decoding say? The messages of the `pgoutput` plugin, protocols 1 to 4.
//!
//! Source: the Postgres manual, "Logical Replication Message Formats". Nothing is copied: [`parse`] reads
//! headers, and [`note_change`] notes where the values of a row lie. Between [`Message::StreamStart`] and
//! [`Message::StreamStop`] messages name the (sub)transaction that they belong to: there it is [`parse_streamed`] and
//! [`note_streamed_change`].

mod change;
mod message;
mod relation;
mod streaming;
#[cfg(test)]
mod tests;
mod transaction;
mod tuple;
mod two_phase;

pub use change::{
    NotedChange, NotedOld, note_change, note_kept_change, note_kept_streamed_change, note_streamed_change,
};
pub use message::{Message, Peek, Streamed, parse, parse_streamed, peek};
pub use relation::{Relation, RelationColumn, RelationOids, Truncate, TypeName};
pub use streaming::{StreamAbort, StreamCommit, StreamStart};
pub use transaction::{Begin, Commit, Emitted, Origin};
pub use two_phase::{CommitPrepared, Prepared, RollbackPrepared};
