//! HMAC-SHA256 (RFC 2104).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

pub(crate) fn hmac(key: &[u8; 32], data: &[u8]) -> [u8; 32] {
    state(key, data).finalize().into_bytes().into()
}

/// Whether `tag` is the truncated MAC of the data, in constant time.
pub(crate) fn verify(key: &[u8; 32], data: &[u8], tag: &[u8; 16]) -> bool {
    state(key, data).verify_truncated_left(tag).is_ok()
}

fn state(key: &[u8; 32], data: &[u8]) -> Hmac<Sha256> {
    let mut state = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    state.update(data);
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_hmac_sha256() {
        // printf abc | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b0b…0b (32 bytes)
        let tag = hmac(&[0x0b; 32], b"abc");
        assert!(verify(&[0x0b; 32], b"abc", tag.first_chunk().unwrap()));
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "cc2b6e43b092526c09f6b2db76c7dc2867ebfdf7d1b170f2d8f73a3894792e12");
    }

    #[test]
    fn another_key_or_another_tag_is_wrong() {
        let mut tag = *hmac(&[1; 32], b"abc").first_chunk().unwrap();
        assert!(!verify(&[2; 32], b"abc", &tag));
        tag[15] ^= 1;
        assert!(!verify(&[1; 32], b"abc", &tag));
    }
}
