//! Where can the engine write to? The destinations, one cargo feature each, and what they have in common.

mod blame;
pub mod change_set;
#[cfg(feature = "columnar")]
pub mod columnar;
pub mod duckdb;
pub mod file;
mod kept_shape;
pub mod log;
pub mod metadata_columns;
pub mod null;
mod plan;
pub mod postgres;
pub mod registry;
#[cfg(feature = "rowwise")]
pub mod rowwise;
pub mod table_destination;
pub mod table_name;
pub mod table_rules;
mod target_tables;
pub mod value_policy;
pub mod write_mode;
pub mod writer;
