//! Does any copy data in text form do harm?
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| etl_fuzz::copy_text::attack(bytes));
