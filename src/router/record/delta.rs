//! The change of a record against the version before, which travels in its place where the record
//! is large.
//!
//! A node with a thousand links has a record of tens of kilobytes; one more link would send all of
//! it to every node. So each node keeps, beside a large record, how it differs from its
//! predecessor, and gives that to the neighbours that hold the predecessor:
//!
//! - **Nothing depends on the guess who holds it.** The change names the copy that it starts from,
//!   and the unique id of what comes out. A receiver that holds another copy, or gets another id,
//!   asks for the whole record.
//! - **The bytes come out the same**, with everything that follows from them: id, digest,
//!   signature. A record that this version could not write itself, because of fields or classes of
//!   links that it does not know, always travels whole.
//! - **What was taken is an update** like any other, and is repeated by the same rules.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{Error as _, IgnoredAny, SeqAccess};
use serde::ser::{SerializeTuple, Serializer};
use uuid::Uuid;

use crate::id::{NodeId, Version};
use crate::router::config::Limits;
use crate::router::record::advertisement::Advertisement;
use crate::router::record::compact::{self, DecodeError, Fields, Read, Tolerant};
use crate::router::record::draft::Link;
use crate::router::record::{Record, Stamp, WireLink, WireLinkRead};

/// How a record differs from the one before, of the same epoch and instance.
///
/// All fields but the links are absolute: they are those of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Whose record.
    pub origin: NodeId,
    /// Which version comes out.
    pub version: Version,
    /// Which version it starts from; epoch and instance are those of `version`.
    pub base_sequence: u64,
    /// The check of the copy that it starts from.
    pub base_check: u32,
    /// The flags of the result, as on the wire, those that this version does not know among them.
    pub flags: u8,
    /// Peers of links that the result has no more, ascending.
    pub removed: Vec<NodeId>,
    /// Links that are new or other than before, ascending by peer.
    pub changed: Vec<Link>,
    /// The capabilities, if they are others than before.
    pub capabilities: Option<Bytes>,
    /// The first field that follows the capabilities in the result, if it is there.
    pub over: Option<u64>,
    /// The second field that follows the capabilities in the result, if it is there; at most 64
    /// bytes.
    pub place: Option<String>,
    /// The unique id of the result.
    pub id: Uuid,
    /// The proof of the result; empty: unsigned.
    pub proof: Bytes,
}

/// The most bytes of [`Delta::place`].
const MAX_PLACE: usize = 64;

impl Delta {
    /// The change from `base` to `result`, if it takes at most `most` bytes, estimated, and if it
    /// gives the exact bytes.
    #[must_use]
    pub fn between(base: &Record, result: &Record, most: usize) -> Option<Self> {
        let (from, to) = (base.version, result.version);
        let same =
            base.origin == result.origin && (from.epoch, from.instance) == (to.epoch, to.instance);
        if !same || from.sequence >= to.sequence {
            return None;
        }
        let Extras { flags, over, place } = compact::decode(result.advertisement().bytes()).ok()?;
        let (removed, changed) = difference(&base.links, &result.links);
        let delta = Self {
            origin: result.origin.clone(),
            version: to,
            base_sequence: from.sequence,
            base_check: base.advertisement().check(),
            flags,
            removed,
            changed,
            capabilities: (base.capabilities != result.capabilities)
                .then(|| result.capabilities.clone()),
            over,
            place,
            id: result.advertisement().id(),
            proof: result.advertisement().proof().clone(),
        };
        let fits = delta.size() <= most;
        let exact =
            || delta.result(base).is_some_and(|bytes| bytes == *result.advertisement().bytes());
        (fits && delta.check().is_ok() && exact()).then_some(delta)
    }

    /// The copy that it starts from.
    #[must_use]
    pub fn base(&self) -> Stamp {
        let version = Version { sequence: self.base_sequence, ..self.version };
        Stamp { version, check: self.base_check }
    }

    /// The copy that comes out.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp { version: self.version, check: (self.id.as_u128() >> 96) as u32 }
    }

    /// The record that comes out, as it travels. None: `base` is not the copy that the change
    /// starts from, or something else came out than the change says.
    #[must_use]
    pub fn apply(&self, base: &Record) -> Option<Advertisement> {
        if base.origin != self.origin || base.stamp() != self.base() {
            return None;
        }
        let result = Advertisement::new(self.result(base)?.into());
        (result.id() == self.id).then(|| result.with_proof(self.proof.clone()))
    }

    /// At most so many bytes does it take on the wire, hardly fewer; in memory a few times as many.
    pub(crate) fn size(&self) -> usize {
        const FIXED: usize = 2 + 2 + 3 * 9 + (1 + 9 + 5) + 2 + 3 + 3 + 1 + 18;
        let removed: usize = self.removed.iter().map(|peer| 2 + peer.as_str().len()).sum();
        let changed: usize = self.changed.iter().map(Link::size).sum();
        let capabilities =
            self.capabilities.as_ref().map_or(1, |capabilities| 3 + capabilities.len());
        let trailing = 9 + self.place.as_ref().map_or(1, |place| 2 + place.len());
        let proof = 3 + self.proof.len();
        FIXED + self.origin.as_str().len() + removed + changed + capabilities + trailing + proof
    }

    /// What holds for every change that a node could have made.
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        if self.version.sequence <= self.base_sequence {
            return Err(DecodeError::Rule("a change leads to a newer version"));
        }
        let ascend = self.removed.is_sorted_by(|a, b| a < b)
            && self.changed.is_sorted_by(|a, b| a.peer < b.peer)
            && !self.changed.iter().any(|link| self.removed.binary_search(&link.peer).is_ok());
        if !ascend {
            return Err(DecodeError::Rule("the links of a change ascend by peer, each peer once"));
        }
        if self.removed.contains(&self.origin)
            || self.changed.iter().any(|link| link.peer == self.origin)
        {
            return Err(DecodeError::Rule("a node has no link to itself"));
        }
        let most = Limits::default().capabilities;
        if self.capabilities.as_ref().is_some_and(|capabilities| capabilities.len() > most) {
            return Err(DecodeError::Rule("capabilities have at most 4 KiB"));
        }
        if self.place.as_ref().is_some_and(|place| place.len() > MAX_PLACE) {
            return Err(DecodeError::Rule("a place has at most 64 bytes"));
        }
        Ok(())
    }

    /// The bytes of the record that comes out. None: a link is to go that is not there.
    fn result(&self, base: &Record) -> Option<Vec<u8>> {
        let capabilities = self.capabilities.as_ref().unwrap_or(&base.capabilities);
        Some(compact::encode(&Whole { delta: self, links: self.links(&base.links)?, capabilities }))
    }

    fn links<'a>(&'a self, base: &'a [Link]) -> Option<Vec<WireLink<'a>>> {
        let mut links = Vec::with_capacity(base.len() + self.changed.len());
        let mut removed = self.removed.iter().peekable();
        let mut changed = self.changed.iter().peekable();
        for link in base {
            while let Some(new) = changed.next_if(|new| new.peer < link.peer) {
                links.push(wire(new));
            }
            if removed.next_if(|gone| **gone == link.peer).is_none() {
                links.push(wire(changed.next_if(|new| new.peer == link.peer).unwrap_or(link)));
            }
        }
        links.extend(changed.map(wire));
        removed.next().is_none().then_some(links)
    }

    fn trailing(&self) -> Trailing<'_> {
        Trailing { over: self.over, place: self.place.as_deref() }
    }

    /// The frame, without its length.
    pub(crate) fn encode(&self, frame_type: u8) -> Vec<u8> {
        compact::encode(&Frame { frame_type, delta: self })
    }

    /// The fields of the frame that follow its type.
    pub(crate) fn read<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Self, A::Error> {
        let (origin, version) = (fields.next("origin")?, fields.version()?);
        let Read(Base(base_sequence, base_check)) = fields.next("base")?;
        let flags = fields.next("flags")?;
        let removed = fields.next("removed")?;
        let changed: Vec<Read<WireLinkRead>> = fields.next("changed")?;
        let changed = changed.into_iter().filter_map(|link| link.0.0).collect();
        let capabilities: Option<serde_bytes::ByteBuf> = fields.next("capabilities")?;
        let capabilities = capabilities.map(|capabilities| capabilities.into_vec().into());
        let Read(TrailingRead { over, place }) = fields.next("trailing")?;
        let id: serde_bytes::ByteBuf = fields.next("id")?;
        let id = Uuid::from_slice(&id).map_err(|_| A::Error::invalid_length(id.len(), &"16"))?;
        Ok(Self {
            origin,
            version,
            base_sequence,
            base_check,
            flags,
            removed,
            changed,
            capabilities,
            over,
            place,
            id,
            proof: fields.next_or_default::<serde_bytes::ByteBuf>()?.into_vec().into(),
        })
    }
}

/// The change that is worth keeping beside a record that takes the place of another.
pub(crate) fn worth_keeping(base: &Record, result: &Record, limits: &Limits) -> Option<Arc<Delta>> {
    let len = result.advertisement().bytes().len();
    if len < limits.delta_over {
        return None;
    }
    let most = len.saturating_mul(limits.delta_percent) / 100;
    Delta::between(base, result, most.min(Limits::MAX_RECORD)).map(Arc::new)
}

/// Peers that are gone, and links that are new or other than before; both lists ascend.
fn difference(before: &[Link], after: &[Link]) -> (Vec<NodeId>, Vec<Link>) {
    let (mut removed, mut changed) = (Vec::new(), Vec::new());
    let mut before = before.iter().peekable();
    for link in after {
        while let Some(gone) = before.next_if(|old| old.peer < link.peer) {
            removed.push(gone.peer.clone());
        }
        if before.next_if(|old| old.peer == link.peer) != Some(link) {
            changed.push(link.clone());
        }
    }
    removed.extend(before.map(|gone| gone.peer.clone()));
    (removed, changed)
}

fn wire(link: &Link) -> WireLink<'_> {
    WireLink(link.peer.as_str(), link.class.code(), link.cost)
}

/// A record, written from a change.
struct Whole<'a> {
    delta: &'a Delta,
    links: Vec<WireLink<'a>>,
    capabilities: &'a Bytes,
}

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let trailing = self.delta.trailing();
        let Version { epoch, sequence, instance } = self.delta.version;
        let mut fields = serializer.serialize_tuple(7 + trailing.len())?;
        fields.serialize_element(self.delta.origin.as_str())?;
        fields.serialize_element(&epoch)?;
        fields.serialize_element(&sequence)?;
        fields.serialize_element(&instance)?;
        fields.serialize_element(&self.delta.flags)?;
        fields.serialize_element(&self.links)?;
        fields.serialize_element(serde_bytes::Bytes::new(self.capabilities))?;
        trailing.put(&mut fields)?;
        fields.end()
    }
}

/// A change as it travels.
struct Frame<'a> {
    frame_type: u8,
    delta: &'a Delta,
}

impl Serialize for Frame<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let delta = self.delta;
        let Version { epoch, sequence, instance } = delta.version;
        let removed: Vec<&str> = delta.removed.iter().map(NodeId::as_str).collect();
        let changed: Vec<WireLink<'_>> = delta.changed.iter().map(wire).collect();
        let capabilities =
            delta.capabilities.as_ref().map(|capabilities| serde_bytes::Bytes::new(capabilities));
        let signed = !delta.proof.is_empty();
        let mut fields = serializer.serialize_tuple(12 + usize::from(signed))?;
        fields.serialize_element(&self.frame_type)?;
        fields.serialize_element(delta.origin.as_str())?;
        fields.serialize_element(&epoch)?;
        fields.serialize_element(&sequence)?;
        fields.serialize_element(&instance)?;
        fields.serialize_element(&(delta.base_sequence, delta.base_check))?;
        fields.serialize_element(&delta.flags)?;
        fields.serialize_element(&removed)?;
        fields.serialize_element(&changed)?;
        fields.serialize_element(&capabilities)?;
        fields.serialize_element(&delta.trailing())?;
        fields.serialize_element(serde_bytes::Bytes::new(delta.id.as_bytes()))?;
        if signed {
            fields.serialize_element(serde_bytes::Bytes::new(&delta.proof))?;
        }
        fields.end()
    }
}

/// What follows the capabilities in a record: nothing, `[over]`, or `[over, place]`.
struct Trailing<'a> {
    over: Option<u64>,
    place: Option<&'a str>,
}

impl Trailing<'_> {
    fn len(&self) -> usize {
        match self {
            Self { place: Some(_), .. } => 2,
            Self { over: Some(_), .. } => 1,
            Self { .. } => 0,
        }
    }

    fn put<T: SerializeTuple>(&self, fields: &mut T) -> Result<(), T::Error> {
        if self.len() > 0 {
            fields.serialize_element(&self.over)?;
        }
        self.place.map_or(Ok(()), |place| fields.serialize_element(place))
    }
}

impl Serialize for Trailing<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_tuple(self.len())?;
        self.put(&mut fields)?;
        fields.end()
    }
}

struct TrailingRead {
    over: Option<u64>,
    place: Option<String>,
}

impl<'de> Tolerant<'de> for TrailingRead {
    const NAME: &'static str = "trailing fields";

    fn read<A: SeqAccess<'de>>(mut fields: Fields<A>) -> Result<Self, A::Error> {
        let (over, place) = (fields.optional()?, fields.optional()?);
        fields.finish()?;
        Ok(Self { over, place })
    }
}

struct Base(u64, u32);

impl<'de> Tolerant<'de> for Base {
    const NAME: &'static str = "a base";

    fn read<A: SeqAccess<'de>>(mut fields: Fields<A>) -> Result<Self, A::Error> {
        let base = Self(fields.next("sequence")?, fields.next("check")?);
        fields.finish()?;
        Ok(base)
    }
}

/// What a record has beside links and capabilities, read from its bytes, since not every bit of it
/// may be known.
struct Extras {
    flags: u8,
    over: Option<u64>,
    place: Option<String>,
}

impl<'de> Tolerant<'de> for Extras {
    const NAME: &'static str = "a record";

    fn read<A: SeqAccess<'de>>(mut fields: Fields<A>) -> Result<Self, A::Error> {
        fields.next::<IgnoredAny>("origin")?;
        fields.version()?;
        let flags = fields.next("flags")?;
        fields.next::<IgnoredAny>("links")?;
        fields.next::<IgnoredAny>("capabilities")?;
        let (over, place) = (fields.optional()?, fields.optional()?);
        fields.finish()?;
        Ok(Self { flags, over, place })
    }
}
