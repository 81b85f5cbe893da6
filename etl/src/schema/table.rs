//! What does a published table look like? Its name, columns, key and replica identity at one position.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Kind;
use crate::error::EtlError;
use crate::lsn::Position;

/// The oid of a table at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub u32);

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a table with its schema, as the source writes them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema that holds it.
    pub schema: Box<str>,
    /// Its own name.
    pub name: Box<str>,
}

impl TableName {
    /// Both parts, unquoted.
    pub fn new(schema: impl Into<Box<str>>, name: impl Into<Box<str>>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// One published column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name at the source.
    pub name: Box<str>,
    /// `pg_attribute.attnum`, which survives a rename; 0 where it is not known.
    pub attnum: i16,
    /// The oid of its type.
    pub type_oid: u32,
    /// The type's modifier, -1 where there is none.
    pub modifier: i32,
    /// The type as SQL writes it, such as `numeric(18,4)`.
    pub type_name: Box<str>,
    /// What its values are.
    pub kind: Kind,
    /// Whether it can hold nulls.
    pub nullable: bool,
    /// What rows have in it that were written before it was added, as text; `None` is null (`attmissingval`).
    #[serde(default)]
    pub fill: Option<Box<str>>,
}

/// How Postgres identifies the row that an update or delete is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaIdentity {
    /// By the primary key, where there is one.
    Default,
    /// By the columns of a unique index.
    Index,
    /// By all columns.
    Full,
    /// Not at all: Postgres refuses updates and deletes.
    Nothing,
}

/// The published shape of a table from a position on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// The table.
    pub id: TableId,
    /// Its name from `since` on, as destinations see it.
    pub name: TableName,
    /// Its name at the source, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_name: Option<TableName>,
    /// The published columns, in the order in which rows carry them.
    pub columns: Box<[Column]>,
    /// The places in `columns` of the key, in key order (`SOURCE.md` R8); empty without a key.
    pub key: Box<[u16]>,
    /// What old images hold.
    pub identity: ReplicaIdentity,
    /// The first position with this shape.
    pub since: Position,
    /// The highest `attnum` that a column of the table ever had (`pg_class.relnatts`); 0 where it is not known.
    #[serde(default)]
    pub last_attnum: i16,
}

impl TableSchema {
    /// The key's columns, in key order.
    pub fn key_columns(&self) -> impl ExactSizeIterator<Item = &Column> {
        self.key.iter().map(|place| &self.columns[usize::from(*place)])
    }

    /// Its name at the source.
    pub fn source_name(&self) -> &TableName {
        self.source_name.as_ref().unwrap_or(&self.name)
    }

    /// Whether rows can be told apart by a key.
    pub fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    /// The place of the column with this name.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| &*column.name == name)
    }
}

impl EtlError {
    /// Says that this table failed, and it alone: the pipeline puts it into quarantine and goes on with the others.
    #[must_use]
    pub fn of_table(self, table: TableId) -> Self {
        self.with_oid(table.0)
    }

    /// The table that failed alone, where the error is about one.
    pub fn table(&self) -> Option<TableId> {
        self.oid().map(TableId)
    }
}
