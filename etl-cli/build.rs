//! How do the executables of this package find libduckdb?

#[path = "../etl-destinations/build/libduckdb.rs"]
mod libduckdb;

fn main() {
    libduckdb::link();
}
