//! How do changes become files? A log of rows a table, in pieces that are complete once they have their name.
//!
//! Rows are appended to a part file, and what is durable of it stands in a journal, together with the positions that
//! it covers. What is beyond the journal after a crash is cut off: no row is lost, and none is there twice. A part gets
//! its final name once it is large or old enough; only files with their final name are meant to be read.

mod config;
#[cfg(feature = "file")]
mod directory;
#[cfg(feature = "file")]
mod encoding;
#[cfg(feature = "file")]
mod error;
#[cfg(feature = "file")]
mod journal;
#[cfg(feature = "file")]
mod kept_back;
#[cfg(feature = "file")]
mod part;
#[cfg(feature = "file")]
mod staging;
#[cfg(feature = "file")]
mod state;
#[cfg(feature = "file")]
mod writer;

pub use config::{FileConfig, FileFormat};
#[cfg(feature = "file")]
pub use writer::Files;
