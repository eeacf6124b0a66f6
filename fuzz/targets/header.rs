//! Any bytes as a switched packet.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::header(bytes));
