//! Any bytes as announced addresses.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::announcement(bytes));
