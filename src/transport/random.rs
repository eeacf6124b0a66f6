//! Randomness from the operating system, through the TLS provider.

use rustls::crypto::ring;

/// Sixty-four random bits.
pub(crate) fn bits() -> u64 {
    u64::from_ne_bytes(bytes())
}

/// Random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("a system without randomness cannot make keys either");
    bytes
}
