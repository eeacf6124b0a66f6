//! The messages between two neighbours, and their bytes.
//!
//! A frame, without the length that the transport puts before it, is the MessagePack array
//! `[type, field, …]`. Fields that follow the known ones are skipped, and so are frames of unknown
//! types.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess};
use serde::{Serialize, Serializer};

use crate::id::NodeId;
use crate::router::convergence::answer::Echo;
use crate::router::database::buckets::{BucketSet, Buckets};
use crate::router::proof::attachment::Attachment;
use crate::router::proof::signature::CredentialName;
use crate::router::record::Stamp;
use crate::router::record::advertisement::Advertisement;
use crate::router::record::compact::{self, DecodeError, Fields, Read, Tolerant};
use crate::router::record::delta::Delta;

/// The messages between two neighbours. Later versions add types.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// The sum of a set of records. The first message of a session, over the records that the
    /// sender offers; later, after a quiet time, over those that it can reach.
    Digest {
        /// The sum.
        digest: Digest,
        /// How many records it covers. Informative.
        count: u64,
    },
    /// The digests of what the sender offers, in buckets: asks for a summary of those that differ.
    Buckets(Buckets),
    /// What the sender offers of the origins after `after` up to the last entry, or up to the end
    /// if `last` is set. An origin in that range that is not listed is not offered.
    Summary {
        /// Where the range starts, exclusive; `None`: at the first origin.
        after: Option<NodeId>,
        /// Which copy of each origin's record the sender holds, ascending by origin.
        entries: Vec<Entry>,
        /// Whether the range goes to the end.
        last: bool,
        /// The buckets to which the range is limited; `None` without a limit.
        buckets: Option<BucketSet>,
    },
    /// A record, and its proof.
    Update(Advertisement),
    /// A record, as the change against the one before. The proof is that of the whole.
    Delta(Arc<Delta>),
    /// The sender holds these copies.
    Have(Vec<Entry>),
    /// The same, and the sender sends these copies only on request. On the wire it is a
    /// HAVE with a mark.
    Offer(Vec<Entry>),
    /// The sender asks for the records of these origins.
    Want(Vec<NodeId>),
    /// The sender was asked for the records of these origins and has none.
    Nack(Vec<NodeId>),
    /// All that are below the sender in an echo wave have answered.
    Echo(Echo),
    /// The sender has sent all that the difference of the databases asked for.
    SyncEnd,
    /// The digest of the records that the sender can reach, recomputed from their bytes, under a
    /// key of its own.
    Rekeyed {
        /// The key, another one each time.
        key: [u8; 16],
        /// The sum of what the key makes of each record.
        digest: Digest,
    },
    /// The sender asks for the credentials of these origins' records.
    CredentialWant(Vec<(NodeId, CredentialName)>),
    /// A credential that the receiver asked for.
    Credential {
        /// Whose it is.
        origin: NodeId,
        /// Which one was asked for.
        name: CredentialName,
        /// The credential; `None` if the sender does not have it.
        credential: Option<Bytes>,
    },
    /// The sender asks for the proofs that these stubs are attached to these nodes: stub, then
    /// neighbour.
    AttachmentWant(Vec<(NodeId, NodeId)>),
    /// A proof that the receiver asked for.
    Attachment {
        /// The stub.
        stub: NodeId,
        /// The node that lists it.
        neighbour: NodeId,
        /// The proof; `None` if the sender has none and could not get it.
        attachment: Option<Box<Attachment>>,
    },
}

/// Which copy of an origin's record the sender of a message holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose record.
    pub origin: NodeId,
    /// Which copy.
    pub stamp: Stamp,
}

/// The sum modulo 2^128 of the ids of a set of advertisements: equal sets have equal digests, in
/// any order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub u128);

impl Digest {
    /// The digest of the set with one more member.
    #[must_use]
    pub fn with(self, advertisement: &Advertisement) -> Self {
        Self(self.0.wrapping_add(advertisement.id().as_u128()))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

const DIGEST: u8 = 0x10;
const BUCKETS: u8 = 0x11;
const SUMMARY: u8 = 0x12;
const UPDATE: u8 = 0x13;
const DELTA: u8 = 0x14;
const HAVE: u8 = 0x15;
const WANT: u8 = 0x16;
const NACK: u8 = 0x17;
const ECHO: u8 = 0x18;
const SYNC_END: u8 = 0x19;
const REKEYED: u8 = 0x1e;
const ATTACHMENT_WANT: u8 = 0x1a;
const ATTACHMENT: u8 = 0x1b;
const CREDENTIAL_WANT: u8 = 0x1c;
const CREDENTIAL: u8 = 0x1d;

impl Message {
    /// The frame types that belong to ROUTE2. Those below are the link's own.
    pub const TYPES: RangeInclusive<u8> = 0x10..=0x3f;

    /// Entries that this version puts into one summary, HAVE, WANT or NACK at most.
    pub const MAX_ENTRIES: usize = 256;

    /// The longest frame of a type, in bytes. What is longer must not be read; close the session.
    ///
    /// Every bound leaves room for fields of later versions; unknown types may be as long as the
    /// longest known one.
    #[must_use]
    pub const fn max_len(frame_type: u8) -> usize {
        match frame_type {
            DIGEST | ECHO | REKEYED | SYNC_END => 1024,
            BUCKETS | HAVE | WANT | NACK | SUMMARY | CREDENTIAL_WANT | ATTACHMENT_WANT => 64 * 1024,
            CREDENTIAL | ATTACHMENT => 12 * 1024,
            _ => 72 * 1024,
        }
    }

    /// The type of the frame.
    #[must_use]
    pub const fn frame_type(&self) -> u8 {
        match self {
            Self::Digest { .. } => DIGEST,
            Self::Buckets(_) => BUCKETS,
            Self::Summary { .. } => SUMMARY,
            Self::Update(_) => UPDATE,
            Self::Have(_) | Self::Offer(_) => HAVE,
            Self::Delta(_) => DELTA,
            Self::Want(_) => WANT,
            Self::Nack(_) => NACK,
            Self::Echo(_) => ECHO,
            Self::SyncEnd => SYNC_END,
            Self::Rekeyed { .. } => REKEYED,
            Self::CredentialWant(_) => CREDENTIAL_WANT,
            Self::Credential { .. } => CREDENTIAL,
            Self::AttachmentWant(_) => ATTACHMENT_WANT,
            Self::Attachment { .. } => ATTACHMENT,
        }
    }

    /// The frame, without its length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let frame_type = self.frame_type();
        match self {
            Self::Digest { digest, count } => compact::encode(&(
                frame_type,
                serde_bytes::Bytes::new(&digest.0.to_be_bytes()),
                count,
            )),
            Self::Buckets(buckets) => {
                compact::encode(&(frame_type, serde_bytes::Bytes::new(&buckets.to_bytes())))
            }
            Self::Summary { after, entries, last, buckets: None } => {
                compact::encode(&(frame_type, after, entries, last))
            }
            Self::Summary { after, entries, last, buckets: Some(buckets) } => {
                let buckets = serde_bytes::Bytes::new(buckets.bytes());
                compact::encode(&(frame_type, after, entries, last, buckets))
            }
            Self::Update(advertisement) => {
                let (record, proof) = (advertisement.bytes(), advertisement.proof());
                let [record, proof] = [record, proof].map(|bytes| serde_bytes::Bytes::new(bytes));
                if proof.is_empty() {
                    compact::encode(&(frame_type, record))
                } else {
                    compact::encode(&(frame_type, record, proof))
                }
            }
            Self::Delta(delta) => delta.encode(frame_type),
            Self::Have(entries) => compact::encode(&(frame_type, entries)),
            Self::Offer(entries) => compact::encode(&(frame_type, entries, true)),
            Self::Want(origins) | Self::Nack(origins) => compact::encode(&(frame_type, origins)),
            Self::Echo(Echo { origin, version, count, sum }) => compact::encode(&(
                frame_type,
                origin,
                version.epoch,
                version.sequence,
                version.instance,
                count,
                sum,
            )),
            Self::SyncEnd => compact::encode(&(frame_type,)),
            Self::Rekeyed { key, digest } => {
                let digest = digest.0.to_be_bytes();
                compact::encode(&(
                    frame_type,
                    serde_bytes::Bytes::new(key),
                    serde_bytes::Bytes::new(&digest),
                ))
            }
            Self::CredentialWant(wanted) => compact::encode(&(frame_type, wanted)),
            Self::Credential { origin, name, credential } => {
                let credential = credential.as_ref().map(|bytes| serde_bytes::Bytes::new(bytes));
                compact::encode(&(frame_type, origin, name, credential))
            }
            Self::AttachmentWant(wanted) => compact::encode(&(frame_type, wanted)),
            Self::Attachment { stub, neighbour, attachment } => {
                let parts = attachment.as_ref().map(|attachment| {
                    let parts =
                        [attachment.bytes(), attachment.signature(), attachment.credential()];
                    parts.map(|bytes| serde_bytes::Bytes::new(bytes))
                });
                compact::encode(&(frame_type, stub, neighbour, parts))
            }
        }
    }

    /// Reads a frame, without its length. `Ok(None)`: a type that this version does not know; skip
    /// it.
    ///
    /// Total: any bytes give a message, a skip or an error, and what is allocated is bounded by
    /// their number. The record of an update is checked when the router takes it, unless it saw the
    /// same bytes before.
    ///
    /// # Errors
    /// The frame breaks the format: the sender's fault. Nothing was changed; close its session.
    pub fn decode(frame: &[u8]) -> Result<Option<Self>, DecodeError> {
        let max = Self::max_len(UPDATE);
        if frame.len() > max {
            return Err(DecodeError::TooLong { len: frame.len(), max });
        }
        let Frame(message) = compact::decode(frame)?;
        if let Some(message) = &message {
            message.check(frame.len())?;
        }
        Ok(message)
    }

    /// About how many bytes the frame takes. Used to size windows, where exactness does not matter.
    pub(crate) fn estimate(&self) -> usize {
        match self {
            Self::Digest { .. } => 28,
            Self::Buckets(buckets) => 8 + (3 << buckets.bits()),
            Self::Summary { entries, .. } | Self::Have(entries) | Self::Offer(entries) => {
                16 + entries.len() * 48
            }
            Self::Rekeyed { .. } => 38,
            Self::Update(advertisement) => {
                8 + advertisement.bytes().len() + advertisement.proof().len()
            }
            Self::Delta(delta) => delta.size(),
            Self::Want(origins) | Self::Nack(origins) => 8 + origins.len() * 24,
            Self::Echo(_) => 64,
            Self::SyncEnd => 2,
            Self::CredentialWant(wanted) => 8 + wanted.len() * 40,
            Self::Credential { credential, .. } => 48 + credential.as_ref().map_or(0, Bytes::len),
            Self::AttachmentWant(wanted) => 8 + wanted.len() * 40,
            Self::Attachment { attachment, .. } => {
                48 + attachment.as_ref().map_or(0, |proof| proof.len())
            }
        }
    }

    fn check(&self, len: usize) -> Result<(), DecodeError> {
        let max = Self::max_len(self.frame_type());
        if len > max {
            return Err(DecodeError::TooLong { len, max });
        }
        let Self::Summary { after, entries, last, .. } = self else { return Ok(()) };
        if !entries.is_sorted_by(|a, b| a.origin < b.origin) {
            return Err(DecodeError::Rule("a summary ascends by origin, each origin once"));
        }
        match (after, entries.first()) {
            (Some(after), Some(first)) if first.origin <= *after => {
                Err(DecodeError::Rule("a summary starts after where it says"))
            }
            (_, None) if !last => {
                Err(DecodeError::Rule("only the last part of a summary may be empty"))
            }
            _ => Ok(()),
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let version = self.stamp.version;
        (&self.origin, version.epoch, version.sequence, version.instance, self.stamp.check)
            .serialize(serializer)
    }
}

/// None: a type that this version does not know.
struct Frame(Option<Message>);

impl<'de> Tolerant<'de> for Frame {
    const NAME: &'static str = "a frame";

    fn read<A: SeqAccess<'de>>(mut fields: Fields<A>) -> Result<Self, A::Error> {
        let frame_type: u8 = fields.next("type")?;
        let message = match frame_type {
            DIGEST => {
                Some(Message::Digest { digest: digest(&mut fields)?, count: fields.next("count")? })
            }
            BUCKETS => Some(Message::Buckets(buckets(&mut fields)?)),
            SUMMARY => Some(Message::Summary {
                after: fields.next("after")?,
                entries: entries(&mut fields)?,
                last: fields.next("last")?,
                buckets: bucket_set(&mut fields)?,
            }),
            UPDATE => {
                let bytes: serde_bytes::ByteBuf = fields.next("record")?;
                let proof: serde_bytes::ByteBuf = fields.next_or_default()?;
                let advertisement = Advertisement::new(bytes.into_vec().into());
                Some(Message::Update(advertisement.with_proof(proof.into_vec().into())))
            }
            HAVE => {
                let entries = entries(&mut fields)?;
                let offered = fields.optional::<bool>()?.unwrap_or(false);
                Some(if offered { Message::Offer(entries) } else { Message::Have(entries) })
            }
            DELTA => Some(Message::Delta(Arc::new(Delta::read(&mut fields)?))),
            WANT => Some(Message::Want(fields.next("origins")?)),
            NACK => Some(Message::Nack(fields.next("origins")?)),
            ECHO => Some(Message::Echo(Echo {
                origin: fields.next("origin")?,
                version: fields.version()?,
                count: fields.next("count")?,
                sum: fields.next("sum")?,
            })),
            SYNC_END => Some(Message::SyncEnd),
            REKEYED => Some(Message::Rekeyed {
                key: sixteen(&mut fields, "key")?,
                digest: digest(&mut fields)?,
            }),
            CREDENTIAL_WANT => {
                let wanted: Vec<Read<WantedCredential>> = fields.next("wanted")?;
                Some(Message::CredentialWant(wanted.into_iter().map(|wanted| wanted.0.0).collect()))
            }
            CREDENTIAL => Some(Message::Credential {
                origin: fields.next("origin")?,
                name: fields.next("name")?,
                credential: fields
                    .next::<Option<serde_bytes::ByteBuf>>("credential")?
                    .map(|bytes| bytes.into_vec().into()),
            }),
            ATTACHMENT_WANT => {
                let wanted: Vec<Read<WantedAttachment>> = fields.next("wanted")?;
                Some(Message::AttachmentWant(wanted.into_iter().map(|wanted| wanted.0.0).collect()))
            }
            ATTACHMENT => Some(Message::Attachment {
                stub: fields.next("stub")?,
                neighbour: fields.next("neighbour")?,
                attachment: fields
                    .next::<Option<Read<AttachmentParts>>>("attachment")?
                    .map(|parts| parts.0.0),
            }),
            _ => None,
        };
        fields.finish()?;
        Ok(Self(message))
    }
}

fn digest<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Digest, A::Error> {
    sixteen(fields, "digest").map(|bytes| Digest(u128::from_be_bytes(bytes)))
}

fn sixteen<'de, A: SeqAccess<'de>>(
    fields: &mut Fields<A>,
    name: &'static str,
) -> Result<[u8; 16], A::Error> {
    let bytes: serde_bytes::ByteBuf = fields.next(name)?;
    <[u8; 16]>::try_from(bytes.as_slice()).map_err(|_| A::Error::invalid_length(bytes.len(), &"16"))
}

fn buckets<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Buckets, A::Error> {
    let bytes: serde_bytes::ByteBuf = fields.next("buckets")?;
    Buckets::from_bytes(&bytes).map_err(A::Error::custom)
}

fn bucket_set<'de, A: SeqAccess<'de>>(
    fields: &mut Fields<A>,
) -> Result<Option<BucketSet>, A::Error> {
    let bytes: Option<serde_bytes::ByteBuf> = fields.optional()?;
    bytes.map(|bytes| BucketSet::from_bytes(&bytes).map_err(A::Error::custom)).transpose()
}

fn entries<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Vec<Entry>, A::Error> {
    let entries: Vec<Read<Entry>> = fields.next("entries")?;
    Ok(entries.into_iter().map(|entry| entry.0).collect())
}

struct WantedCredential((NodeId, CredentialName));

impl<'de> Tolerant<'de> for WantedCredential {
    const NAME: &'static str = "an origin and the name of its credential";

    fn read<A: SeqAccess<'de>>(mut fields: Fields<A>) -> Result<Self, A::Error> {
        let wanted = (fields.next("origin")?, fields.next("name")?);
        fields.finish()?;
        Ok(Self(wanted))
    }
}

struct WantedAttachment((NodeId, NodeId));

impl<'de> Tolerant<'de> for WantedAttachment {
    const NAME: &'static str = "a stub and its neighbour";

    fn read<A: SeqAccess<'de>>(mut fields: Fields<A>) -> Result<Self, A::Error> {
        let wanted = (fields.next("stub")?, fields.next("neighbour")?);
        fields.finish()?;
        Ok(Self(wanted))
    }
}

struct AttachmentParts(Box<Attachment>);

impl<'de> Tolerant<'de> for AttachmentParts {
    const NAME: &'static str = "an attachment";

    fn read<A: SeqAccess<'de>>(mut fields: Fields<A>) -> Result<Self, A::Error> {
        let mut part =
            |name| fields.next::<serde_bytes::ByteBuf>(name).map(|bytes| bytes.into_vec().into());
        let (body, signature, credential) =
            (part("statement")?, part("signature")?, part("credential")?);
        fields.finish()?;
        let attachment =
            Attachment::decode(body, signature, credential).map_err(A::Error::custom)?;
        Ok(Self(Box::new(attachment)))
    }
}

impl<'de> Tolerant<'de> for Entry {
    const NAME: &'static str = "an entry";

    fn read<A: SeqAccess<'de>>(mut fields: Fields<A>) -> Result<Self, A::Error> {
        let origin = fields.next("origin")?;
        let stamp = Stamp { version: fields.version()?, check: fields.next("check")? };
        fields.finish()?;
        Ok(Self { origin, stamp })
    }
}
