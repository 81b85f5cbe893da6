//! Who else may read the open file? The process that the pipeline runs in, by connections of its own.

use std::fmt;
use std::sync::Arc;

use duckdb::Connection;
use etl::error::{ErrorKind, EtlError, EtlResult};
use tokio::sync::RwLock;

use super::writer::File;

/// Makes connections to the file that a destination has open; no other process can have one meanwhile. Clones are the same.
#[derive(Clone)]
pub struct Connections(Arc<RwLock<Option<File>>>);

impl Connections {
    pub(super) fn new(file: Arc<RwLock<Option<File>>>) -> Self {
        Self(file)
    }

    /// A further connection, to read with: a query sees what whole batches have left, never half of one. The file stays
    /// open as long as it lives.
    ///
    /// # Errors
    /// `DestinationUnavailable` while the destination does not have the file open.
    pub async fn connect(&self) -> EtlResult<Connection> {
        let file = self.0.read().await;
        let closed = || {
            EtlError::new(ErrorKind::DestinationUnavailable, "the file is not open")
                .hint("It is opened by the first write, or by `startup`")
        };
        file.as_ref().ok_or_else(closed)?.clone_first()
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}
