//! How is the stream watched? One line of the process's log a change, with as much of its values as is allowed.

mod config;
#[cfg(feature = "log")]
mod writer;

pub use config::{LogConfig, Shown};
#[cfg(feature = "log")]
pub use writer::Log;
