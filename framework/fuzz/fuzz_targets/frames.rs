//! Any bytes as a record of a journal.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::frames(bytes));
