//! Where does a throwaway Postgres come from, and how is it started, stopped and crashed?
//!
//! Server binaries come from the first that serves: a directory that was named, local server binaries, the
//! distribution's package, the npm package. Where none of them serves, the feature `containers` has a server in a
//! container. Every server has its own data directory, socket directory and port on 127.0.0.1, and vanishes with its
//! value, even when this process is killed.

mod account;
mod binaries;
mod builder;
mod certificate;
mod cluster;
#[cfg(feature = "containers")]
mod container;
mod error;
mod guard;
mod install;
mod places;
mod server;
mod session;
mod standby;

pub use builder::Builder;
#[cfg(feature = "containers")]
pub use container::ContainerPostgres;
pub use error::Error;
pub use server::{LocalPostgres, Shutdown};
