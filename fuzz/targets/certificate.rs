//! Any bytes as a certificate chain.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::certificate(bytes));
