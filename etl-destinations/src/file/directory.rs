//! How do a unit's rows and its position become durable together? Appended, synced, then told to the journal.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use etl::clock;
use etl::destination::Batch;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{TableId, TableName};
use etl::{CursorId, Position};

use super::config::FileConfig;
use super::encoding::Encoding;
use super::error::FileResult;
use super::journal::{Journal, sync_directory};
use super::kept_back::KeptBack;
use super::part::PartFile;
use super::staging::Staged;
use super::state::{Entry, Part, PartName, State, TableFiles};
use crate::made_up;
use crate::writer::{Step, TargetTable, WriteUnit};

/// Where journal and lock are; no mapped name of a schema begins with a point.
pub(super) const OWN: &str = ".etl";

/// The directory with everything in it, open and locked.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) root: PathBuf,
    pub(super) max_bytes: u64,
    max_age_micros: i64,
    pub(super) encoding: Encoding,
    /// Whose positions are asked for and written. Those of another are forgotten with the first write.
    owner: String,
    pub(super) state: State,
    journal: Journal,
    pub(super) parts: HashMap<TableId, PartFile>,
    /// Complete files that do not have their name yet.
    finished: Vec<PartName>,
    /// What a run writes that is not shown.
    pub(super) staged: Option<Staged>,
    /// What counts with a later batch of the main cursor.
    pub(super) kept_back: Option<KeptBack>,
    _lock: File,
}

/// What units change, until the journal has it.
#[derive(Debug)]
pub(super) struct Pending {
    entry: Entry,
    pub(super) tables: HashMap<TableId, TableFiles>,
    pub(super) finished: Vec<PartName>,
}

impl Pending {
    pub(super) fn of(entry: Entry) -> Self {
        Self { entry, tables: HashMap::new(), finished: Vec::new() }
    }

    /// The cursor is where the batch ends, and its tables are where it moves them.
    pub(super) fn covers(&mut self, unit: &WriteUnit, batch: &Batch) {
        let upto = unit.stored.map_or(batch.upto, |stored| stored.max(batch.upto));
        self.entry.cursors.push((batch.cursor, Some(upto)));
        let moved =
            |(table, to): &(TableId, CursorId)| (CursorId::Table(*table), (*to != CursorId::Main).then_some(upto));
        self.entry.cursors.extend(batch.moves.iter().map(moved));
    }
}

impl Directory {
    /// Opens or makes the directory, and brings it to what the journal says.
    pub(super) fn open(config: &FileConfig, encoding: Encoding, owner: Option<String>) -> EtlResult<Self> {
        let root = config.path.clone();
        let own = root.join(OWN);
        fs::create_dir_all(&own).or_file("make the directory", &own)?;
        let lock = lock(&own.join("lock"))?;
        let (journal, state) = Journal::open(&own.join("journal"))?;
        let mut directory = Self {
            root,
            max_bytes: config.max_bytes.0,
            max_age_micros: i64::try_from(config.max_age.as_micros()).unwrap_or(i64::MAX),
            encoding,
            owner: owner.unwrap_or_else(made_up_id),
            state,
            journal,
            parts: HashMap::new(),
            finished: Vec::new(),
            staged: None,
            kept_back: None,
            _lock: lock,
        };
        directory.recover()?;
        directory.remove_replaced()?;
        Ok(directory)
    }

    /// Whether the directory could be opened; changes nothing.
    pub(super) fn look(root: &Path) -> EtlResult<()> {
        let metadata = fs::metadata(root).or_file("look at the directory", root)?;
        if !metadata.is_dir() || metadata.permissions().readonly() {
            return Err(EtlError::new(ErrorKind::Config, "files cannot be written there")
                .with("path", root.display())
                .hint("Name a directory that this user may write"));
        }
        let own = root.join(OWN);
        if own.join("lock").exists() {
            drop(lock(&own.join("lock"))?);
        }
        Journal::look(&own.join("journal"))
    }

    /// Whose positions these are; a name is made up where none was given.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    fn is_own(&self) -> bool {
        self.state.owner.as_deref() == Some(&self.owner)
    }

    /// What a write begins with: it makes the positions this owner's.
    pub(super) fn claim(&self) -> Entry {
        Entry { owner: (!self.is_own()).then(|| self.owner.clone()), ..Entry::default() }
    }

    /// Gives complete files their names, and removes what was never told to the journal or is of an old generation.
    fn recover(&mut self) -> EtlResult<()> {
        for (table, files) in self.state.tables.clone() {
            for (name, is_part) in self.names(&files)?.into_iter().filter(|(name, _)| name.table == table) {
                let path = self.root.join(&name.directory);
                let is_known = name.generation == files.generation && name.sequence < files.next;
                if name.generation < files.generation || (is_part && !is_known) {
                    let path = path.join(if is_part { name.partial() } else { name.complete() });
                    fs::remove_file(&path).or_file("remove a file", &path)?;
                } else if is_part && files.open.as_ref().is_none_or(|open| open.name != name) {
                    self.finished.push(name);
                }
            }
        }
        self.publish()
    }

    /// The files of this program in the table's directories.
    pub(super) fn names(&self, files: &TableFiles) -> EtlResult<Vec<(PartName, bool)>> {
        let mut names = Vec::new();
        for directory in &files.directories {
            let path = self.root.join(directory);
            for file in fs::read_dir(&path).or_file("list the files of a table", &path)? {
                let file = file.or_file("list the files of a table", &path)?.file_name();
                names.extend(file.to_str().and_then(|file| PartName::parse(directory, file)));
            }
        }
        Ok(names)
    }

    pub(super) fn position(&self, cursor: CursorId) -> Option<Position> {
        self.state.position(cursor).filter(|_| self.is_own())
    }

    /// No position is beyond this one any more.
    pub(super) fn go_back(&mut self, to: Position) -> EtlResult<()> {
        self.take_back();
        if !self.is_own() {
            return Ok(());
        }
        let beyond = self.state.entry().cursors.into_iter().filter(|(_, at)| at.is_some_and(|at| at > to));
        let entry = Entry { cursors: beyond.map(|(cursor, _)| (cursor, Some(to))).collect(), ..Entry::default() };
        if entry.cursors.is_empty() {
            return Ok(());
        }
        self.commit(Pending::of(entry))
    }

    /// Writes a unit; `encoded` has the bytes of each step.
    pub(super) fn write(&mut self, unit: &WriteUnit, encoded: &[Vec<u8>]) -> EtlResult<()> {
        self.publish()?;
        if let Some(batch) = unit.batch.as_ref().filter(|batch| batch.cursor == CursorId::Main) {
            return self.write_main(unit, batch, encoded);
        }
        let mut pending = Pending::of(self.claim());
        let is_written = unit.steps.iter().any(|step| !matches!(step, Step::Ensure(_)));
        if let Some((table, chunk)) = unit.chunk.filter(|_| is_written) {
            let token = (table, chunk.generation, chunk.index);
            if self.is_own() && self.state.has_chunk(token) {
                return Ok(());
            }
            pending.entry.chunks.push(token);
        }
        if let Some(batch) = &unit.batch {
            self.expect_position(batch.cursor, unit.stored)?;
            pending.covers(unit, batch);
        }
        let done = self.write_steps(unit, encoded, &mut pending).and_then(|()| {
            self.rest(&mut pending)?;
            self.commit(pending)
        });
        if done.is_err() {
            // Opened again they are cut to what the journal knows.
            self.parts.clear();
        }
        done
    }

    pub(super) fn write_steps(
        &mut self,
        unit: &WriteUnit,
        encoded: &[Vec<u8>],
        pending: &mut Pending,
    ) -> EtlResult<()> {
        for (step, bytes) in unit.steps.iter().zip(encoded) {
            match step {
                Step::Ensure(table) | Step::Alter(table, _) | Step::Fill(table, _) => {
                    self.make_directory(table, pending)?
                }
                Step::Write(batch) => self.append(&batch.table, bytes, pending)?,
                Step::Truncate(_) => {
                    return Err(EtlError::new(ErrorKind::Internal, "a log was told to empty a table"));
                }
            }
        }
        Ok(())
    }

    /// Makes what was written durable, and closes what is large enough.
    pub(super) fn rest(&mut self, pending: &mut Pending) -> EtlResult<()> {
        for (table, files) in &mut pending.tables {
            if let Some(part) = self.parts.get_mut(table) {
                part.sync()?;
            }
            if files.open.as_ref().is_some_and(|open| open.bytes >= self.max_bytes) {
                pending.finished.extend(files.open.take().map(|part| part.name));
                self.parts.remove(table);
            }
        }
        Ok(())
    }

    /// Tells the journal, then gives complete files their names.
    pub(super) fn commit(&mut self, pending: Pending) -> EtlResult<()> {
        let Pending { mut entry, tables, finished } = pending;
        entry.tables.extend(tables);
        self.journal.append(&entry, &self.state)?;
        for (table, files) in &entry.tables {
            if files.open.is_none() {
                self.parts.remove(table);
            }
        }
        self.state.apply(entry);
        self.finished.extend(finished);
        self.publish()
    }

    fn publish(&mut self) -> EtlResult<()> {
        let mut touched = BTreeSet::new();
        while let Some(name) = self.finished.last() {
            let directory = self.root.join(&name.directory);
            let (from, to) = (directory.join(name.partial()), directory.join(name.complete()));
            fs::rename(&from, &to).or_file("give a complete file its name", &to)?;
            touched.insert(directory);
            self.finished.pop();
        }
        touched.iter().try_for_each(|directory| sync_directory(directory))
    }

    pub(super) fn expect_position(&self, cursor: CursorId, expected: Option<Position>) -> EtlResult<()> {
        expect_same(self.position(cursor), expected).map_err(|error| error.with("cursor", cursor))
    }

    fn files<'p>(&self, table: TableId, pending: &'p mut Pending) -> &'p mut TableFiles {
        let known = || self.state.tables.get(&table).cloned();
        let fresh = || TableFiles { generation: 1, next: 1, ..TableFiles::default() };
        pending.tables.entry(table).or_insert_with(|| known().unwrap_or_else(fresh))
    }

    fn make_directory(&self, table: &TargetTable, pending: &mut Pending) -> EtlResult<()> {
        let directory = below_root(&table.name);
        let files = self.files(table.id, pending);
        if files.directories.contains(&directory) {
            return Ok(());
        }
        let path = self.root.join(&directory);
        fs::create_dir_all(&path).or_file("make a table's directory", &path)?;
        sync_directory(path.parent().unwrap_or(&self.root))?;
        sync_directory(&self.root)?;
        files.directories.push(directory);
        Ok(())
    }

    fn append(&mut self, table: &TargetTable, bytes: &[u8], pending: &mut Pending) -> EtlResult<()> {
        self.make_directory(table, pending)?;
        let columns = columns(table);
        let directory = below_root(&table.name);
        let extension = self.encoding.extension();
        let fits = |part: &Part| {
            part.columns == columns && part.name.directory == directory && part.name.extension == extension
        };
        if self.files(table.id, pending).open.as_ref().is_some_and(|part| !fits(part)) {
            self.finish_part(table.id, pending)?;
        }
        let files = self.files(table.id, pending);
        let (generation, sequence) = (files.generation, files.next);
        if files.open.is_none() {
            let (table, extension) = (table.id, extension.to_owned());
            let name = PartName { directory: directory.clone(), table, generation, sequence, extension };
            files.open = Some(Part { name, columns, bytes: 0, opened_at: clock::now().0 });
            files.next += 1;
        }
        let Some(open) = &mut files.open else { return Ok(()) };
        let is_new = open.bytes == 0;
        let part = match self.parts.entry(table.id) {
            std::collections::hash_map::Entry::Occupied(part) => part.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let part = PartFile::open(&self.root, open)?;
                if is_new {
                    sync_directory(&self.root.join(&directory))?;
                }
                place.insert(part)
            }
        };
        let header = if is_new { self.encoding.header(table) } else { Vec::new() };
        part.append(&header)?;
        part.append(bytes)?;
        open.bytes += (header.len() + bytes.len()) as u64;
        Ok(())
    }

    /// Closes a table's part within a unit.
    pub(super) fn finish_part(&mut self, table: TableId, pending: &mut Pending) -> EtlResult<()> {
        let Some(open) = self.files(table, pending).open.take() else { return Ok(()) };
        match self.parts.remove(&table) {
            Some(mut part) => part.sync()?,
            // It was not written to in this life: what is beyond its length is cut off.
            None => PartFile::open(&self.root, &open)?.sync()?,
        }
        pending.finished.push(open.name);
        Ok(())
    }

    /// Completes the parts whose first row is old enough, or all. Those that a run goes on with are completed with it; one
    /// that is not whole by the end was never there.
    pub(super) fn finish(&mut self, all: bool) -> EtlResult<()> {
        if all {
            self.take_back();
        }
        self.publish()?;
        let old = clock::now().0.saturating_sub(self.max_age_micros);
        let is_due = |part: &Part| all || part.opened_at <= old;
        let is_kept = |table: &TableId| self.kept_back.as_ref().is_some_and(|kept| kept.has(*table));
        let is_due = |files: &TableFiles| files.open.as_ref().is_some_and(is_due);
        let due = self.state.tables.iter().filter(|(table, files)| is_due(files) && !is_kept(table));
        let due: Vec<TableId> = due.map(|(table, _)| *table).collect();
        if due.is_empty() {
            return Ok(());
        }
        let mut pending = Pending::of(Entry::default());
        for table in due {
            self.finish_part(table, &mut pending)?;
        }
        self.commit(pending)
    }

    /// Ends a generation of a table: its files go, and what is known of it.
    pub(super) fn reset(&mut self, table: TableId) -> EtlResult<()> {
        self.parts.remove(&table);
        if let Some(kept) = &mut self.kept_back {
            kept.forget(table);
        }
        let mut pending = Pending::of(Entry { forgets: Some(table), ..self.claim() });
        let Some(before) = self.state.tables.get(&table).cloned() else { return self.commit(pending) };
        self.finished.retain(|name| name.table != table);
        let after = TableFiles { generation: before.generation + 1, next: 1, open: None, ..before.clone() };
        pending.tables.insert(table, after);
        self.commit(pending)?;
        self.remove_files(&before, table)
    }

    /// Removes what the table has in these directories.
    pub(super) fn remove_files(&self, files: &TableFiles, table: TableId) -> EtlResult<()> {
        for (name, is_part) in self.names(files)?.into_iter().filter(|(name, _)| name.table == table) {
            let path = self.root.join(&name.directory).join(if is_part { name.partial() } else { name.complete() });
            fs::remove_file(&path).or_file("remove a file", &path)?;
        }
        Ok(())
    }

    /// Tells the journal something that no open file is about.
    pub(super) fn tell(&mut self, entry: Entry) -> EtlResult<()> {
        self.commit(Pending::of(entry))
    }
}

/// That the position which is stored is the one that a write was made for.
pub(super) fn expect_same(found: Option<Position>, expected: Option<Position>) -> EtlResult<()> {
    if found == expected {
        return Ok(());
    }
    Err(EtlError::new(ErrorKind::StoreConflict, "another position is stored than the write was made for")
        .with("stored", found.map_or("none".to_owned(), |position| position.to_string())))
}

fn made_up_id() -> String {
    format!("{:016x}{:016x}", made_up::number(), made_up::number())
}

pub(super) fn below_root(name: &TableName) -> String {
    format!("{}/{}", name.schema, name.name)
}

pub(super) fn columns(table: &TargetTable) -> Vec<String> {
    let metadata = table.metadata.iter().flat_map(|metadata| metadata.names());
    table.columns.iter().map(|name| &**name).chain(metadata).map(str::to_owned).collect()
}

fn lock(path: &Path) -> EtlResult<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let file = file.or_file("open the lock of the directory", path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(error).or_file("lock the directory", path),
        Err(TryLockError::WouldBlock) => Err(EtlError::new(ErrorKind::Locked, "another process writes files there")
            .with("path", path.display())
            .hint("Stop it, or give each pipeline a directory of its own")),
    }
}
