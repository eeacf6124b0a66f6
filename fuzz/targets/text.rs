//! Any bytes as a text of another node.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::text(bytes));
