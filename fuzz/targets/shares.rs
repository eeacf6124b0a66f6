//! Any bytes as the history of shared budgets.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receptor_quic::fuzzing::shares(bytes));
