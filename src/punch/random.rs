//! Unpredictable numbers from a seed: the same seed gives the same ones.

use std::time::Duration;

use super::wire::mac;

/// HMAC-SHA256 of a counter under the seed: outputs do not reveal each other.
pub(crate) struct Random {
    seed: [u8; 32],
    drawn: u64,
}

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    pub(crate) fn key(&mut self) -> [u8; 32] {
        self.drawn += 1;
        mac::hmac(&self.seed, &self.drawn.to_be_bytes())
    }

    pub(crate) fn bytes(&mut self) -> [u8; 8] {
        *self.key().first_chunk().expect("8 of 32 bytes")
    }

    pub(crate) fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes())
    }

    /// Three to five quarters of the duration.
    pub(crate) fn around(&mut self, duration: Duration) -> Duration {
        let half = duration / 2;
        duration - half / 2 + half.mul_f64((self.number() >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

// The seed is a secret: it does not go into logs.
impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Random").field("drawn", &self.drawn).finish_non_exhaustive()
    }
}
