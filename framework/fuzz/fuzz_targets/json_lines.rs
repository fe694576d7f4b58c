//! Any bytes as a file of lines of JSON.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::json_lines(bytes));
