//! Any bytes as the files of an identity.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::identity(bytes));
