//! Any bytes, as the history of a small mesh. The code is that of the tests.

#![no_main]

#[path = "../../tests/router/fuzzed/drained.rs"]
mod drained;
#[path = "../../tests/router/fuzzed/ops.rs"]
mod ops;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ops::run(bytes));
