//! Does the destination equal the source when everything that can be killed is killed, at times drawn from a seed?

mod altered;
mod big_copy;
mod disk;
mod failover;
mod faults;
mod files;
mod large;
mod pgbench;
mod prepared;
mod schedule;
mod site;
mod storm;
mod workload;
