//! Is what stands in place of a value that does not fit one that does, and a converted value one of its kind?
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| etl_fuzz::limits::attack(bytes));
