//! Any bytes as a whole journal.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::journals(bytes));
