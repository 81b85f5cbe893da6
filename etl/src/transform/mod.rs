//! What of the source is passed on, and under which names? Choices that hold for copies, changes, old rows and keys.

mod rule;
mod selection;

pub use rule::{ColumnChoice, TableRename, Transform, TransformRule};
pub(crate) use selection::Selection;
