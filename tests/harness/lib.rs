//! What do the tests stand on? Servers, workloads, a bad network, kills, and comparisons that do not use our own code.

pub mod change_log;
pub mod compare;
pub mod disk;
pub mod duckdb;
pub mod every_type;
pub mod kill;
pub mod lines;
pub mod postgres;
pub mod proxy;
pub mod seed;
pub mod skip;
pub mod workload;
