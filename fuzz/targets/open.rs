//! Any bytes as the first bytes of a stream.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::open(bytes));
