//! What happens to a table, and when? States, workers, batches and their control.

mod apply;
mod apply_state;
mod backlog;
mod batch;
mod board;
mod builder;
mod control;
mod copy_ledger;
mod copy_workers;
mod data_dir;
mod intake;
mod memory_budget;
mod offline;
mod pace;
mod prepared;
mod progress;
mod receive;
mod repair;
mod report;
mod run;
mod running;
mod settings;
mod start;
mod status;
mod table;
mod table_copy;
mod table_state;
mod tables;

pub use builder::{Pipeline, PipelineBuilder};
pub use control::PipelineHandle;
pub use data_dir::check_data_dir;
pub use offline::resync_next_time;
pub use running::{Finished, RunningPipeline};
pub use settings::{Ack, BatchSettings, CopySettings, Settings};
pub use status::{ErrorStatus, MemoryUse, PipelineStatus, RelayUse, TableStatus};
