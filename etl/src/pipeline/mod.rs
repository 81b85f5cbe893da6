//! What happens to a table, and when? States, workers, batches and their control.

mod settings;
mod status;

pub use settings::{Ack, BatchSettings, CopySettings, Settings};
pub use status::{PipelineStatus, TableStatus};
