//! Where can the engine write to? The destinations, one cargo feature each, and what they have in common.

pub mod duckdb;
pub mod null;
pub mod registry;
pub mod write_mode;
