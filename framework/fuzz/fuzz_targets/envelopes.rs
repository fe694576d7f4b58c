//! Any bytes as the envelope of a message.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::envelopes(bytes));
