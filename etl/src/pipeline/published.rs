//! What do the published tables look like now? Kept by the task of the tables, and read by all.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::schema::TableId;
use crate::source::{Leaf, PublishedTable};
use crate::transform::Selection;

/// A published table.
#[derive(Debug, Clone)]
pub(super) struct Published {
    /// As the source describes it.
    pub(super) table: Arc<PublishedTable>,
    /// What of it is passed on.
    pub(super) selection: Arc<Selection>,
}

/// All of them, by oid.
#[derive(Debug, Default)]
pub(super) struct PublishedTables(RwLock<HashMap<TableId, Published>>);

impl PublishedTables {
    pub(super) fn new(tables: impl IntoIterator<Item = Published>) -> Self {
        Self(RwLock::new(tables.into_iter().map(|published| (published.table.schema.id, published)).collect()))
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<TableId, Published>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of all.
    pub(super) fn ids(&self) -> Vec<TableId> {
        self.read().keys().copied().collect()
    }

    /// Whether a table of this oid is published itself.
    pub(super) fn contains(&self, id: TableId) -> bool {
        self.read().contains_key(&id)
    }

    /// Whether rows of a table of this oid are among what is published.
    pub(super) fn knows(&self, id: TableId) -> bool {
        let tables = self.read();
        let has_leaf = |published: &Published| published.table.leaves.iter().any(|leaf| leaf.id == id);
        tables.contains_key(&id) || tables.values().any(has_leaf)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Published> {
        self.read().values().cloned().collect()
    }

    /// The table with this oid.
    ///
    /// # Errors
    /// [`Internal`](ErrorKind::Internal) for one that is not published.
    pub(super) fn get(&self, id: TableId) -> EtlResult<Published> {
        let found = self.read().get(&id).cloned();
        found.ok_or_else(|| EtlError::new(ErrorKind::Internal, "the table is not published").with("table", id))
    }

    /// The table's name at the source, for messages.
    pub(super) fn name(&self, id: TableId) -> String {
        self.read().get(&id).map_or_else(|| id.to_string(), |published| published.table.schema.name.to_string())
    }

    /// A table is new, or looks different from now on.
    pub(super) fn put(&self, published: Published) {
        let id = published.table.schema.id;
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, published);
    }

    /// The rows of a table are in these leaves and files, and are the same.
    pub(super) fn is_in(&self, id: TableId, files: impl Iterator<Item = (Leaf, Option<u32>)>) {
        let (leaves, filenodes) = files.unzip();
        let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Published { table, .. }) = tables.get_mut(&id) {
            *table = Arc::new(PublishedTable { leaves, filenodes, ..PublishedTable::clone(table) });
        }
    }

    /// A table is published no more.
    pub(super) fn remove(&self, id: TableId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}
