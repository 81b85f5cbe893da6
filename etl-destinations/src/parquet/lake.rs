//! How do a unit's rows and its position become durable together? Files first, then the manifest that counts them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::TableId;
use etl::{CursorId, Position};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

use super::config::{ParquetConfig, RetainConfig};
use super::encoding::{Encoded, Encoding};
use super::kept_back::KeptBack;
use super::layout::{FileName, GUEST, MANIFESTS, STAGED, is_of_guest, is_ours};
use super::manifest::Manifests;
use super::state::{DataFile, Entry, Shape, State, Table, TablePart};
use crate::made_up;
use crate::storage::Location;
use crate::writer::{Step, TargetTable, WriteUnit};

/// The location with everything in it, taken by this process.
#[derive(Debug)]
pub(super) struct Lake {
    location: Arc<Location>,
    encoding: Encoding,
    retain: RetainConfig,
    session: String,
    /// Whose positions are asked for and written. Those of another are forgotten with the first write.
    owner: String,
    /// The number of the next file.
    pub(super) next: AtomicU64,
    manifests: AsyncMutex<Manifests>,
    /// How often each table was emptied. A chunk that was begun before does not come after.
    emptied: Mutex<HashMap<TableId, u64>>,
    /// What counts with a later batch of the main cursor.
    pub(super) kept_back: AsyncMutex<Option<KeptBack>>,
}

/// The files of a unit, by table.
pub(super) type EncodedTables = Vec<(Arc<TargetTable>, Vec<Encoded>)>;

/// A file that is there and does not count yet.
#[derive(Debug)]
pub(super) struct Uploaded {
    pub(super) table: Arc<TargetTable>,
    generation: u64,
    pub(super) file: DataFile,
}

/// What is left to be told of a unit once its files are there.
#[derive(Debug)]
pub(super) struct Piece {
    /// Tables that have these shapes from then on.
    shaped: Vec<Arc<TargetTable>>,
    pub(super) uploaded: Vec<Uploaded>,
}

impl Piece {
    pub(super) fn new(unit: &WriteUnit, uploaded: Vec<Uploaded>) -> Self {
        let shaped = unit.steps.iter().filter_map(|step| match step {
            Step::Ensure(table) | Step::Alter(table, _) | Step::Fill(table, _) => Some(Arc::clone(table)),
            Step::Truncate(_) | Step::Write(_) => None,
        });
        Self { shaped: shaped.collect(), uploaded }
    }

    pub(super) fn paths(&self) -> Vec<String> {
        paths_of(&self.uploaded)
    }

    /// Nothing of it is about the table any more.
    pub(super) fn forget(&mut self, table: TableId) {
        self.shaped.retain(|shaped| shaped.id != table);
        self.uploaded.retain(|uploaded| uploaded.table.id != table);
    }
}

/// Where files are put.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'p> {
    /// Into the logs of their tables.
    Log,
    /// Where those of the run with this id wait.
    Staged(&'p str),
}

impl Lake {
    /// Takes the location over, and removes what no manifest knows.
    pub(super) async fn open(config: &ParquetConfig, encoding: Encoding, owner: Option<String>) -> EtlResult<Self> {
        let location = Arc::new(Location::open(&config.location, &config.options)?);
        let session = format!("{:08x}", made_up::number() as u32);
        // Guests that come later may have files that no manifest knows yet.
        let of_guests = location.list("").await?.into_iter().filter(|path| is_of_guest(path)).collect();
        let manifests = Manifests::open(Arc::clone(&location), session.clone()).await?;
        let owner = owner.unwrap_or_else(|| format!("{:016x}{:016x}", made_up::number(), made_up::number()));
        let lake = Self {
            location,
            encoding,
            retain: config.retain.clone(),
            session,
            owner,
            next: AtomicU64::new(manifests.state().next.max(1)),
            manifests: AsyncMutex::new(manifests),
            emptied: Mutex::default(),
            kept_back: AsyncMutex::default(),
        };
        // What an old pointer names is there until it is replaced.
        lake.restore_pointers().await?;
        lake.remove_unknown(of_guests).await?;
        lake.sweep().await?;
        Ok(lake)
    }

    /// Looks at the location from beside: a process that writes rows there goes on. `None` where nobody has written.
    pub(super) async fn visit(config: &ParquetConfig, encoding: Encoding) -> EtlResult<Option<Self>> {
        let is_missing = Location::directory_of(&config.location).is_some_and(|path| !path.exists());
        if is_missing {
            return Ok(None);
        }
        let location = Arc::new(Location::look(&config.location, &config.options)?);
        let session = format!("{GUEST}{:07X}", made_up::number() as u32 >> 4);
        let Some(manifests) = Manifests::visit(Arc::clone(&location), session.clone()).await? else { return Ok(None) };
        let next = AtomicU64::new(manifests.state().next.max(1));
        let (owner, manifests) = (String::new(), AsyncMutex::new(manifests));
        let (retain, emptied, kept_back) = (config.retain.clone(), Mutex::default(), AsyncMutex::default());
        Ok(Some(Self { location, encoding, retain, session, owner, next, manifests, emptied, kept_back }))
    }

    /// Removes files of ours that do not count: whoever wrote them cannot make them count any more.
    async fn remove_unknown(&self, of_guests: HashSet<String>) -> EtlResult<()> {
        let manifests = self.manifests.lock().await;
        let known: HashSet<&str> = manifests.state().paths().collect();
        let is_over = |path: &String| !is_of_guest(path) || of_guests.contains(path);
        let paths = self.location.list("").await?;
        let ours = paths.into_iter().filter(|path| !path.starts_with(MANIFESTS) && is_ours(path));
        self.location.delete(ours.filter(|path| is_over(path) && !known.contains(&**path)).collect()).await?;
        if manifests.state().staged.is_some() { Ok(()) } else { self.location.delete_folder(STAGED).await }
    }

    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    pub(super) fn encoding(&self) -> &Encoding {
        &self.encoding
    }

    pub(super) fn retain(&self) -> &RetainConfig {
        &self.retain
    }

    pub(super) fn session(&self) -> &str {
        &self.session
    }

    pub(super) async fn manifests(&self) -> AsyncMutexGuard<'_, Manifests> {
        self.manifests.lock().await
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    fn is_own(&self, state: &State) -> bool {
        state.owner.as_deref() == Some(&self.owner)
    }

    /// What a write begins with: it makes the positions this owner's.
    pub(super) fn claim(&self, state: &State) -> Entry {
        let owner = (!self.is_own(state)).then(|| self.owner.clone());
        Entry { owner, next: self.next.load(Ordering::Relaxed), ..Entry::default() }
    }

    /// The position that a cursor has in the manifests: what waits for the rest of a run comes again.
    pub(super) async fn position(&self, cursor: CursorId) -> Option<Position> {
        if cursor == CursorId::Main {
            self.take_back().await;
        }
        self.position_in(self.manifests.lock().await.state(), cursor)
    }

    pub(super) fn position_in(&self, state: &State, cursor: CursorId) -> Option<Position> {
        state.position(cursor).filter(|_| self.is_own(state))
    }

    /// No position is beyond this one any more.
    pub(super) async fn go_back(&self, to: Position) -> EtlResult<()> {
        self.take_back().await;
        let mut manifests = self.manifests.lock().await;
        if !self.is_own(manifests.state()) {
            return Ok(());
        }
        let beyond = manifests.state().positions().filter(|(_, at)| *at > to);
        let cursors: Vec<_> = beyond.map(|(cursor, _)| (cursor, Some(to))).collect();
        if cursors.is_empty() {
            return Ok(());
        }
        let entry = Entry { cursors, ..self.claim(manifests.state()) };
        manifests.append(entry).await
    }

    pub(super) fn times_emptied(&self, table: TableId) -> u64 {
        self.emptied().get(&table).copied().unwrap_or_default()
    }

    fn emptied(&self) -> MutexGuard<'_, HashMap<TableId, u64>> {
        self.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a unit. `begun` is how often the table of its chunk had been emptied when it came.
    pub(super) async fn apply(self: Arc<Self>, unit: WriteUnit, begun: Option<u64>) -> EtlResult<()> {
        let unit = Arc::new(unit);
        // First: what cannot be encoded leaves everything as it is.
        let encoded = self.encode(&unit).await?;
        match &unit.batch {
            Some(batch) if batch.cursor == CursorId::Main => self.apply_main(&unit, batch, encoded).await,
            _ => self.write(&unit, encoded, begun).await,
        }
    }

    /// Writes a unit that counts by itself.
    pub(super) async fn write(&self, unit: &WriteUnit, encoded: EncodedTables, begun: Option<u64>) -> EtlResult<()> {
        let uploaded = {
            let manifests = self.manifests.lock().await;
            if self.is_there(manifests.state(), unit, begun)? {
                return Ok(());
            }
            let named = self.named(&manifests.state().tables, Place::Log, unit, encoded)?;
            drop(manifests);
            self.upload(named).await?
        };
        let manifests = self.manifests.lock().await;
        match self.is_there(manifests.state(), unit, begun) {
            Ok(false) => {
                let paths = paths_of(&uploaded);
                let counted = self.count(manifests, unit, vec![Piece::new(unit, uploaded)]).await;
                if counted.as_ref().is_err_and(never_counts) {
                    self.location.delete(paths).await?;
                }
                counted
            }
            there => {
                drop(manifests);
                self.location.delete(paths_of(&uploaded)).await?;
                there.map(drop)
            }
        }
    }

    pub(super) async fn encode(self: &Arc<Self>, unit: &Arc<WriteUnit>) -> EtlResult<EncodedTables> {
        let (lake, unit) = (Arc::clone(self), Arc::clone(unit));
        blocking(move || lake.encode_now(&unit)).await
    }

    fn encode_now(&self, unit: &WriteUnit) -> EtlResult<EncodedTables> {
        let mut encoded = Vec::new();
        for step in &unit.steps {
            match step {
                Step::Write(batch) => {
                    encoded.push((Arc::clone(&batch.table), self.encoding.encode(&batch.table, &batch.rows)?));
                }
                Step::Truncate(_) => {
                    return Err(EtlError::new(ErrorKind::Internal, "a log was told to empty a table"));
                }
                Step::Ensure(_) | Step::Alter(..) | Step::Fill(..) => {}
            }
        }
        Ok(encoded)
    }

    /// Whether the unit is there already.
    ///
    /// # Errors
    /// That it is not the one that may be written now.
    fn is_there(&self, state: &State, unit: &WriteUnit, begun: Option<u64>) -> EtlResult<bool> {
        if unit.chunk.map(|(table, _)| self.times_emptied(table)) != begun {
            let message = "the table is copied anew: this chunk belongs to the copy before";
            return Err(EtlError::new(ErrorKind::Cancelled, message));
        }
        if let Some(token) = token(unit) {
            return Ok(self.is_own(state) && state.has_chunk(token));
        }
        let Some(batch) = &unit.batch else { return Ok(false) };
        let found = self.position_in(state, batch.cursor);
        if found == unit.stored {
            return Ok(false);
        }
        Err(conflict(batch.cursor, found))
    }

    /// Gives files their names. A table that has none yet gets one without rows.
    pub(super) fn named(
        &self,
        known: &BTreeMap<TableId, Table>,
        place: Place<'_>,
        unit: &WriteUnit,
        encoded: EncodedTables,
    ) -> EtlResult<Vec<(Uploaded, bytes::Bytes)>> {
        let mut named = Vec::new();
        let generation = |table: &TargetTable| known.get(&table.id).map_or(1, |known| known.generation);
        for step in &unit.steps {
            let Step::Ensure(table) = step else { continue };
            let is_bare = known.get(&table.id).is_none_or(|known| known.files.is_empty());
            if is_bare && !encoded.iter().any(|(written, files)| written.id == table.id && !files.is_empty()) {
                named.push(self.name(place, table, generation(table), self.encoding.empty(table)?));
            }
        }
        for (table, files) in encoded {
            named.extend(files.into_iter().map(|file| self.name(place, &table, generation(&table), file)));
        }
        Ok(named)
    }

    /// The number of the next file.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn name(
        &self,
        place: Place<'_>,
        table: &Arc<TargetTable>,
        generation: u64,
        file: Encoded,
    ) -> (Uploaded, bytes::Bytes) {
        let Encoded { day, bytes, rows, first, last } = file;
        let number = self.number();
        let name = FileName { table: table.id, generation, number, session: &self.session };
        let path = match place {
            Place::Log => name.path(&table.name, day),
            Place::Staged(run) => name.staged_path(run, day),
        };
        // Its shape is known once it counts.
        let file = DataFile { path, number, order: number, shape: 0, rows, bytes: bytes.len() as u64, first, last };
        (Uploaded { table: Arc::clone(table), generation, file }, bytes)
    }

    pub(super) async fn upload(&self, named: Vec<(Uploaded, bytes::Bytes)>) -> EtlResult<Vec<Uploaded>> {
        let mut uploaded = Vec::with_capacity(named.len());
        for (file, bytes) in named {
            let written = self.location.put(&file.file.path, bytes).await;
            uploaded.push(file);
            if let Err(error) = written {
                // They do not count; what cannot be removed now is when the location is opened again.
                let _ = self.location.delete(paths_of(&uploaded)).await;
                return Err(error);
            }
        }
        Ok(uploaded)
    }

    /// Makes the files count, and the position with them.
    pub(super) async fn count(
        &self,
        mut manifests: AsyncMutexGuard<'_, Manifests>,
        unit: &WriteUnit,
        pieces: Vec<Piece>,
    ) -> EtlResult<()> {
        let state = manifests.state();
        let mut entry = self.claim(state);
        entry.chunks.extend(token(unit));
        if let Some(batch) = &unit.batch {
            let upto = unit.stored.map_or(batch.upto, |stored| stored.max(batch.upto));
            entry.cursors.push((batch.cursor, Some(upto)));
            let moved =
                |(table, to): &(TableId, CursorId)| (CursorId::Table(*table), (*to != CursorId::Main).then_some(upto));
            entry.cursors.extend(batch.moves.iter().map(moved));
        }
        entry.tables = parts(&state.tables, pieces);
        let says_nothing = entry.tables.is_empty() && entry.cursors.is_empty() && entry.chunks.is_empty();
        if says_nothing && entry.owner.is_none() {
            return Ok(());
        }
        manifests.append(entry).await
    }

    /// Ends a generation of a table: its files go, and what is known of it.
    pub(super) async fn reset(self: Arc<Self>, table: TableId) -> EtlResult<()> {
        *self.emptied().entry(table).or_default() += 1;
        self.take_back_of(table).await;
        let mut manifests = self.manifests.lock().await;
        let state = manifests.state();
        let mut entry = Entry { forgets: Some(table), ..self.claim(state) };
        let mut gone = Vec::new();
        match state.tables.get(&table) {
            Some(known) => {
                gone.extend(known.paths().map(str::to_owned));
                gone.extend(known.pointer());
                entry.tables.push(TablePart::new(table, known, known.generation + 1));
            }
            None if !state.knows(table) => return Ok(()),
            None => {}
        }
        let retained = state.retained.values().filter(|file| file.table == table);
        entry.removed = retained.map(|file| file.path.clone()).collect();
        gone.extend(entry.removed.iter().cloned());
        manifests.append(entry).await?;
        drop(manifests);
        self.location.delete(gone).await
    }
}

/// What a manifest says of the tables of units, of which so much is known, once their files count.
pub(super) fn parts(known: &BTreeMap<TableId, Table>, pieces: Vec<Piece>) -> Vec<TablePart> {
    let mut tables = Tables { known, entries: BTreeMap::new() };
    for Piece { shaped, uploaded } in pieces {
        for table in shaped {
            tables.shape(&table);
        }
        for Uploaded { table, generation, file } in uploaded {
            tables.add(&table, generation, file);
        }
    }
    tables.entries.into_values().collect()
}

/// What a manifest is going to say of tables.
struct Tables<'s> {
    known: &'s BTreeMap<TableId, Table>,
    entries: BTreeMap<TableId, TablePart>,
}

impl Tables<'_> {
    /// The number of the shape that rows of the table have; a new one is told.
    fn shape(&mut self, table: &TargetTable) -> u32 {
        let known = self.known.get(&table.id);
        let told = self.entries.get(&table.id).and_then(|entry| entry.shapes.last());
        let last = told.or_else(|| known.and_then(Table::shape));
        if let Some(shape) = last.filter(|shape| shape.is_of(table)) {
            return shape.id;
        }
        let shape = Shape::new(last.map_or(1, |shape| shape.id + 1), table);
        let id = shape.id;
        self.entry(table).shapes.push(shape);
        id
    }

    fn entry(&mut self, table: &TargetTable) -> &mut TablePart {
        let generation = self.known.get(&table.id).map_or(1, |known| known.generation);
        let fresh = || {
            let fresh = Table { generation, ..Table::default() };
            TablePart { name: table.name.to_string(), ..TablePart::new(table.id, &fresh, generation) }
        };
        let entry = self.entries.entry(table.id).or_insert_with(fresh);
        entry.name = table.name.to_string();
        entry
    }

    /// A file counts, unless the table has begun a new generation meanwhile.
    fn add(&mut self, table: &TargetTable, generation: u64, file: DataFile) {
        let shape = self.shape(table);
        let entry = self.entry(table);
        if entry.generation == generation {
            entry.add.push(DataFile { shape, ..file });
        }
    }
}

/// Whether what the manifest was to name does not count for sure, and never will.
pub(super) fn never_counts(error: &EtlError) -> bool {
    [ErrorKind::Locked, ErrorKind::StoreConflict].contains(&error.kind())
}

/// That another position is stored than a write was made for.
pub(super) fn conflict(cursor: CursorId, found: Option<Position>) -> EtlError {
    EtlError::new(ErrorKind::StoreConflict, "another position is stored than the write was made for")
        .with("cursor", cursor)
        .with("stored", found.map_or("none".to_owned(), |position| position.to_string()))
}

pub(super) fn paths_of(uploaded: &[Uploaded]) -> Vec<String> {
    uploaded.iter().map(|uploaded| uploaded.file.path.clone()).collect()
}

/// The token of the copied rows; where a unit only makes a table there is none.
pub(super) fn token(unit: &WriteUnit) -> Option<(TableId, u64, u64)> {
    let is_written = unit.steps.iter().any(|step| !matches!(step, Step::Ensure(_)));
    let (table, chunk) = unit.chunk.filter(|_| is_written)?;
    Some((table, chunk.generation, chunk.index))
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> EtlResult<T> + Send + 'static) -> EtlResult<T> {
    tokio::task::spawn_blocking(work).await.or_etl(ErrorKind::Internal, "wait for files")?
}
