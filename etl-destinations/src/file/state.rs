//! What does the journal say? Positions, chunks, and which files there are, as a sum of its entries.

use std::collections::{BTreeMap, BTreeSet};

use etl::schema::TableId;
use etl::{CursorId, Position};
use serde::{Deserialize, Serialize};

/// One line of the journal: what becomes true together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
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
    pub(super) tables: Vec<(TableId, TableFiles)>,
}

/// The files of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableFiles {
    /// Where its files are, below the root; more than one where the table got another name.
    pub(super) directories: Vec<String>,
    /// Files of an earlier one are removed.
    pub(super) generation: u64,
    /// The number of the next file.
    pub(super) next: u64,
    /// The part that rows are appended to; every other one is complete.
    pub(super) open: Option<Part>,
}

/// A file that is being written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) name: PartName,
    /// The columns of its rows.
    pub(super) columns: Vec<String>,
    /// How much of it is durable.
    pub(super) bytes: u64,
    /// Microseconds since 1970.
    pub(super) opened_at: i64,
}

/// Where a file is, and which one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartName {
    pub(super) directory: String,
    pub(super) table: TableId,
    pub(super) generation: u64,
    pub(super) sequence: u64,
    pub(super) extension: String,
}

impl PartName {
    /// The name under which the complete file appears. The oid tells a table from one of the same name before it.
    pub(super) fn complete(&self) -> String {
        let Self { table, generation, sequence, extension, .. } = self;
        format!("{}-{generation:06}-{sequence:09}.{extension}", table.0)
    }

    /// The name while it is written, which readers of `*.jsonl` do not find.
    pub(super) fn partial(&self) -> String {
        format!(".{}.part", self.complete())
    }

    /// What the name of a file says; `None` where it is somebody else's file. The second says whether it is a part.
    pub(super) fn parse(directory: &str, file: &str) -> Option<(Self, bool)> {
        let (name, is_part) = match file.strip_prefix('.').and_then(|name| name.strip_suffix(".part")) {
            Some(name) => (name, true),
            None => (file, false),
        };
        let (numbers, extension) = name.split_once('.').filter(|(_, extension)| !extension.contains('.'))?;
        let mut numbers = numbers.split('-').map(str::parse::<u64>);
        let mut number = || numbers.next()?.ok();
        let (table, generation, sequence) = (u32::try_from(number()?).ok()?, number()?, number()?);
        let (directory, extension) = (directory.to_owned(), extension.to_owned());
        let name = Self { directory, table: TableId(table), generation, sequence, extension };
        (name.complete() == file || name.partial() == file).then_some((name, is_part))
    }
}

/// The sum of all entries.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) owner: Option<String>,
    cursors: BTreeMap<CursorId, Option<Position>>,
    chunks: BTreeSet<(TableId, u64, u64)>,
    pub(super) tables: BTreeMap<TableId, TableFiles>,
}

impl State {
    pub(super) fn apply(&mut self, entry: Entry) {
        if entry.owner.is_some() && entry.owner != self.owner {
            (self.cursors, self.chunks) = (BTreeMap::new(), BTreeSet::new());
            self.owner = entry.owner;
        }
        if let Some(table) = entry.forgets {
            self.cursors.remove(&CursorId::Table(table));
            self.chunks.retain(|(chunk, ..)| *chunk != table);
        }
        self.cursors.extend(entry.cursors);
        self.chunks.extend(entry.chunks);
        self.tables.extend(entry.tables);
    }

    /// One entry that says the same.
    pub(super) fn entry(&self) -> Entry {
        Entry {
            owner: self.owner.clone(),
            forgets: None,
            cursors: self.cursors.iter().map(|(cursor, at)| (*cursor, *at)).collect(),
            chunks: self.chunks.iter().copied().collect(),
            tables: self.tables.iter().map(|(id, files)| (*id, files.clone())).collect(),
        }
    }

    /// The position of a cursor; a table that joined the main cursor has the main one's.
    pub(super) fn position(&self, cursor: CursorId) -> Option<Position> {
        match self.cursors.get(&cursor) {
            Some(None) if cursor != CursorId::Main => self.position(CursorId::Main),
            found => found.copied().flatten(),
        }
    }

    pub(super) fn has_chunk(&self, chunk: (TableId, u64, u64)) -> bool {
        self.chunks.contains(&chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl::Lsn;

    #[test]
    fn a_name_says_what_it_is_and_no_other_file_is_taken_for_one() {
        let name = PartName {
            directory: "public/t".to_owned(),
            table: TableId(u32::MAX),
            generation: 3,
            sequence: 12,
            extension: "jsonl".to_owned(),
        };
        assert_eq!(name.complete(), "4294967295-000003-000000012.jsonl");
        assert_eq!(PartName::parse("public/t", &name.complete()), Some((name.clone(), false)));
        assert_eq!(PartName::parse("public/t", &name.partial()), Some((name, true)));
        for other in ["notes.txt", "1-2-3.jsonl", "1-000002-000000003.jsonl.part", "-1-000002-000000003.csv", ""] {
            assert_eq!(PartName::parse("public/t", other), None, "{other}");
        }
    }

    #[test]
    fn one_entry_says_what_all_did() {
        let table = TableId(7);
        let at = |lsn| Position::new(Lsn(lsn), 1);
        let files = TableFiles { generation: 2, next: 5, ..TableFiles::default() };
        let entries = [
            Entry { owner: Some("a".to_owned()), ..Entry::default() },
            Entry {
                cursors: vec![(CursorId::Table(table), Some(at(5)))],
                chunks: vec![(table, 1, 1)],
                ..Entry::default()
            },
            Entry { forgets: Some(table), tables: vec![(table, files)], ..Entry::default() },
            Entry { cursors: vec![(CursorId::Main, Some(at(9))), (CursorId::Table(table), None)], ..Entry::default() },
        ];
        let mut state = State::default();
        entries.into_iter().for_each(|entry| state.apply(entry));
        let mut again = State::default();
        again.apply(state.entry());
        for state in [&state, &again] {
            assert_eq!(state.position(CursorId::Table(table)), Some(at(9)));
            assert!(!state.has_chunk((table, 1, 1)) && state.tables[&table].next == 5);
        }
        again.apply(Entry { owner: Some("b".to_owned()), ..Entry::default() });
        assert_eq!(again.position(CursorId::Main), None, "another owner begins anew");
    }
}
