//! Any bytes as a frame of a call.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::work(bytes));
