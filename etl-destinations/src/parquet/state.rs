//! What do the manifests say? Positions, chunks, and which files count, as a sum of their entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use etl::clock::Timestamp;
use etl::schema::{TableId, TableName, TableSchema};
use etl::{CursorId, Position};
use serde::{Deserialize, Serialize};

use super::layout;
use crate::metadata_columns::MetadataColumns;
use crate::write_mode::WriteMode;
use crate::writer::TargetTable;

/// One manifest: what becomes true together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
    /// The process that wrote it.
    pub(super) session: String,
    /// Whether it says all there is: what was before it does not matter.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) whole: bool,
    /// Whether the process that wrote it has only rearranged files, beside the one that writes rows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) guest: bool,
    /// Beyond the numbers of all files so far.
    pub(super) next: u64,
    /// Whose positions and chunks these are; those of another owner are forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
    /// A table whose position and chunks are forgotten, before anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) forgets: Option<TableId>,
    /// `None` follows the main cursor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cursors: Vec<(CursorId, Option<Position>)>,
    /// Table, generation, index.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) chunks: Vec<(TableId, u64, u64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tables: Vec<TablePart>,
    /// Files that do not count any more, and stay for a while.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) retained: Vec<Retained>,
    /// The paths of such files that are removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) removed: Vec<String>,
    /// What has become of runs that stage.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) runs: Vec<RunPart>,
}

/// What a manifest says of a run that shows nothing before it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RunPart {
    /// It has staged this besides; what another one has staged does not matter any more.
    Staged(StagedPart),
    /// What it has staged are the tables of this manifest: what was stored of their positions and chunks is forgotten.
    Shown(String),
    /// What it has staged does not matter any more.
    Abandoned(String),
}

/// Files that count once their run is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StagedPart {
    pub(super) run: String,
    pub(super) tables: Vec<TablePart>,
    /// Table, generation, index.
    pub(super) chunks: Vec<(TableId, u64, u64)>,
}

/// A file that does not count any more, which somebody may be reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retained {
    pub(super) table: TableId,
    pub(super) path: String,
    /// From when on it is not needed.
    pub(super) until: Timestamp,
}

impl Entry {
    /// Whether it says which files there were: where others have come to be meanwhile, it may be wrong.
    pub(super) fn rearranges(&self) -> bool {
        self.whole || self.tables.iter().any(|table| table.current.is_some() || !table.remove.is_empty())
    }
}

/// What a manifest says of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TablePart {
    pub(super) id: TableId,
    /// Its name in the destination.
    pub(super) name: String,
    /// With a new one, all files so far are gone.
    pub(super) generation: u64,
    /// What the rows of its files look like, where that was not said before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) shapes: Vec<Shape>,
    /// Numbers of files that do not count any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) remove: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) add: Vec<DataFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<Current>,
}

/// The current state that a log was folded into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Current {
    /// The last place of the log that is in it.
    pub(super) upto: u64,
    /// Whether deleted rows are marked in it.
    pub(super) mode: WriteMode,
    pub(super) shape: u32,
    pub(super) files: Vec<DataFile>,
    /// Which last place of the log a state had, and when that state was made, as long as the log is still needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) folds: Vec<(u64, Timestamp)>,
    /// Up to this place the log is gone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) cut: u64,
}

fn is_zero(place: &u64) -> bool {
    *place == 0
}

impl TablePart {
    /// One that says no more than what the table is.
    pub(super) fn new(id: TableId, table: &Table, generation: u64) -> Self {
        let name = table.name.clone();
        Self { id, name, generation, shapes: Vec::new(), remove: Vec::new(), add: Vec::new(), current: None }
    }
}

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DataFile {
    /// Below the location.
    pub(super) path: String,
    pub(super) number: u64,
    /// Its place among the files of the table.
    pub(super) order: u64,
    pub(super) shape: u32,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// The first and the last position of its rows.
    pub(super) first: Position,
    pub(super) last: Position,
}

/// What rows look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) id: u32,
    pub(super) name: TableName,
    pub(super) columns: Box<[Box<str>]>,
    pub(super) metadata: Option<MetadataColumns>,
    pub(super) source: TableSchema,
}

impl Shape {
    pub(super) fn new(id: u32, table: &TargetTable) -> Self {
        Self {
            id,
            name: table.name.clone(),
            columns: table.columns.clone(),
            metadata: table.metadata.as_deref().cloned(),
            source: TableSchema::clone(&table.source),
        }
    }

    /// The table that rows of this shape are of.
    pub(super) fn target(&self, write_mode: WriteMode) -> Arc<TargetTable> {
        Arc::new(TargetTable {
            id: self.source.id,
            source: Arc::new(self.source.clone()),
            name: self.name.clone(),
            columns: self.columns.clone(),
            write_mode,
            metadata: self.metadata.clone().map(Arc::new),
            is_adopted: false,
        })
    }

    /// Whether rows of the table look like this.
    pub(super) fn is_of(&self, table: &TargetTable) -> bool {
        let (own, other) = (&self.source, &table.source);
        let is_same = self.name == table.name && self.columns == table.columns;
        is_same
            && self.metadata.as_ref() == table.metadata.as_deref()
            && own.columns == other.columns
            && own.key == other.key
            && own.identity == other.identity
    }
}

/// A table with what counts of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) generation: u64,
    pub(super) shapes: BTreeMap<u32, Shape>,
    /// In their order.
    pub(super) files: Vec<DataFile>,
    pub(super) current: Option<Current>,
}

impl Table {
    /// The shape of its last rows.
    pub(super) fn shape(&self) -> Option<&Shape> {
        self.shapes.last_key_value().map(|(_, shape)| shape)
    }

    fn apply(&mut self, entry: TablePart) {
        if entry.generation != self.generation {
            *self = Self { generation: entry.generation, ..Self::default() };
        }
        self.name = entry.name;
        self.shapes.extend(entry.shapes.into_iter().map(|shape| (shape.id, shape)));
        self.files.retain(|file| !entry.remove.contains(&file.number));
        self.files.extend(entry.add);
        self.files.sort_by_key(|file| (file.order, file.number));
        self.current = entry.current.or(self.current.take());
    }

    /// All that is to be said of it.
    pub(super) fn entry(&self, id: TableId) -> TablePart {
        let shapes = self.shapes.values().cloned().collect();
        TablePart {
            shapes,
            add: self.files.clone(),
            current: self.current.clone(),
            ..TablePart::new(id, self, self.generation)
        }
    }

    /// Whether the rows of a file of the log are in the current state.
    pub(super) fn is_folded(&self, file: &DataFile) -> bool {
        self.current.as_ref().is_some_and(|current| file.order <= current.upto)
    }

    /// Whether files are all in the current state, or none of them is.
    pub(super) fn are_together(&self, files: &[DataFile]) -> bool {
        files.windows(2).all(|pair| self.is_folded(&pair[0]) == self.is_folded(&pair[1]))
    }

    /// What names the files of its current state.
    pub(super) fn pointer(&self) -> Option<String> {
        let shape = self.shapes.get(&self.current.as_ref()?.shape)?;
        Some(layout::pointer(&shape.name))
    }

    /// The paths of all its files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        let current = self.current.iter().flat_map(|current| &current.files);
        self.files.iter().chain(current).map(|file| &*file.path)
    }
}

/// The sum of all manifests.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) next: u64,
    pub(super) owner: Option<String>,
    cursors: BTreeMap<CursorId, Option<Position>>,
    chunks: BTreeSet<(TableId, u64, u64)>,
    pub(super) tables: BTreeMap<TableId, Table>,
    /// By their paths.
    pub(super) retained: BTreeMap<String, Retained>,
    pub(super) staged: Option<Staged>,
    /// The run that was shown last.
    pub(super) shown: Option<String>,
}

/// What a run has staged so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Staged {
    pub(super) run: String,
    pub(super) tables: BTreeMap<TableId, Table>,
    pub(super) chunks: BTreeSet<(TableId, u64, u64)>,
}

impl Staged {
    fn part(&self) -> StagedPart {
        StagedPart {
            run: self.run.clone(),
            tables: self.tables.iter().map(|(id, table)| table.entry(*id)).collect(),
            chunks: self.chunks.iter().copied().collect(),
        }
    }
}

impl State {
    pub(super) fn apply(&mut self, entry: Entry) {
        if entry.whole {
            *self = Self::default();
        }
        self.next = self.next.max(entry.next);
        if entry.owner.is_some() && entry.owner != self.owner {
            (self.cursors, self.chunks) = (BTreeMap::new(), BTreeSet::new());
            self.owner = entry.owner;
        }
        if let Some(table) = entry.forgets {
            self.forget(table);
        }
        for run in entry.runs {
            match run {
                RunPart::Staged(part) => self.stage(part),
                RunPart::Shown(run) => {
                    entry.tables.iter().for_each(|table| self.forget(table.id));
                    (self.staged, self.shown) = (None, Some(run));
                }
                RunPart::Abandoned(run) => drop(self.staged.take_if(|staged| staged.run == run)),
            }
        }
        self.cursors.extend(entry.cursors);
        self.chunks.extend(entry.chunks);
        for table in entry.tables {
            self.tables.entry(table.id).or_default().apply(table);
        }
        self.retained.extend(entry.retained.into_iter().map(|file| (file.path.clone(), file)));
        for path in &entry.removed {
            self.retained.remove(path);
        }
    }

    fn forget(&mut self, table: TableId) {
        self.cursors.remove(&CursorId::Table(table));
        self.chunks.retain(|(chunk, ..)| *chunk != table);
    }

    fn stage(&mut self, part: StagedPart) {
        let staged = self.staged.take().filter(|staged| staged.run == part.run);
        let staged = self.staged.insert(staged.unwrap_or_else(|| Staged { run: part.run, ..Staged::default() }));
        for table in part.tables {
            staged.tables.entry(table.id).or_default().apply(table);
        }
        staged.chunks.extend(part.chunks);
    }

    /// What the run has staged.
    pub(super) fn staged(&self, run: &str) -> Option<&Staged> {
        self.staged.as_ref().filter(|staged| staged.run == run)
    }

    /// One manifest that says the same.
    pub(super) fn entry(&self) -> Entry {
        let shown = self.shown.iter().map(|run| RunPart::Shown(run.clone()));
        Entry {
            runs: shown.chain(self.staged.iter().map(|staged| RunPart::Staged(staged.part()))).collect(),
            session: String::new(),
            whole: true,
            guest: false,
            next: self.next,
            owner: self.owner.clone(),
            forgets: None,
            cursors: self.cursors.iter().map(|(cursor, at)| (*cursor, *at)).collect(),
            chunks: self.chunks.iter().copied().collect(),
            tables: self.tables.iter().map(|(id, table)| table.entry(*id)).collect(),
            retained: self.retained.values().cloned().collect(),
            removed: Vec::new(),
        }
    }

    /// The position of a cursor; a table that joined the main cursor has the main one's.
    pub(super) fn position(&self, cursor: CursorId) -> Option<Position> {
        match self.cursors.get(&cursor) {
            Some(None) if cursor != CursorId::Main => self.position(CursorId::Main),
            found => found.copied().flatten(),
        }
    }

    pub(super) fn positions(&self) -> impl Iterator<Item = (CursorId, Position)> {
        self.cursors.iter().filter_map(|(cursor, at)| at.map(|at| (*cursor, at)))
    }

    pub(super) fn has_chunk(&self, chunk: (TableId, u64, u64)) -> bool {
        self.chunks.contains(&chunk)
    }

    /// Whether anything is known of the table.
    pub(super) fn knows(&self, table: TableId) -> bool {
        let has_chunks = self.chunks.range((table, 0, 0)..=(table, u64::MAX, u64::MAX)).next().is_some();
        has_chunks || self.tables.contains_key(&table) || self.cursors.contains_key(&CursorId::Table(table))
    }

    /// The paths of all files that count, of those that count once their run is shown, and of those that stay for a while.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        let staged = self.staged.iter().flat_map(|staged| staged.tables.values());
        let tables = self.tables.values().chain(staged);
        tables.flat_map(Table::paths).chain(self.retained.keys().map(|path| &**path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl::Lsn;

    fn at(lsn: u64) -> Position {
        Position::new(Lsn(lsn), 1)
    }

    fn file(number: u64, order: u64) -> DataFile {
        let path = format!("public/t/log/{number}");
        DataFile { path, number, order, shape: 1, rows: 1, bytes: 1, first: at(1), last: at(1) }
    }

    fn files(generation: u64, remove: &[u64], add: Vec<DataFile>) -> TablePart {
        let (name, remove) = ("public.t".to_owned(), remove.to_vec());
        TablePart { id: TableId(7), name, generation, shapes: Vec::new(), remove, add, current: None }
    }

    #[test]
    fn what_a_run_stages_counts_once_it_is_shown_and_not_when_another_one_begins() {
        let staged = |run: &str, number| {
            let tables = vec![files(2, &[], vec![file(number, number)])];
            RunPart::Staged(StagedPart { run: run.to_owned(), tables, chunks: vec![(TableId(7), 1, number)] })
        };
        let runs = |run| Entry { runs: vec![run], ..Entry::default() };
        let mut state = State::default();
        let before = Entry {
            chunks: vec![(TableId(7), 1, 1)],
            tables: vec![files(1, &[], vec![file(1, 1)])],
            ..Entry::default()
        };
        [before, runs(staged("dead", 2)), runs(staged("a", 3)), runs(staged("a", 4))]
            .into_iter()
            .for_each(|entry| state.apply(entry));
        assert!(state.staged("dead").is_none() && state.tables[&TableId(7)].files.len() == 1);
        let mut again = State::default();
        again.apply(state.entry());
        for state in [&mut state, &mut again] {
            assert_eq!(state.staged("a").unwrap().chunks.len(), 2);
            assert_eq!(state.paths().count(), 3, "what waits is known");
            let shown = files(2, &[], vec![file(3, 3), file(4, 4)]);
            state.apply(Entry { tables: vec![shown], ..runs(RunPart::Shown("a".to_owned())) });
            assert_eq!(state.paths().collect::<Vec<_>>(), ["public/t/log/3", "public/t/log/4"]);
            assert!(!state.has_chunk((TableId(7), 1, 1)) && state.shown.as_deref() == Some("a"));
            state.apply(runs(staged("b", 9)));
            state.apply(runs(RunPart::Abandoned("b".to_owned())));
            assert!(state.staged.is_none() && state.paths().count() == 2);
        }
    }

    #[test]
    fn one_entry_says_what_all_did() {
        let table = TableId(7);
        let entries = [
            Entry { owner: Some("a".to_owned()), ..Entry::default() },
            Entry {
                cursors: vec![(CursorId::Table(table), Some(at(5)))],
                chunks: vec![(table, 1, 1)],
                tables: vec![files(1, &[], vec![file(1, 1), file(2, 2), file(3, 3)])],
                next: 4,
                ..Entry::default()
            },
            Entry { tables: vec![files(1, &[1, 2], vec![file(4, 1)])], next: 5, ..Entry::default() },
            Entry { cursors: vec![(CursorId::Main, Some(at(9))), (CursorId::Table(table), None)], ..Entry::default() },
        ];
        let mut state = State::default();
        entries.into_iter().for_each(|entry| state.apply(entry));
        let mut again = State::default();
        again.apply(state.entry());
        for state in [&state, &again] {
            assert_eq!(state.position(CursorId::Table(table)), Some(at(9)));
            assert!(state.has_chunk((table, 1, 1)) && state.knows(table) && state.next == 5);
            let paths: Vec<&str> = state.paths().collect();
            assert_eq!(paths, ["public/t/log/4", "public/t/log/3"], "what was merged stays in its place");
        }
        again.apply(Entry { forgets: Some(table), tables: vec![files(2, &[], Vec::new())], ..Entry::default() });
        assert!(!again.has_chunk((table, 1, 1)) && again.paths().next().is_none() && again.next == 5);
        again.apply(Entry { owner: Some("b".to_owned()), ..Entry::default() });
        assert_eq!(again.position(CursorId::Main), None, "another owner begins anew");
    }
}
