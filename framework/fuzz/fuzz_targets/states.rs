//! Any bytes as the state of a key.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::states(bytes));
