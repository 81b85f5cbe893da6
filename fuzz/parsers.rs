//! Which parsers read bytes from outside? Each is attacked by a fuzz target, and for some seconds by the tests.

pub mod copy_binary;
pub mod copy_text;
pub mod limits;
pub mod pgoutput;
pub mod schema;
pub mod values;
