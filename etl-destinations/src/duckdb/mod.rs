//! What does a DuckDB file need to be told? Its settings; writing to one is not there yet.

mod config;

pub use config::DuckDbConfig;
