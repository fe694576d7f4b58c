//! Any bytes as a snapshot that a shard is taken over from.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::take_overs(bytes));
