//! The hot paths by themselves: counted by callgrind (the program), and timed by criterion (the bench).

pub mod paths;
mod rows;

pub use rows::ROWS;
