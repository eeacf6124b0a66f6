//! Randomness from the operating system, through the TLS provider.

use rustls::crypto::ring;

/// Sixty-four random bits.
pub(crate) fn bits() -> u64 {
    u64::from_ne_bytes(bytes())
}

/// Eight random bytes.
pub(crate) fn bytes() -> [u8; 8] {
    let mut bytes = [0; 8];
    ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("a system without randomness cannot make keys either");
    bytes
}
