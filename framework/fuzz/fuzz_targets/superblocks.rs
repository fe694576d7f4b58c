//! Any bytes as a superblock of the log.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::superblocks(bytes));
