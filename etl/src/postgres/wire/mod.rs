//! How do bytes travel between us and the server? Frames, sessions, copies, the replication stream.

mod coalesced_reads;
mod connection;
mod copy_out;
mod frame;
mod hosts;
mod low_water;
mod replication;
mod server_error;
mod settings;
mod socket;
mod startup;
mod tls;

pub use connection::{Connection, Row};
pub use copy_out::CopyOut;
pub use replication::{ReplicationFrame, ReplicationStream, StreamReader, StreamWriter, replication_frames};
pub use server_error::query_error;

pub(crate) use connection::parse_version;
pub(crate) use hosts::first_fit;
pub(crate) use settings::{TRANSACTION_TIMEOUT, as_options};
pub(crate) use socket::Socket;
pub(crate) use tls::explained;
