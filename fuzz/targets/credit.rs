//! Any bytes as the history of streams and their credit.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::credit(bytes));
