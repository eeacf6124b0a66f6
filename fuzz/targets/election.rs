//! Any bytes as the history of a node's links.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::election(bytes));
