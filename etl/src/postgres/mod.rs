//! How does one talk to Postgres? The protocol and its formats, without any policy.

pub mod copy_binary;
pub mod copy_text;
pub mod pgoutput;
mod scan;
