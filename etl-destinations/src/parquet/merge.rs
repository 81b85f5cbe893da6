//! How do small files of a log become large ones? Files that follow each other are written anew as one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use etl::error::{ErrorKind, EtlResult, ResultExt};
use etl::schema::TableId;

use super::compact::batches;
use super::lake::{Lake, blocking};
use super::layout::FileName;
use super::retain::Replaced;
use super::state::{DataFile, Entry, Table, TablePart};

/// As many small files are merged even where they make a small one.
const ENOUGH: usize = 16;

impl Lake {
    /// Merges the small files of a table; says how many it took.
    pub(super) async fn merge(self: &Arc<Self>, id: TableId) -> EtlResult<usize> {
        let Some(table) = self.manifests().await.state().tables.get(&id).cloned() else { return Ok(0) };
        let mut taken = 0;
        for run in runs(&table, self.encoding().file_bytes() as u64) {
            taken += self.merge_run(id, &table, run).await?;
        }
        Ok(taken)
    }

    async fn merge_run(self: &Arc<Self>, id: TableId, table: &Table, run: &[DataFile]) -> EtlResult<usize> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(0) };
        let mut open = Vec::with_capacity(run.len());
        for file in run {
            open.push(self.location().fetch(&file.path).await?);
        }
        let lake = Arc::clone(self);
        let merged = blocking(move || {
            let mut writer = None;
            for file in open {
                for batch in batches(file)? {
                    let batch = batch.or_etl(ErrorKind::DestinationRejected, "read a file")?;
                    let writer = match &mut writer {
                        Some(writer) => writer,
                        None => writer.insert(lake.encoding().writer(batch.schema())?),
                    };
                    writer.write(&batch).or_etl(ErrorKind::Internal, "merge files")?;
                }
            }
            writer.map(|writer| writer.into_inner().or_etl(ErrorKind::Internal, "merge files")).transpose()
        });
        let Some(bytes) = merged.await? else { return Ok(0) };
        let (rows, size) = (run.iter().map(|file| file.rows).sum(), bytes.len() as u64);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = FileName { table: id, generation: table.generation, number, session: self.session() };
        let path = name.beside(&first.path);
        self.location().put(&path, bytes.into()).await?;
        let (first, last) = (first.clone(), last.last);
        let file = DataFile { path, number, rows, bytes: size, last, ..first };
        self.replace(id, run, file).await
    }

    async fn replace(&self, id: TableId, run: &[DataFile], file: DataFile) -> EtlResult<usize> {
        let mut manifests = self.manifests().await;
        manifests.refresh().await?;
        let known = manifests.state().tables.get(&id);
        let is_still = |known: &&Table| run.iter().all(|file| known.files.contains(file)) && known.are_together(run);
        let replaced = Replaced::new(id, run.iter(), self.retain().merged);
        let mut written = Ok(());
        if let Some(known) = known.filter(is_still) {
            let remove = run.iter().map(|file| file.number).collect();
            let table = TablePart { remove, add: vec![file.clone()], ..TablePart::new(id, known, known.generation) };
            let (next, retained) = (self.next.load(Ordering::Relaxed), replaced.retained.clone());
            let entry = Entry { next, tables: vec![table], retained, ..Entry::default() };
            written = manifests.append(entry).await;
        }
        let is_there = manifests.state().paths().any(|path| path == file.path);
        drop(manifests);
        match written {
            // It is there, or it is done again.
            Err(error) if error.kind() != ErrorKind::StoreConflict => Err(error),
            _ if !is_there => self.location().delete(vec![file.path]).await.map(|()| 0),
            _ => {
                self.location().delete(replaced.gone).await?;
                Ok(run.len())
            }
        }
    }
}

/// Small files that follow each other and look alike, as far as they make a whole one. What is in the current state is
/// not merged with what is not.
fn runs(table: &Table, whole: u64) -> Vec<&[DataFile]> {
    let folder = |file: &DataFile| file.path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let are_alike = |a: &DataFile, b: &DataFile| {
        a.shape == b.shape && table.is_folded(a) == table.is_folded(b) && folder(a) == folder(b)
    };
    let is_small = |file: &DataFile| file.bytes < whole / 2;
    let mut runs = Vec::new();
    for group in table.files.chunk_by(|a, b| is_small(a) && is_small(b) && are_alike(a, b)) {
        let mut rest = group;
        while rest.len() > 1 {
            let mut bytes = 0;
            let mut fits = |file: &DataFile| {
                bytes += file.bytes;
                bytes <= whole
            };
            let count = rest.iter().take_while(|file| fits(file)).count().max(1);
            let (run, after) = rest.split_at(count);
            let is_whole = run.iter().map(|file| file.bytes).sum::<u64>() >= whole / 2;
            if run.len() > 1 && (is_whole || run.len() >= ENOUGH) {
                runs.push(run);
            }
            rest = after;
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl::Position;

    fn table(sizes: &[u64], upto: u64) -> Table {
        let file = |(place, bytes): (usize, &u64)| {
            let number = place as u64 + 1;
            let (first, last) = (Position::ZERO, Position::ZERO);
            let path = format!("public/t/log/{number}");
            DataFile { path, number, order: number, shape: 1, rows: 1, bytes: *bytes, first, last }
        };
        let current = super::super::state::Current {
            upto,
            mode: crate::write_mode::WriteMode::Upsert,
            shape: 1,
            files: Vec::new(),
            folds: Vec::new(),
            cut: 0,
        };
        let files = sizes.iter().enumerate().map(file).collect();
        Table { files, current: Some(current), ..Table::default() }
    }

    fn found(sizes: &[u64], upto: u64) -> Vec<Vec<u64>> {
        let table = table(sizes, upto);
        runs(&table, 100).into_iter().map(|run| run.iter().map(|file| file.number).collect()).collect()
    }

    #[test]
    fn small_files_are_merged_up_to_a_whole_one_and_no_further() {
        assert_eq!(found(&[30, 30, 30, 30, 10], 0), [vec![1, 2, 3]], "the rest is small, and few");
        assert_eq!(found(&[90, 40, 45, 90, 20], 0), [vec![2, 3]]);
        assert_eq!(found(&[30, 30, 30, 30], 2), [vec![1, 2], vec![3, 4]], "what is in the current state stays apart");
        assert!(found(&[1; ENOUGH - 1], 0).is_empty());
        assert_eq!(found(&[1; ENOUGH], 0).len(), 1);
    }
}
