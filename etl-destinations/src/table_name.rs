//! What are tables and columns called in the destination? Source names, mapped where a place cannot hold them.

use std::collections::HashSet;

use etl::schema::{TableId, TableName, TableSchema};

use crate::metadata_columns::MetadataColumns;

/// Which names a place can hold. The default is every name as it is.
#[derive(Debug, Clone, Copy)]
pub struct NameRules {
    /// What becomes of upper and lower case.
    pub case: Case,
    /// Whether a character may stand in a name; any other becomes `_`.
    pub allows: fn(char) -> bool,
    /// The longest name, by the sum of what its characters take.
    pub longest: usize,
    /// What a character takes in a name. By default its bytes.
    pub width: fn(char) -> usize,
}

/// What a place does with upper and lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Two names that differ in case are two names.
    Kept,
    /// Case is kept, but does not tell names apart.
    Ignored,
    /// Names are folded to lower case.
    Lower,
    /// Names are folded to upper case.
    Upper,
}

impl Default for NameRules {
    fn default() -> Self {
        Self { case: Case::Kept, allows: |_| true, longest: usize::MAX, width: char::len_utf8 }
    }
}

/// A name that is another in the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The table, as the source calls it.
    pub table: TableName,
    /// The column, where it is one.
    pub column: Option<Box<str>>,
    /// What it is called in the destination.
    pub target: Box<str>,
}

impl NameRules {
    /// A name as the place can hold it.
    pub fn map(&self, name: &str) -> Box<str> {
        let allowed = name.chars().map(|c| if (self.allows)(c) { c } else { '_' });
        let name: String = match self.case {
            Case::Kept | Case::Ignored => allowed.collect(),
            Case::Lower => allowed.flat_map(char::to_lowercase).collect(),
            Case::Upper => allowed.flat_map(char::to_uppercase).collect(),
        };
        self.cut(name, self.longest).into()
    }

    /// What two names of the place have in common if they are the same to it.
    pub fn folded(&self, name: &str) -> String {
        match self.case {
            Case::Ignored => name.to_lowercase(),
            Case::Kept | Case::Lower | Case::Upper => name.to_owned(),
        }
    }

    /// The table's name in the destination, given all tables that go there. Where several come to the same
    /// name, the one with the smallest id has it, and the others get their id as a suffix.
    pub fn map_table(&self, id: TableId, name: &TableName, all: &[(TableId, TableName)]) -> TableName {
        let mapped = self.map_both(name);
        let folded = self.folded_both(&mapped);
        let taken = all.iter().any(|(other, name)| *other < id && self.folded_both(&self.map_both(name)) == folded);
        let name = if taken { self.with_suffix(&mapped.name, &id.to_string()) } else { mapped.name };
        TableName { schema: mapped.schema, name }
    }

    /// What tables have in common that come to one name.
    pub(crate) fn folded_table(&self, name: &TableName) -> (String, String) {
        self.folded_both(&self.map_both(name))
    }

    /// The name of a table whose own another one has at the source by now.
    pub(crate) fn map_aside(&self, id: TableId, name: &TableName) -> TableName {
        let mapped = self.map_both(name);
        TableName { name: self.with_suffix(&mapped.name, &id.to_string()), schema: mapped.schema }
    }

    /// The columns' names in the destination, in their order. The metadata columns keep theirs; what comes to a
    /// name that is taken gets a number as a suffix.
    pub fn map_columns(&self, schema: &TableSchema, metadata: Option<&MetadataColumns>) -> Box<[Box<str>]> {
        let metadata = metadata.iter().flat_map(|metadata| metadata.names());
        let mut taken: HashSet<String> = metadata.map(|name| self.folded(name)).collect();
        // Names that need no mapping come first, so that they stay what they are.
        let mut names: Vec<Option<Box<str>>> = vec![None; schema.columns.len()];
        for unmapped in [true, false] {
            for (name, column) in names.iter_mut().zip(&schema.columns).filter(|(name, _)| name.is_none()) {
                let mapped = self.map(&column.name);
                if unmapped && mapped != column.name {
                    continue;
                }
                if taken.insert(self.folded(&mapped)) {
                    *name = Some(mapped);
                }
            }
        }
        let free = |mapped: &str, taken: &mut HashSet<String>| {
            (2u64..).map(|n| self.with_suffix(mapped, &n.to_string())).find(|name| taken.insert(self.folded(name)))
        };
        let columns = names.into_iter().zip(&schema.columns);
        columns
            .map(|(name, column)| name.or_else(|| free(&self.map(&column.name), &mut taken)).unwrap_or_default())
            .collect()
    }

    /// Which names are others in the destination.
    pub fn report(schema: &TableSchema, table: &TableName, columns: &[Box<str>]) -> Vec<Renamed> {
        let renamed = |column, target: &str| Renamed { table: schema.name.clone(), column, target: target.into() };
        let mut found = Vec::new();
        if *table != schema.name {
            found.push(renamed(None, &table.to_string()));
        }
        let columns = schema.columns.iter().zip(columns).filter(|(column, target)| column.name != **target);
        found.extend(columns.map(|(column, target)| renamed(Some(column.name.clone()), target)));
        found
    }

    fn map_both(&self, name: &TableName) -> TableName {
        TableName { schema: self.map(&name.schema), name: self.map(&name.name) }
    }

    fn folded_both(&self, name: &TableName) -> (String, String) {
        (self.folded(&name.schema), self.folded(&name.name))
    }

    /// The name with `_` and the suffix, cut where it would be too long.
    pub(crate) fn with_suffix(&self, name: &str, suffix: &str) -> Box<str> {
        let kept = self.cut(name.to_owned(), self.longest.saturating_sub(suffix.len() + 1));
        format!("{kept}_{suffix}").into()
    }

    fn cut(&self, mut name: String, longest: usize) -> String {
        let mut width = 0;
        let is_beyond = |(_, c): &(usize, char)| {
            width += (self.width)(*c);
            width > longest
        };
        if let Some((end, _)) = name.char_indices().find(is_beyond) {
            name.truncate(end);
        }
        name
    }
}
