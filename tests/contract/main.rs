//! Do the servers of `harness::contract` hold a client to the vendors' documents? Shown by requests that are written by hand.

mod eloqua;
mod faults;
mod klaviyo;
mod lytics;
