//! How do rows get to a server that takes files over SSH? As files that appear whole, in an order that their names tell.
//!
//! A batch is a file. Its path comes from the operation, so that handing a batch over again ends with the same file; it is
//! written under another name, made durable, and gets its own in one step. The server is known by its key, always.

#[cfg(feature = "sftp")]
mod client;
mod config;
#[cfg(feature = "sftp")]
mod encoding;
#[cfg(feature = "sftp")]
mod error;
#[cfg(feature = "sftp")]
mod file_stream;
#[cfg(feature = "sftp")]
mod host_key;
#[cfg(feature = "sftp")]
mod login;
// A template is checked whatever is compiled in, and filled in by the destination alone.
#[cfg_attr(not(feature = "sftp"), allow(dead_code, reason = "nobody fills it in"))]
mod path_template;
#[cfg(feature = "sftp")]
mod probe;
#[cfg(feature = "sftp")]
mod session;
#[cfg(feature = "sftp")]
mod staging;
#[cfg(feature = "sftp")]
mod sweep;
#[cfg(feature = "sftp")]
mod upload;
#[cfg(feature = "sftp")]
mod writer;

pub use config::{Home, OnTruncate, SftpConfig, SftpFormat};
#[cfg(feature = "sftp")]
pub use writer::Sftp;
