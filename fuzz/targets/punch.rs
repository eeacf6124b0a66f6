//! Any bytes, as messages about direct paths and as probes. The code is that of the tests.

#![no_main]

#[path = "../../tests/punch/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzed::run(bytes));
