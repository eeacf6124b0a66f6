//! The proof that a stub is attached to the node that lists it: signed by the stub, kept by the
//! node, sent on request.

use bytes::Bytes;
use serde::de::SeqAccess;

use crate::id::{NodeId, Version};
use crate::router::proof::signature::{CredentialName, Distrust, Proof};
use crate::router::record::compact::{self, DecodeError, Fields, Tolerant};

/// A stub's signed statement that it is attached to a node, with the credential that the signature
/// is verified with.
///
/// The statement travels as the bytes that were signed: the MessagePack array
/// `[stub, neighbour, epoch, sequence, instance, expires]`. Further fields are skipped and covered
/// by the signature, so that later versions can let nodes without a record of their own say more
/// about themselves.
///
/// Of two statements of one stub the one with the larger version holds. Equal versions hold both: a
/// stub may be attached to several nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    stub: NodeId,
    neighbour: NodeId,
    version: Version,
    expires: u64,
    body: Bytes,
    signature: Bytes,
    credential: Bytes,
}

/// What a [`Notary`](crate::router::Notary) found about an [`Attachment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachmentVerdict {
    /// The stub has signed it.
    Valid {
        /// For how long it holds from now on.
        remaining: std::time::Duration,
    },
    /// The stub has not signed it.
    Forged,
    /// This node does not trust the credential; others may.
    Untrusted(Distrust),
    /// Its time is over.
    Expired,
}

impl Attachment {
    /// Maximum length of the signed statement, in bytes. Two ids of 128 bytes and the numbers take
    /// 320.
    pub const MAX_BODY: usize = 1_024;

    /// The statement to sign. `expires` is in seconds since 1970.
    #[must_use]
    pub fn body(stub: &NodeId, neighbour: &NodeId, version: Version, expires: u64) -> Bytes {
        let Version { epoch, sequence, instance } = version;
        compact::encode(&(stub.as_str(), neighbour.as_str(), epoch, sequence, instance, expires))
            .into()
    }

    /// Reads a statement that was signed. The signature is not verified; a
    /// [`Notary`](crate::router::Notary) does that.
    ///
    /// # Errors
    /// The bytes are not a statement, or a part exceeds its maximum length.
    pub fn decode(body: Bytes, signature: Bytes, credential: Bytes) -> Result<Self, DecodeError> {
        let lengths = [
            (body.len(), Self::MAX_BODY),
            (signature.len(), Proof::MAX_SIGNATURE),
            (credential.len(), Proof::MAX_CREDENTIAL),
        ];
        if let Some((len, max)) = lengths.into_iter().find(|(len, max)| len > max) {
            return Err(DecodeError::TooLong { len, max });
        }
        let Body { stub, neighbour, version, expires } = compact::decode(&body)?;
        Ok(Self { stub, neighbour, version, expires, body, signature, credential })
    }

    /// The stub that has signed.
    #[must_use]
    pub fn stub(&self) -> &NodeId {
        &self.stub
    }

    /// The node that it is attached to.
    #[must_use]
    pub fn neighbour(&self) -> &NodeId {
        &self.neighbour
    }

    /// Orders the statements of one stub.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// When the statement ends, in seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// The bytes that were signed.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The signature; its form is the notary's business.
    #[must_use]
    pub fn signature(&self) -> &Bytes {
        &self.signature
    }

    /// What the signature is verified with.
    #[must_use]
    pub fn credential(&self) -> &Bytes {
        &self.credential
    }

    /// Bytes of all three parts.
    pub(crate) fn len(&self) -> usize {
        self.body.len() + self.signature.len() + self.credential.len()
    }

    /// The name of the credential.
    #[must_use]
    pub fn credential_name(&self) -> CredentialName {
        CredentialName::of(&self.credential)
    }
}

struct Body {
    stub: NodeId,
    neighbour: NodeId,
    version: Version,
    expires: u64,
}

impl<'de> Tolerant<'de> for Body {
    const NAME: &'static str = "an attachment";

    fn read<A: SeqAccess<'de>>(mut fields: Fields<A>) -> Result<Self, A::Error> {
        let (stub, neighbour) = (fields.next("stub")?, fields.next("neighbour")?);
        let (version, expires) = (fields.version()?, fields.next("expires")?);
        fields.finish()?;
        Ok(Self { stub, neighbour, version, expires })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version { epoch: 1, sequence: 2, instance: 3 };

    fn id(text: &str) -> NodeId {
        text.parse().expect("an id")
    }

    fn body() -> Bytes {
        Attachment::body(&id("laptop~x1"), &id("relay-1"), VERSION, 1_767_225_600)
    }

    #[test]
    fn a_statement_survives_the_wire() {
        let (signature, credential) =
            (Bytes::from_static(b"signature"), Bytes::from_static(b"credential"));
        let read = Attachment::decode(body(), signature, credential).unwrap();
        assert_eq!((read.stub(), read.neighbour()), (&id("laptop~x1"), &id("relay-1")));
        assert_eq!((read.version(), read.expires()), (VERSION, 1_767_225_600));
        assert_eq!(read.bytes(), &body());
    }

    #[test]
    fn later_fields_are_skipped_and_stay_in_the_signed_bytes() {
        let bytes: Bytes = compact::encode(&("s", "n", 1_u64, 2_u64, 3_u64, 4_u64, "later")).into();
        let read = Attachment::decode(bytes.clone(), Bytes::new(), Bytes::new()).unwrap();
        assert_eq!((read.bytes(), read.expires()), (&bytes, 4));
    }

    #[test]
    fn what_is_cut_or_too_long_is_refused() {
        for len in 0..body().len() {
            assert!(
                Attachment::decode(body().slice(..len), Bytes::new(), Bytes::new()).is_err(),
                "{len}"
            );
        }
        let long = Bytes::from(vec![0; Proof::MAX_CREDENTIAL + 1]);
        for (body, signature, credential) in [
            (long.clone(), Bytes::new(), Bytes::new()),
            (body(), long.clone(), Bytes::new()),
            (body(), Bytes::new(), long),
        ] {
            let read = Attachment::decode(body, signature, credential);
            assert!(matches!(read, Err(DecodeError::TooLong { .. })));
        }
    }
}
