//! When does a file go that does not count any more? At once, or once nobody can be reading it.

use std::time::Duration;

use etl::clock::{self, Timestamp};
use etl::error::{ErrorKind, EtlResult};
use etl::schema::TableId;

use super::lake::Lake;
use super::state::{Current, DataFile, Entry, Retained, Table, TablePart};

/// Files that do not count any more: those that stay for a while, and those that go at once.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    pub(super) retained: Vec<Retained>,
    pub(super) gone: Vec<String>,
}

impl Replaced {
    /// Files that stay for so long.
    pub(super) fn new<'f>(table: TableId, files: impl Iterator<Item = &'f DataFile>, stay: Duration) -> Self {
        let mut replaced = Self::default();
        replaced.add(table, files, stay);
        replaced
    }

    pub(super) fn add<'f>(&mut self, table: TableId, files: impl Iterator<Item = &'f DataFile>, stay: Duration) {
        let paths = files.map(|file| file.path.clone());
        if stay.is_zero() {
            self.gone.extend(paths);
        } else {
            let until = Timestamp(clock::now().0.saturating_add(i64::try_from(stay.as_micros()).unwrap_or(i64::MAX)));
            self.retained.extend(paths.map(|path| Retained { table, path, until }));
        }
    }
}

impl Lake {
    /// Removes files whose time has come, and lets those leave the log that the current state has had for long enough.
    pub(super) async fn sweep(&self) -> EtlResult<()> {
        let now = clock::now();
        let mut manifests = self.manifests().await;
        manifests.refresh().await?;
        let state = manifests.state();
        let mut replaced = Replaced::default();
        let mut tables = Vec::new();
        for (id, table) in &state.tables {
            if let Some((part, old)) = cut(*id, table, self.retain().folded, now) {
                replaced.add(*id, old.into_iter(), self.retain().merged);
                tables.push(part);
            }
        }
        let over = state.retained.values().filter(|file| file.until <= now);
        let removed: Vec<String> = over.map(|file| file.path.clone()).collect();
        if tables.is_empty() && removed.is_empty() {
            return Ok(());
        }
        let entry = Entry { tables, retained: replaced.retained, removed: removed.clone(), ..Entry::default() };
        match manifests.append(entry).await {
            // It is done the next time.
            Err(error) if error.kind() == ErrorKind::StoreConflict => return Ok(()),
            written => written?,
        }
        drop(manifests);
        self.location().delete(replaced.gone.into_iter().chain(removed).collect()).await
    }
}

/// What becomes of a table where the rows of some files of its log have been in the current state for long enough.
fn cut(id: TableId, table: &Table, stay: Duration, now: Timestamp) -> Option<(TablePart, Vec<&DataFile>)> {
    let current = table.current.as_ref().filter(|_| !stay.is_zero())?;
    let is_over = |(_, made): &&(u64, Timestamp)| now.since(*made) >= stay;
    let upto = current.folds.iter().filter(is_over).map(|(upto, _)| *upto).max()?;
    let old: Vec<&DataFile> = table.files.iter().filter(|file| file.order <= upto).collect();
    if old.is_empty() {
        return None;
    }
    let folds = current.folds.iter().filter(|(place, _)| *place > upto).copied().collect();
    let current = Some(Current { folds, cut: upto, ..current.clone() });
    let remove = old.iter().map(|file| file.number).collect();
    Some((TablePart { remove, current, ..TablePart::new(id, table, table.generation) }, old))
}
