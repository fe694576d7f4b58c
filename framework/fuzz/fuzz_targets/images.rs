//! Any bytes as the state of a shard in a snapshot.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::images(bytes));
