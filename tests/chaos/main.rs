//! Does the destination equal the source when everything that can be killed is killed, at times drawn from a seed?

mod faults;
mod files;
mod pgbench;
mod site;
mod workload;
