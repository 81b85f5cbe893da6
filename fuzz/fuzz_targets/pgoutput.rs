//! Does any message of pgoutput do harm?
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| etl_fuzz::pgoutput::attack(bytes));
