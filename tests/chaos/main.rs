//! Does the destination equal the source when everything that can be killed is killed, at times drawn from a seed?

mod altered;
mod big_copy;
mod change_logs;
mod disk;
mod failover;
mod faults;
mod into_clickhouse;
mod into_postgres;
mod into_sftp;
mod large;
mod later;
mod leader;
mod mixed;
mod modes;
mod pgbench;
mod prepared;
mod published;
mod schedule;
mod site;
mod storm;
mod workload;
