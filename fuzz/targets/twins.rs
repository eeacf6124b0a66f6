//! Any bytes, as the history of two processes with one id. The code is that of the tests.

#![no_main]

#[path = "../../tests/router/fuzzed/drained.rs"]
mod drained;
#[path = "../../tests/router/fuzzed/twins.rs"]
mod twins;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| twins::run(bytes));
