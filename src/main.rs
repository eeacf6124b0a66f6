//! The `receptor` binary.

fn main() {}
