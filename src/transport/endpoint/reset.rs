//! Stateless resets that survive a restart.
//!
//! A peer of the previous process keeps sending until it times out, unless it learns that its
//! connection is gone. A stateless reset of QUIC does that at once if the key of the reset tokens
//! outlives the process: it is derived from the node's private key.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::ConnectionId;
use quinn::crypto::{CryptoError, HmacKey};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::tls13::{Hkdf, OkmBlock};
use zeroize::Zeroizing;

use crate::transport::crypto::provider;
use crate::transport::identity::Identity;

impl Identity {
    /// The key that stateless reset tokens are made with. The same after a restart with the same
    /// key file.
    pub(crate) fn reset_key(&self) -> [u8; 32] {
        self.derive_secret("receptor-quic stateless reset 1")
    }
}

/// quinn's defaults, with resets that outlive the process.
///
/// quinn's own connection ids are signed with a key of the process, and packets with others are
/// dropped without a word. Plain random ones are used instead, so that packets for the process
/// before are answered; quinn limits how often.
pub(crate) fn endpoint_config(identity: &Identity) -> (quinn::EndpointConfig, Arc<ResetKey>) {
    let key = Arc::new(ResetKey::new(identity));
    let mut config = quinn::EndpointConfig::new(key.clone());
    config.cid_generator(|| Box::new(RandomConnectionIds));
    (config, key)
}

/// HMAC-SHA256, as the TLS provider has it, with a key that follows the node's identity.
///
/// The process after this one derives its key from the key file that it finds. The tokens of
/// connections that begin after a reload are made with the new key for that reason. Connections
/// from before it keep the tokens that their peers know; after a restart these peers notice by
/// their idle timeout, or by the new process's link.
pub(crate) struct ResetKey(ArcSwap<Zeroizing<[u8; 32]>>);

impl ResetKey {
    fn new(identity: &Identity) -> Self {
        Self(ArcSwap::from_pointee(Zeroizing::new(identity.reset_key())))
    }

    /// Makes tokens with the key of this identity from now on.
    pub(crate) fn renew(&self, identity: &Identity) {
        self.0.store(Arc::new(Zeroizing::new(identity.reset_key())));
    }

    fn tag(&self, data: &[u8]) -> rustls::crypto::hmac::Tag {
        let hkdf: &dyn Hkdf =
            TLS13_AES_128_GCM_SHA256.tls13().expect("it is a suite of TLS 1.3").hkdf_provider;
        hkdf.hmac_sign(&OkmBlock::new(&self.0.load()[..]), data)
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(self.tag(data).as_ref());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let tag = self.tag(data);
        // Compares every byte, so that the time taken reveals nothing.
        let difference = tag.as_ref().iter().zip(signature).fold(0, |sum, (a, b)| sum | (a ^ b));
        if signature.len() == tag.as_ref().len() && difference == 0 {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

/// Connection ids of 8 random bytes.
struct RandomConnectionIds;

impl RandomConnectionIds {
    const LEN: usize = 8;
}

impl quinn::ConnectionIdGenerator for RandomConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; Self::LEN];
        provider()
            .secure_random
            .fill(&mut bytes)
            .expect("the system gave randomness for the handshake");
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        Self::LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::testdata::identity;

    #[test]
    fn the_key_depends_on_the_private_key_alone() {
        assert_eq!(identity("uri").reset_key(), identity("uri").reset_key());
        assert_ne!(identity("uri").reset_key(), identity("dns").reset_key());
    }

    #[test]
    fn a_reload_makes_tokens_with_the_key_that_the_next_process_will_have() {
        let (_, key) = endpoint_config(&identity("uri"));
        let (_, next) = endpoint_config(&identity("dns"));
        let sign = |key: &ResetKey| {
            let mut tag = [0; 32];
            key.sign(b"connection id", &mut tag);
            tag
        };
        assert_ne!(sign(&key), sign(&next));
        key.renew(&identity("dns"));
        assert_eq!(sign(&key), sign(&next));
    }

    #[test]
    fn tags_are_hmac_sha256() {
        // RFC 4231, test case 1, whose key is zero-padded to 32 bytes: HMAC pads with zeros as
        // well.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let key = ResetKey(ArcSwap::from_pointee(Zeroizing::new(key)));
        let mut tag = [0; 32];
        key.sign(b"Hi There", &mut tag);
        assert_eq!(tag[..8], [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53]);
        assert!(key.verify(b"Hi There", &tag).is_ok());
        assert!(key.verify(b"Hi there", &tag).is_err());
        assert!(key.verify(b"Hi There", &tag[..31]).is_err());
    }
}
