//! Does any binary copy data do harm?
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| etl_fuzz::copy_binary::attack(bytes));
