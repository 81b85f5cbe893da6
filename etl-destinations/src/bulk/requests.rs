//! Which tables have a request under way? It is answered before another begins, whoever gave up waiting for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use etl::schema::TableId;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The requests of one destination. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests(Arc<Mutex<HashMap<TableId, Arc<AsyncMutex<()>>>>>);

impl Requests {
    /// Waits until the table has none under way; it has one until what is returned is dropped.
    pub(super) async fn of(&self, table: TableId) -> OwnedMutexGuard<()> {
        let request = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(table).or_default());
        request.lock_owned().await
    }
}
