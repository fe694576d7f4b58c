//! Any bytes as a file of records behind their lengths.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::protobuf(bytes));
