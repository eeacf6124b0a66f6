//! Any bytes as a frame of the control stream.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::frames(bytes));
