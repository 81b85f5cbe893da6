//! How fast is everything else? A destination that makes Arrow of what it gets and drops it.

mod config;
#[cfg(feature = "null")]
mod writer;

pub use config::NullConfig;
#[cfg(feature = "null")]
pub use writer::Null;
