//! How does Postgres data get anywhere? The engine: it copies the rows of published tables, streams every
//! change after that, and writes both into a [`Destination`](destination::Destination).

pub mod byte_size;
pub mod clock;
pub mod data;
pub mod destination;
pub mod duration;
pub mod error;
pub mod failpoint;
pub mod lsn;
pub mod memory;
pub mod metrics;
pub mod pipeline;
pub mod postgres;
pub mod relay;
pub mod retry;
pub mod schema;
pub mod secret;
pub mod source;
pub mod store;
pub mod transform;

pub use byte_size::ByteSize;
pub use error::{ErrorKind, EtlError, EtlResult, ResultExt, RetryClass};
pub use lsn::{Lsn, Position};
pub use secret::Secret;
pub use store::CursorId;
