//! Do the reference pages say what the program does? They are made from the code, and tested against it.
//!
//! `make reference` writes the pages anew.

mod errors;
mod metrics;
mod options;
mod page;
mod structs;
