//! How are objects reached, in a directory or in a bucket? Put, put where there is none, read, listed, deleted.

mod error;
mod location;
mod objects;

pub use location::{Location, StoreOptions};
pub use objects::unnamed_file;
