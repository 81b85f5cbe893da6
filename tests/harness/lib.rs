//! What do the tests stand on? Servers, workloads, a bad network, kills, and comparisons that do not use our own code.

pub mod change_log;
pub mod clickhouse;
pub mod compare;
pub mod contract;
pub mod disk;
pub mod duckdb;
pub mod duckdb_text;
pub mod every_type;
pub mod kill;
pub mod lines;
pub mod parquet;
pub mod postgres;
pub mod proxy;
pub mod s3;
pub mod seed;
pub mod skip;
pub mod ssh_password;
pub mod sshd;
pub mod workload;
