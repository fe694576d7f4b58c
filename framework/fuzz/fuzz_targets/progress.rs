//! Any bytes as a record of the partition of progress.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::progress(bytes));
