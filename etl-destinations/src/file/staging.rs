//! How do the files of a run take the place of a table's? They are in a directory that changes places with the table's.

use std::collections::hash_map;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use etl::clock;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{TableId, TableName};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::directory::{Directory, OWN, below_root, columns};
use super::error::FileResult;
use super::journal::sync_directory;
use super::part::PartFile;
use super::state::{Entry, Part, PartName, TableFiles};
use crate::writer::{Replacement, Step, TargetTable, WriteUnit};

/// Says which run was shown last, within the directory of the journal.
const SHOWN: &str = "shown";

/// What a run writes. Nothing of it is in the journal: a run that dies before it is whole counts for nothing.
#[derive(Debug)]
pub(super) struct Staged {
    run: String,
    tables: HashMap<TableId, StagedTable>,
}

#[derive(Debug)]
struct StagedTable {
    /// The file that is appended to; what it has beyond its length was not acknowledged.
    part: Part,
    file: Option<PartFile>,
    chunks: HashSet<(u64, u64)>,
}

/// Where runs stage, below the root.
fn place() -> String {
    format!("{OWN}/staged")
}

fn staged_directory(run: &str, name: &TableName) -> String {
    format!("{}/{run}/{}", place(), below_root(name))
}

/// What a directory holds that has changed places: which generation its files are of.
fn mark(run: &str) -> String {
    format!(".etl-run-{run}")
}

impl Directory {
    /// Begins a run, and removes what others have left.
    pub(super) fn begin_run(&mut self, run: &str) -> EtlResult<()> {
        self.take_back();
        self.staged = None;
        let place = self.root.join(place());
        remove_all(&place)?;
        fs::create_dir_all(&place).or_file("make the directory of a run", &place)?;
        self.staged = Some(Staged { run: run.to_owned(), tables: HashMap::new() });
        Ok(())
    }

    /// Writes copied rows of the run; `encoded` has the bytes of each step.
    pub(super) fn stage(&mut self, run: &str, unit: &WriteUnit, encoded: &[Vec<u8>]) -> EtlResult<()> {
        let mut staged = self.staged.take().filter(|staged| staged.run == run).ok_or_else(|| gone(run))?;
        let done = self.stage_steps(&mut staged, unit, encoded);
        self.staged = Some(staged);
        done
    }

    fn stage_steps(&self, staged: &mut Staged, unit: &WriteUnit, encoded: &[Vec<u8>]) -> EtlResult<()> {
        for (step, bytes) in unit.steps.iter().zip(encoded) {
            match step {
                Step::Ensure(table) => {
                    self.staged_table(staged, table)?;
                }
                Step::Write(batch) => {
                    let known = self.staged_table(staged, &batch.table)?;
                    let token = unit.chunk.map(|(_, chunk)| (chunk.generation, chunk.index));
                    if token.is_some_and(|token| known.chunks.contains(&token)) {
                        continue;
                    }
                    let written = self.append_staged(known, &batch.table, bytes);
                    if written.is_err() {
                        // Opened again it is cut to what was acknowledged.
                        known.file = None;
                    }
                    written?;
                    known.chunks.extend(token);
                }
                _ => return Err(EtlError::new(ErrorKind::Internal, "a run was told to do more than to copy")),
            }
        }
        Ok(())
    }

    fn staged_table<'s>(&self, staged: &'s mut Staged, table: &TargetTable) -> EtlResult<&'s mut StagedTable> {
        let Staged { run, tables } = staged;
        match tables.entry(table.id) {
            hash_map::Entry::Occupied(known) => Ok(known.into_mut()),
            hash_map::Entry::Vacant(place) => Ok(place.insert(self.new_staged(run, table)?)),
        }
    }

    fn new_staged(&self, run: &str, table: &TargetTable) -> EtlResult<StagedTable> {
        let directory = staged_directory(run, &table.name);
        let path = self.root.join(&directory);
        fs::create_dir_all(&path).or_file("make the directory of a run", &path)?;
        path.ancestors().take_while(|above| **above != self.root).try_for_each(sync_directory)?;
        let generation = self.generation(table.id) + 1;
        let extension = self.encoding.extension().to_owned();
        let name = PartName { directory, table: table.id, generation, sequence: 1, extension };
        let part = Part { name, columns: columns(table), bytes: 0, opened_at: clock::now().0 };
        Ok(StagedTable { part, file: None, chunks: HashSet::new() })
    }

    /// Appends, and makes it durable: what is acknowledged is there when the run is shown, whatever crashes.
    fn append_staged(&self, known: &mut StagedTable, table: &TargetTable, bytes: &[u8]) -> EtlResult<()> {
        let header = if known.part.bytes == 0 { self.encoding.header(table) } else { Vec::new() };
        let mut file = match known.file.take() {
            Some(file) => file,
            None => PartFile::open(&self.root, &known.part)?,
        };
        file.append(&header)?;
        file.append(bytes)?;
        file.sync()?;
        if known.part.bytes == 0 {
            sync_directory(&self.root.join(&known.part.name.directory))?;
        }
        known.part.bytes += (header.len() + bytes.len()) as u64;
        known.file = Some(file);
        if known.part.bytes >= self.max_bytes {
            known.file = None;
            (known.part.name.sequence, known.part.bytes) = (known.part.name.sequence + 1, 0);
        }
        Ok(())
    }

    fn generation(&self, table: TableId) -> u64 {
        self.state.tables.get(&table).map_or(0, |files| files.generation)
    }

    /// Removes what the run has staged.
    pub(super) fn abandon_run(&mut self, run: &str) -> EtlResult<()> {
        self.staged = None;
        remove_all(&self.root.join(place()).join(run))
    }

    /// Shows the run, a table after the other. What was done before a crash is not done again.
    pub(super) fn publish_run(&mut self, run: &str, replaced: &[Replacement]) -> EtlResult<()> {
        self.staged = None;
        let shown = self.root.join(OWN).join(SHOWN);
        if fs::read_to_string(&shown).is_ok_and(|shown| shown == run) {
            return Ok(());
        }
        // Every file has its name, and no other is open.
        self.finish(true)?;
        for Replacement { from, to } in replaced {
            self.change_places(run, from, to).map_err(|error| error.with("table", &to.name))?;
        }
        let new = shown.with_extension("new");
        fs::write(&new, run).or_file("note which run is shown", &new)?;
        fs::File::open(&new).and_then(|file| file.sync_all()).or_file("note which run is shown", &new)?;
        fs::rename(&new, &shown).or_file("note which run is shown", &shown)?;
        sync_directory(&self.root.join(OWN))?;
        for Replacement { to, .. } in replaced {
            let mark = self.root.join(below_root(&to.name)).join(mark(run));
            fs::remove_file(&mark).or_file("remove a mark", &mark)?;
        }
        // What was there before stays until the next start: whoever lists it now finds all of it.
        Ok(())
    }

    /// Removes what the last run took the place of.
    pub(super) fn remove_replaced(&self) -> EtlResult<()> {
        match fs::read_to_string(self.root.join(OWN).join(SHOWN)) {
            Ok(run) => remove_all(&self.root.join(place()).join(run)),
            Err(_) => Ok(()),
        }
    }

    fn change_places(&mut self, run: &str, from: &TargetTable, to: &TargetTable) -> EtlResult<()> {
        let staged = self.root.join(staged_directory(run, &from.name));
        let own = self.root.join(below_root(&to.name));
        let mark = mark(run);
        if !own.join(&mark).exists() {
            if !staged.is_dir() {
                return Err(gone(run));
            }
            let generation = self.generation(to.id) + 1;
            name_files(&staged)?;
            fs::write(staged.join(&mark), generation.to_string()).or_file("mark a directory", &staged)?;
            sync_directory(&staged)?;
            let parent = own.parent().unwrap_or(&self.root);
            fs::create_dir_all(parent).or_file("make a directory", parent)?;
            let flags = if own.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
            exchange(&staged, &own, flags)?;
            sync_directory(parent)?;
            sync_directory(&self.root)?;
        }
        self.keep_strangers(&staged, &own, to.id)?;
        let text = fs::read_to_string(own.join(&mark)).or_file("read a mark", &own)?;
        let generation = text.parse().unwrap_or_else(|_| self.generation(to.id) + 1);
        let before = self.state.tables.get(&to.id).cloned().unwrap_or_default();
        let directory = below_root(&to.name);
        let mut files = TableFiles { directories: vec![directory.clone()], generation, next: 1, open: None };
        files.next += self.names(&files)?.iter().map(|(name, _)| name.sequence).max().unwrap_or(0);
        let entry = Entry { forgets: Some(to.id), tables: vec![(to.id, files)], ..self.claim() };
        self.tell(entry)?;
        // Where the table was before it got another name.
        let elsewhere = before.directories.into_iter().filter(|other| *other != directory).collect();
        self.remove_files(&TableFiles { directories: elsewhere, ..TableFiles::default() }, to.id)
    }

    /// Files of others that were in the table's directory stay there.
    fn keep_strangers(&self, staged: &Path, own: &Path, table: TableId) -> EtlResult<()> {
        let Ok(left) = fs::read_dir(staged) else { return Ok(()) };
        for file in left {
            let file = file.or_file("list what was there before", staged)?.file_name();
            let is_ours = file.to_str().is_some_and(|name| {
                PartName::parse("", name).is_some_and(|(name, _)| name.table == table) || name.starts_with(".etl-run-")
            });
            if !is_ours {
                let (old, new) = (staged.join(&file), own.join(&file));
                fs::rename(&old, &new).or_file("keep a file", &new)?;
            }
        }
        Ok(())
    }
}

/// Gives the files of the run the names of complete ones.
fn name_files(directory: &Path) -> EtlResult<()> {
    for file in fs::read_dir(directory).or_file("list the files of a run", directory)? {
        let file = file.or_file("list the files of a run", directory)?.file_name();
        if let Some((name, true)) = file.to_str().and_then(|file| PartName::parse("", file)) {
            let (part, complete) = (directory.join(&file), directory.join(name.complete()));
            fs::rename(&part, &complete).or_file("give a complete file its name", &complete)?;
        }
    }
    Ok(())
}

fn exchange(staged: &Path, own: &Path, flags: RenameFlags) -> EtlResult<()> {
    renameat_with(CWD, staged, CWD, own, flags).map_err(|error| {
        EtlError::new(ErrorKind::DestinationUnsupported, "two directories could not change places in one step")
            .with("path", own.display())
            .because(std::io::Error::from(error))
            .hint("The file system has to know RENAME_EXCHANGE, as ext4, xfs, btrfs and tmpfs do")
    })
}

fn remove_all(path: &Path) -> EtlResult<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).or_file("remove a run", path),
        _ => Ok(()),
    }
}

fn gone(run: &str) -> EtlError {
    EtlError::new(ErrorKind::DestinationRejected, "what the run has staged is gone")
        .with("run", run)
        .hint("Somebody removed it: run again")
}
