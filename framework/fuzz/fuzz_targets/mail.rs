//! Any bytes as a record of a mailbox.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| statefn::fuzzing::mail(bytes));
