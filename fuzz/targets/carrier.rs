//! Any bytes as the stream of a carrier.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::carrier(bytes));
