//! Where can the engine write to? The destinations, one cargo feature each, and what they have in common.

mod blame;
#[cfg(feature = "bulk")]
pub mod bulk;
pub mod change_set;
pub mod clickhouse;
#[cfg(feature = "columnar")]
pub mod columnar;
pub mod compacted;
pub mod dead_rows;
pub mod duckdb;
pub mod fault;
pub mod file;
#[cfg(feature = "http")]
mod http;
mod kept_shape;
pub mod log;
#[cfg(any(feature = "bulk", feature = "clickhouse", feature = "file", feature = "parquet"))]
mod made_up;
pub mod metadata_columns;
pub mod null;
pub mod parquet;
mod plan;
pub mod postgres;
pub mod profile;
pub mod registry;
mod row_image;
#[cfg(feature = "rowwise")]
pub mod rowwise;
pub mod sftp;
#[cfg(feature = "object-storage")]
pub mod storage;
pub mod table_destination;
pub mod table_name;
pub mod table_rules;
mod target_tables;
pub mod write_mode;
pub mod writer;
