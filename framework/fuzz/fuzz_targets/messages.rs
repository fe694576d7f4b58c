//! Any bytes as a message, in JSON and in protobuf.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::messages(bytes));
