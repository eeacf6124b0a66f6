//! Any bytes, decoded. The code is that of the tests.

#![no_main]

#[path = "../../tests/router/fuzzed/decode.rs"]
mod decode;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decode::run(bytes));
