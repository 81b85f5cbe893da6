//! Where does a throwaway Postgres come from, and how is it started, stopped and crashed?
//!
//! Server binaries come from the first that serves: a directory that was named, local server binaries, the
//! distribution's package, the npm package. Every server has
//! its own data directory, socket directory and port on 127.0.0.1, and vanishes with its value, even when this
//! process is killed.

mod account;
mod binaries;
mod builder;
mod certificate;
mod cluster;
mod error;
mod guard;
mod install;
mod places;
mod server;
mod session;

pub use builder::Builder;
pub use error::Error;
pub use server::{LocalPostgres, Shutdown};
