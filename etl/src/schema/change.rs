//! What happened to a table between two of its schemas?

use std::fmt;

use super::{Column, TableName, TableSchema};

/// One change of a table's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaChange {
    /// The table has another name.
    RenameTable {
        /// The name before.
        from: TableName,
        /// The name after.
        to: TableName,
    },
    /// A column is gone.
    DropColumn(Column),
    /// A column has another name.
    RenameColumn {
        /// The name before.
        from: Box<str>,
        /// The name after.
        to: Box<str>,
    },
    /// A column holds another type.
    RetypeColumn {
        /// The column before, under its new name.
        from: Column,
        /// The column after.
        to: Column,
    },
    /// A column takes nulls, or no longer does.
    SetNullable {
        /// The column's new name.
        column: Box<str>,
        /// Whether it takes nulls now.
        nullable: bool,
    },
    /// A column is new.
    AddColumn(Column),
    /// Rows are told apart by other columns.
    ChangeKey {
        /// The names of the key's columns before.
        from: Vec<Box<str>>,
        /// The names after.
        to: Vec<Box<str>>,
    },
}

impl fmt::Display for SchemaChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RenameTable { from, to } => write!(f, "{from} is called {to}"),
            Self::DropColumn(column) => write!(f, "the column {} is gone", column.name),
            Self::RenameColumn { from, to } => write!(f, "the column {from} is called {to}"),
            Self::RetypeColumn { from, to } => {
                write!(f, "the column {} is {} and was {}", to.name, to.type_name, from.type_name)
            }
            Self::SetNullable { column, nullable: true } => write!(f, "the column {column} takes nulls"),
            Self::SetNullable { column, nullable: false } => write!(f, "the column {column} takes no nulls"),
            Self::AddColumn(column) => write!(f, "the column {} is new", column.name),
            Self::ChangeKey { from, to } => write!(f, "the key is ({}) and was ({})", to.join(", "), from.join(", ")),
        }
    }
}

/// The changes that lead from one schema to the next, in an order in which they can be made.
///
/// Columns are the same where their `attnum` is; where it is not known, where the name is.
pub fn changes(old: &TableSchema, new: &TableSchema) -> Vec<SchemaChange> {
    let mut found = Vec::new();
    if old.name != new.name {
        found.push(SchemaChange::RenameTable { from: old.name.clone(), to: new.name.clone() });
    }
    let is_same = |a: &Column, b: &Column| if a.attnum > 0 { a.attnum == b.attnum } else { a.name == b.name };
    let gone = old.columns.iter().filter(|a| !new.columns.iter().any(|b| is_same(a, b)));
    found.extend(gone.map(|column| SchemaChange::DropColumn(column.clone())));
    for column in &new.columns {
        match old.columns.iter().find(|before| is_same(before, column)) {
            Some(before) => compare(before, column, &mut found),
            None => found.push(SchemaChange::AddColumn(column.clone())),
        }
    }
    let key = |schema: &TableSchema| schema.key_columns().map(|c| c.name.clone()).collect::<Vec<_>>();
    let (from, to) = (key(old), key(new));
    if from != to {
        found.push(SchemaChange::ChangeKey { from, to });
    }
    found
}

fn compare(before: &Column, after: &Column, found: &mut Vec<SchemaChange>) {
    if before.name != after.name {
        found.push(SchemaChange::RenameColumn { from: before.name.clone(), to: after.name.clone() });
    }
    // A composite type whose attributes are others keeps its oid.
    if (before.type_oid, before.modifier, &before.kind) != (after.type_oid, after.modifier, &after.kind) {
        let from = Column { name: after.name.clone(), ..before.clone() };
        found.push(SchemaChange::RetypeColumn { from, to: after.clone() });
    }
    if before.nullable != after.nullable {
        found.push(SchemaChange::SetNullable { column: after.name.clone(), nullable: after.nullable });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Position;
    use crate::schema::{Kind, ReplicaIdentity, TableId};

    fn column(attnum: i16, name: &str, type_oid: u32) -> Column {
        let kind = Kind::of_builtin(type_oid, -1).unwrap_or(Kind::Other);
        Column {
            fill: None,
            name: name.into(),
            attnum,
            type_oid,
            modifier: -1,
            type_name: "".into(),
            kind,
            nullable: true,
        }
    }

    fn table(columns: Vec<Column>) -> TableSchema {
        TableSchema {
            last_attnum: 0,
            source_name: None,
            id: TableId(1),
            name: TableName::new("public", "t"),
            columns: columns.into(),
            key: Box::new([0]),
            identity: ReplicaIdentity::Default,
            since: Position::ZERO,
        }
    }

    #[test]
    fn each_kind_of_change_is_found_by_attnum() {
        let old = table(vec![column(1, "id", 23), column(2, "a", 25), column(3, "b", 23)]);
        let new = table(vec![column(1, "id", 20), column(3, "a", 23), column(4, "b", 23)]);
        let found = changes(&old, &new);
        assert!(matches!(&found[0], SchemaChange::DropColumn(c) if &*c.name == "a"));
        assert!(matches!(&found[1], SchemaChange::RetypeColumn { to, .. } if to.type_oid == 20));
        assert!(matches!(&found[2], SchemaChange::RenameColumn { from, to } if &**from == "b" && &**to == "a"));
        assert!(matches!(&found[3], SchemaChange::AddColumn(c) if c.attnum == 4));
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn equal_schemas_have_no_changes() {
        let old = table(vec![column(1, "id", 23)]);
        assert_eq!(changes(&old, &old), vec![]);
    }
}
