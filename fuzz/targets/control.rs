//! Any bytes as what goes over the control socket.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::control(bytes));
