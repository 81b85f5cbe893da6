//! Which tables has this process met, and what do they look like in the destination?

use std::collections::HashMap;
use std::sync::Arc;

use etl::Position;
use etl::schema::{TableId, TableName, TableSchema};

use crate::kept_shape::{Fit, Kept, unchanged, widened};
use crate::table_name::NameRules;
use crate::table_rules::TableRules;
use crate::write_mode::{OnSchemaChange, WriteMode};
use crate::writer::TargetTable;

/// A table that goes to the destination, or went there.
#[derive(Debug, Clone)]
pub(crate) struct KnownTable {
    pub(crate) id: TableId,
    pub(crate) name: TableName,
    /// Since when it has the name.
    pub(crate) since: Position,
    /// Whether it is gone at the source, or not published any more.
    pub(crate) is_gone: bool,
}

impl KnownTable {
    /// Who has a name at the source: whoever came to it last.
    fn rank(&self) -> (bool, Position, TableId) {
        (!self.is_gone, self.since, self.id)
    }
}

/// The destination's tables, as far as they were written to.
#[derive(Debug)]
pub(crate) struct TargetTables {
    rules: TableRules,
    names: NameRules,
    /// Whether changes of rows without a key are folded.
    pub(crate) folds: bool,
    /// The source's names of all tables; they decide who gets a name that several come to.
    known: Vec<(TableId, TableName)>,
    /// How many of them come to which name in the destination.
    taken: HashMap<(String, String), usize>,
    /// Tables whose name another one has at the source by now, until it is known which one they have.
    nameless: Vec<(TableId, TableName)>,
    current: HashMap<TableId, Current>,
    /// What tables have whose policy does not follow every change; nothing until it was read.
    kept: Option<HashMap<TableId, Arc<TableSchema>>>,
}

/// A table that was written to.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub(crate) table: Arc<TargetTable>,
    /// The last shape of the source.
    pub(crate) seen: Arc<TableSchema>,
    /// How its rows become rows of the table, where they are not.
    pub(crate) fit: Option<Arc<Fit>>,
}

impl Current {
    fn new(table: TargetTable, seen: &Arc<TableSchema>) -> Self {
        let fit = Fit::new(seen, &table.source);
        Self { table: Arc::new(table), seen: Arc::clone(seen), fit }
    }
}

impl Current {
    /// The same under another name.
    fn called(&self, name: TableName) -> Self {
        Self { table: Arc::new(TargetTable { name, ..TargetTable::clone(&self.table) }), ..self.clone() }
    }
}

impl TargetTables {
    pub(crate) fn new(rules: TableRules, names: NameRules) -> Self {
        let (known, taken, nameless) = (Vec::new(), HashMap::new(), Vec::new());
        Self { rules, names, folds: true, known, taken, nameless, current: HashMap::new(), kept: None }
    }

    /// Says whether every change of a row without a key is wanted.
    pub(crate) fn keeping_every_change(self, keeps: bool) -> Self {
        Self { folds: !keeps, ..self }
    }

    /// What follows a change of the table's shape.
    pub(crate) fn on_change(&self, schema: &TableSchema) -> OnSchemaChange {
        self.rules.of(schema.source_name()).on_schema_change
    }

    /// How the table is written.
    pub(crate) fn write_mode(&self, schema: &TableSchema) -> WriteMode {
        self.rules.of(schema.source_name()).write_mode
    }

    /// Whether the table is named by what is known; `name` is the one that it has now, where that may be another.
    pub(crate) fn knows(&self, table: TableId, name: Option<&TableName>) -> bool {
        let is_it = |(id, known): &&(TableId, TableName)| *id == table && name.is_none_or(|name| name == known);
        self.known.iter().chain(&self.nameless).any(|known| is_it(&known))
    }

    /// Learns of one more table, if it comes to a name that no other is known to come to; whether it does. What is known of under
    /// another name is no more table: which names are free then, only all tables tell.
    pub(crate) fn learn_apart(&mut self, table: TableId, name: &TableName) -> bool {
        let mut known = self.known.iter().chain(&self.nameless);
        if self.known.is_empty() || known.any(|(id, known)| *id == table || known == name) {
            return false;
        }
        let target = self.names.folded_table(name);
        let is_apart = !self.taken.contains_key(&target);
        if is_apart {
            self.taken.insert(target, 1);
            self.known.push((table, name.clone()));
        }
        is_apart
    }

    /// The names of all tables from now on. Returns those that are in the destination under another one.
    pub(crate) fn learn(&mut self, tables: Vec<KnownTable>) -> Vec<Current> {
        let has_name = |table: &KnownTable| {
            let mut same = tables.iter().filter(|other| other.name == table.name);
            !same.any(|other| other.rank() > table.rank())
        };
        let (named, others): (Vec<_>, Vec<_>) = tables.iter().partition(|table| has_name(table));
        let pair = |table: &KnownTable| (table.id, table.name.clone());
        self.known = named.into_iter().map(pair).collect();
        self.taken.clear();
        for (_, name) in &self.known {
            *self.taken.entry(self.names.folded_table(name)).or_default() += 1;
        }
        self.nameless = others.into_iter().filter(|table| !table.is_gone).map(pair).collect();
        let is_gone = |id: TableId| tables.iter().any(|table| table.id == id && table.is_gone);
        self.current.retain(|id, _| !is_gone(*id));
        // A table that is about to be told of another name gets that one.
        let is_settled = |current: &&Current| self.knows(current.table.id, Some(&current.table.source.name));
        let settled = self.current.values().filter(is_settled);
        let named = settled.map(|current| (current, self.name(&current.table.source)));
        let misnamed = named.filter(|(current, name)| current.table.name != *name);
        misnamed.map(|(current, name)| current.called(name)).collect()
    }

    fn name(&self, schema: &TableSchema) -> TableName {
        // A shape of before may have a name that another table has by now.
        let who = self.known.iter().find(|(_, name)| *name == schema.name).map(|(id, _)| *id);
        if who.is_some_and(|id| id != schema.id) {
            return self.names.map_aside(schema.id, &schema.name);
        }
        let is_alone = self.taken.get(&self.names.folded_table(&schema.name)) == Some(&1);
        if who.is_some() && is_alone {
            return self.names.map_table(schema.id, &schema.name, &[]);
        }
        self.names.map_table(schema.id, &schema.name, &self.known)
    }

    /// What tables have that do not follow every change, once it is known.
    pub(crate) fn kept(&self) -> Option<&HashMap<TableId, Arc<TableSchema>>> {
        self.kept.as_ref()
    }

    /// That is so from now on.
    pub(crate) fn keep(&mut self, kept: HashMap<TableId, Arc<TableSchema>>) {
        self.kept = Some(kept);
    }

    /// What the table has, where that may be another shape than the source's.
    pub(crate) fn kept_of(&self, table: TableId) -> Option<&Arc<TableSchema>> {
        self.kept.as_ref()?.get(&table)
    }

    /// The table as it is; `None` where it is yet to be ensured.
    pub(crate) fn get(&self, table: TableId) -> Option<&Current> {
        self.current.get(&table)
    }

    /// What becomes of what the table has when the source has this shape; nothing where it follows the source.
    pub(crate) fn kept_with(&self, had: Option<&TableSchema>, now: &Arc<TableSchema>) -> Option<Kept> {
        let policy = self.on_change(now);
        match (policy, self.kept_of(now.id)) {
            (OnSchemaChange::Apply | OnSchemaChange::Stop, None) => None,
            (OnSchemaChange::Widen, kept) => Some(widened(had.or(kept.map(|kept| &**kept))?, now)),
            // What an earlier setting left out stays so until the table is copied anew.
            (_, kept) => Some(unchanged(had.or(kept.map(|kept| &**kept))?, now)),
        }
    }

    /// The table that rows of this shape belong into, by the rules alone.
    pub(crate) fn make(&self, schema: &Arc<TableSchema>) -> Current {
        let shape = self.kept_with(None, schema).map_or_else(|| Arc::clone(schema), |kept| kept.shape);
        Current::new(self.target(&shape, schema), schema)
    }

    /// The table as the destination has it before it has met this shape.
    pub(crate) fn met_before(&self, schema: &Arc<TableSchema>) -> Current {
        match self.kept_of(schema.id) {
            Some(kept) => Current::new(self.target(kept, schema), kept),
            None => self.make(schema),
        }
    }

    /// A table of this shape, for rows of a source that is called as in the other one.
    fn target(&self, shape: &Arc<TableSchema>, source: &TableSchema) -> TargetTable {
        let settings = self.rules.of(source.source_name());
        TargetTable {
            id: shape.id,
            name: self.name(shape),
            columns: self.names.map_columns(shape, settings.metadata.as_deref()),
            write_mode: settings.write_mode,
            metadata: settings.metadata,
            is_adopted: !settings.copy,
            source: Arc::clone(shape),
        }
    }

    /// The table after its source's shape changed to `seen`, of which it has `shape`. How it is written stays.
    pub(crate) fn reshape(&self, table: &TargetTable, shape: &Arc<TableSchema>, seen: &Arc<TableSchema>) -> Current {
        let target = TargetTable {
            columns: self.names.map_columns(shape, table.metadata.as_deref()),
            write_mode: table.write_mode,
            metadata: table.metadata.clone(),
            ..self.target(shape, seen)
        };
        Current::new(target, seen)
    }

    /// The tables are in the destination like this now.
    pub(crate) fn settle(&mut self, tables: impl IntoIterator<Item = Current>) {
        self.current.extend(tables.into_iter().map(|current| (current.table.id, current)));
    }

    /// The table has to be ensured again.
    pub(crate) fn forget(&mut self, table: TableId) {
        self.current.remove(&table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: u32, name: &str) -> KnownTable {
        KnownTable { id: TableId(id), name: TableName::new("public", name), since: Position::ZERO, is_gone: false }
    }

    #[test]
    fn a_table_is_learnt_of_alone_unless_another_one_comes_to_its_name() {
        let lower = NameRules { case: crate::table_name::Case::Lower, ..NameRules::default() };
        let mut tables = TargetTables::new(TableRules::default(), lower);
        let mut learns = |id, name: &str| tables.learn_apart(TableId(id), &TableName::new("public", name));
        assert!(!learns(3, "first"), "nothing is known yet");
        tables.learn(vec![known(3, "first"), known(4, "second")]);
        let mut learns = |id, name: &str| tables.learn_apart(TableId(id), &TableName::new("public", name));
        assert!(learns(5, "third"));
        for (id, name) in [(6, "second"), (6, "THIRD"), (4, "renamed"), (5, "third")] {
            assert!(!learns(id, name), "{name}");
        }
        assert!(tables.knows(TableId(5), Some(&TableName::new("public", "third"))));
        assert!(!tables.knows(TableId(6), None));
    }
}
