//! How does one talk to Postgres? The protocol and its formats, without any policy.

pub mod copy_binary;
pub mod copy_text;
mod feedback;
mod options;
pub mod pgoutput;
mod quote;
mod scan;
mod session;
mod wire;

pub use feedback::Reporter;
pub use options::{ChannelBinding, ConnectOptions, Host, KeepaliveOptions, TargetSession, TlsMode, TlsOptions};
pub use quote::{quote_ident, quote_literal};
pub use session::Session;
pub use wire::{
    Connection, CopyOut, ReplicationFrame, ReplicationStream, Row, StreamReader, StreamWriter, query_error,
    replication_frames,
};
