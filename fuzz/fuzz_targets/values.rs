//! Does any value do harm, and does what is accepted survive a round trip?
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| etl_fuzz::values::attack(bytes));
