//! What does a table have besides its columns and its key? Indexes, defaults and identity columns, by a destination's names.

/// What a destination can make once a table's rows are there: nothing that arrives depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableExtras {
    /// Its indexes but the one of its key, by name.
    pub indexes: Vec<Index>,
    /// Columns with their defaults as the source writes them, every name with its schema.
    pub defaults: Vec<(Box<str>, Box<str>)>,
    /// Columns that take their values from a sequence of their own: `GENERATED ... AS IDENTITY`, `serial`.
    pub identity: Vec<Box<str>>,
    /// What it has besides, and why that is not said here.
    pub left_out: Vec<String>,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Index {
    /// Its name.
    pub name: Box<str>,
    /// What follows the table's name in `CREATE INDEX`: `USING btree (a, lower(b)) WHERE c`.
    pub definition: Box<str>,
    /// Whether no two rows are equal by it.
    pub is_unique: bool,
    /// Whether that can be a constraint which is looked at when a transaction ends: there is neither expression nor
    /// condition, and the source looks at once, so that what it sends never breaks it.
    pub can_be_deferred: bool,
}
