//! Any bytes as a datagram of a peer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::datagram(bytes));
