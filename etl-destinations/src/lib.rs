//! Where can the engine write to? The destinations, one cargo feature each, and what they have in common.

pub mod duckdb;
pub mod metadata_columns;
pub mod null;
pub mod registry;
pub mod table_destination;
pub mod table_name;
pub mod table_rules;
pub mod value_policy;
pub mod write_mode;
pub mod writer;
