//! Any bytes as a frame of units.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::unit(bytes));
