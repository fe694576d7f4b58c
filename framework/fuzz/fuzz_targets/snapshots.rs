//! Any bytes as a file of a snapshot.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::snapshots(bytes));
