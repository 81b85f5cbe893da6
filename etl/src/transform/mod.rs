//! What of the source is passed on, and under which names? Choices that hold for copies, changes, old rows and keys.

mod column_type;
mod filter;
mod mask;
mod on_value;
mod pass;
mod rule;
mod selection;

pub use column_type::ColumnType;
pub use mask::Mask;
pub use on_value::OnValue;
pub(crate) use pass::Pass;
pub use rule::{ColumnChoice, TableRename, Transform, TransformRule};
pub(crate) use selection::{Forecast, Selection};
