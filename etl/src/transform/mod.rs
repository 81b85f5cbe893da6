//! What of the source is passed on, and under which names? Choices that hold for copies, changes, old rows and keys.

mod filter;
mod mask;
mod pass;
mod rule;
mod selection;

pub use mask::Mask;
pub(crate) use pass::Pass;
pub use rule::{ColumnChoice, TableRename, Transform, TransformRule};
pub(crate) use selection::Selection;
