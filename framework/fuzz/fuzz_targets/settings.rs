//! Any bytes as a file of settings.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::settings(bytes));
