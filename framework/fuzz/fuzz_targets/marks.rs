//! Any bytes as the mark of the egresses.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::marks(bytes));
