//! How do one file and the environment become a pipeline that can start?

mod app;
mod checks;
mod connect;
mod desk;
mod environment;
mod leftovers;
mod libpq;
mod load;
mod problems;
mod reader;
mod sample;
mod secrets;
mod spelling;
mod table_entry;
mod tree;

pub use app::{
    AppConfig, Format, Http, Level, Log, NoKeys, PipelineConfig, PostgresConfig, PostgresStoreConfig, StoreConfig,
    Telemetry, Traces,
};
pub use desk::{Desk, DeskRequest};
pub use environment::Environment;
pub use problems::{Problem, Problems};
pub use sample::sample;
pub use table_entry::TableEntry;
