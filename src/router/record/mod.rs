//! The record: what one node says about itself, and the only thing that is flooded.

pub(in crate::router) mod advertisement;
pub(in crate::router) mod compact;
pub(in crate::router) mod delta;
pub(in crate::router) mod draft;
pub(in crate::router) mod process;
pub(in crate::router) mod wire;

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::Serialize;

use super::config::Limits;
use super::record::advertisement::Advertisement;
use super::record::compact::{DecodeError, Fields, Tolerant};
use super::record::draft::{Draft, Link, LinkClass, Said};
use super::record::process::Override;
use crate::id::{Cost, NodeAddr, NodeId, Version};

/// What one node says about itself: its links and its capabilities, under one version. Nobody else
/// speaks for it.
///
/// Cloning is cheap (a reference count). On the wire it is the MessagePack array
/// `[origin, epoch, sequence, instance, flags, [[peer, class, cost], …], capabilities]`, with
/// `over, place` behind them where it overrides another process's; further fields are skipped and
/// repeated untouched. The signature travels beside the record, not in it.
#[derive(Clone)]
pub struct Record(Advertisement);

/// Which copy of a record this is: the version, and a check that orders copies of one version,
/// which only a faulty node makes, so that all nodes still settle on the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The version.
    pub version: Version,
    /// The first four bytes of the advertisement's id.
    pub check: u32,
}

const FLAG_LEAVING: u8 = 1;
const FLAG_NO_TRANSIT: u8 = 2;
const FLAG_ECHO: u8 = 4;
const FLAG_LATE: u8 = 8;

impl Draft {
    /// A record that says nothing but whose it is: it permits transit, and has no links and no
    /// capabilities.
    #[must_use]
    pub fn new(origin: NodeId, version: Version) -> Self {
        let (links, capabilities) = (Vec::new(), Bytes::new());
        Self {
            origin,
            version,
            transit: true,
            leaving: false,
            echo: false,
            links,
            capabilities,
            over: None,
        }
    }

    /// Encodes the record.
    ///
    /// # Errors
    /// The content breaks a rule of the format. The caller's fault; the message of the error names
    /// the rule.
    pub fn seal(self) -> Result<Record, DecodeError> {
        check(&self)?;
        let bytes = self.encode();
        check_size(bytes.len())?;
        let advertisement = Advertisement::new(bytes.into());
        advertisement.remember(Said::new(self));
        Ok(Record(advertisement))
    }

    fn encode(&self) -> Vec<u8> {
        let late = self.over.as_ref().is_some_and(|over| over.late);
        let flags = u8::from(self.leaving) * FLAG_LEAVING
            + u8::from(!self.transit) * FLAG_NO_TRANSIT
            + u8::from(self.echo) * FLAG_ECHO
            + u8::from(late) * FLAG_LATE;
        let Version { epoch, sequence, instance } = self.version;
        let links: Vec<WireLink<'_>> = self
            .links
            .iter()
            .map(|link| WireLink(link.peer.as_str(), link.class.code(), link.cost))
            .collect();
        let (origin, capabilities) =
            (self.origin.as_str(), serde_bytes::Bytes::new(&self.capabilities));
        match &self.over {
            None => {
                compact::encode(&(origin, epoch, sequence, instance, flags, links, capabilities))
            }
            Some(Override { instance: over, place, .. }) => compact::encode(&(
                origin,
                epoch,
                sequence,
                instance,
                flags,
                links,
                capabilities,
                over,
                place,
            )),
        }
    }
}

impl Record {
    /// Reads the record of an advertisement. Total: any bytes give a record or an error.
    ///
    /// # Errors
    /// The bytes are not a record; the fault of the node that sent or repeated them.
    pub fn decode(advertisement: &Advertisement) -> Result<Self, DecodeError> {
        Self::decode_sharing(advertisement, |_| None)
    }

    /// The same, with the names that are known already shared rather than stored once more.
    pub(crate) fn decode_sharing<'a>(
        advertisement: &Advertisement,
        known: impl Fn(&NodeId) -> Option<&'a NodeId>,
    ) -> Result<Self, DecodeError> {
        if advertisement.said().is_none() {
            check_size(advertisement.bytes().len())?;
            let WireRecord(mut draft) = compact::decode(advertisement.bytes())?;
            check(&draft)?;
            let names =
                draft.links.iter_mut().map(|link| &mut link.peer).chain([&mut draft.origin]);
            for name in names {
                if let Some(known) = known(name) {
                    *name = known.clone();
                }
            }
            advertisement.remember(Said::new(draft));
        }
        Ok(Self(advertisement.clone()))
    }

    fn said(&self) -> &Said {
        self.0.said().expect("a record is made of an advertisement that was read")
    }

    /// The same record with this proof beside it.
    #[must_use]
    pub fn with_proof(self, proof: Bytes) -> Self {
        Self(self.0.with_proof(proof))
    }

    /// The same record with another address, for tests of collisions, which cannot be constructed
    /// otherwise.
    #[cfg(test)]
    pub(crate) fn with_addr(&self, addr: NodeAddr) -> Self {
        let advertisement = Advertisement::new(self.0.bytes().clone());
        advertisement.remember(Said { addr, ..Said::new(Draft::clone(self)) });
        Self(advertisement)
    }

    /// The record as it travels.
    #[must_use]
    pub fn advertisement(&self) -> &Advertisement {
        &self.0
    }

    /// Whether bytes, id and content still belong together.
    pub(crate) fn is_intact(&self) -> bool {
        let again = Advertisement::new(self.advertisement().bytes().clone());
        again.id() == self.advertisement().id()
            && Self::decode(&again).is_ok_and(|record| *record == **self)
    }

    /// The same record after a bit in memory fell over, for tests.
    #[cfg(test)]
    pub(crate) fn corrupted(&self) -> Self {
        let advertisement = self.advertisement().corrupted();
        advertisement.remember(Said::new(Draft::clone(self)));
        Self(advertisement)
    }

    /// Version and check.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp { version: self.version, check: self.advertisement().check() }
    }

    /// The origin's address.
    #[must_use]
    pub fn addr(&self) -> NodeAddr {
        self.said().addr
    }

    /// The link to `peer`, if the record lists one.
    #[must_use]
    pub fn link(&self, peer: &NodeId) -> Option<&Link> {
        self.links.binary_search_by(|link| link.peer.cmp(peer)).ok().map(|at| &self.links[at])
    }

    /// The cost of the active link to `peer`, if the record lists one.
    pub(crate) fn active(&self, peer: &NodeId) -> Option<Cost> {
        self.link(peer).filter(|link| link.class == LinkClass::Active).map(|link| link.cost)
    }

    /// The peers of the active links, ascending.
    pub(crate) fn active_peers(&self) -> impl Iterator<Item = &NodeId> {
        self.links.iter().filter(|link| link.class == LinkClass::Active).map(|link| &link.peer)
    }

    /// How many stubs of this record a later one no longer lists.
    pub(crate) fn stubs_lost_in(&self, later: &Self) -> usize {
        let mut kept = later.stubs().map(|(link, _)| &link.peer).peekable();
        let lost = self.stubs().filter(|(link, _)| {
            // Both lists ascend by peer.
            while kept.next_if(|peer| **peer < link.peer).is_some() {}
            kept.peek().is_none_or(|peer| **peer != link.peer)
        });
        lost.count()
    }

    /// The stubs attached to the origin, with their addresses.
    pub(crate) fn stubs(&self) -> impl Iterator<Item = (&Link, NodeAddr)> {
        // The addresses first: most records have none, and then their links need no look.
        let addrs = self.said().stub_addrs.iter().copied();
        let stubs = self.links.iter().filter(|link| link.class == LinkClass::Stub);
        addrs.zip(stubs).map(|(addr, link)| (link, addr))
    }
}

/// The fields of a record are read through its [`Draft`].
impl Deref for Record {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.said().draft
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Record {}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("origin", &self.origin)
            .field("version", &format_args!("{}", self.version))
            .field("links", &self.links.len())
            .field("leaving", &self.leaving)
            .finish_non_exhaustive()
    }
}

impl LinkClass {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Active => 0,
            Self::Stub => 1,
            Self::Dormant => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Active),
            1 => Some(Self::Stub),
            2 => Some(Self::Dormant),
            _ => None,
        }
    }
}

impl Link {
    /// The most bytes that the link takes in an encoded record.
    pub(crate) fn size(&self) -> usize {
        // Array head, text head of up to two bytes, class, cost of up to three.
        1 + 2 + self.peer.as_str().len() + 1 + 3
    }
}

/// The most bytes that a record without links and capabilities takes, with the heads of both.
pub(crate) const BASE_SIZE: usize =
    1 + 2 + NodeId::MAX_LEN + 3 * 9 + 1 + 5 + 3 + 9 + 2 + Override::MAX_PLACE;

fn check_size(len: usize) -> Result<(), DecodeError> {
    if len > Limits::MAX_RECORD {
        return Err(DecodeError::TooLong { len, max: Limits::MAX_RECORD });
    }
    Ok(())
}

fn check(draft: &Draft) -> Result<(), DecodeError> {
    if !draft.links.is_sorted_by(|a, b| a.peer < b.peer) {
        return Err(DecodeError::Rule("links ascend by peer, each peer once"));
    }
    if draft.links.iter().any(|link| link.peer == draft.origin) {
        return Err(DecodeError::Rule("a node has no link to itself"));
    }
    let full =
        draft.links.iter().filter(|link| link.class != LinkClass::Stub).map(|link| &link.peer);
    if full.chain([&draft.origin]).any(|id| id.suffix().is_some()) {
        return Err(DecodeError::Rule("only stubs have ids with a suffix"));
    }
    let limits = Limits::default();
    let count = |class| draft.links.iter().filter(|link| link.class == class).count();
    if count(LinkClass::Active) > limits.active_links || count(LinkClass::Stub) > limits.stub_links
    {
        return Err(DecodeError::Rule("a record has at most 4,096 active links and 65,536 stubs"));
    }
    if draft.capabilities.len() > limits.capabilities {
        return Err(DecodeError::Rule("capabilities have at most 4 KiB"));
    }
    if draft.leaving && !draft.links.is_empty() {
        return Err(DecodeError::Rule("a node that leaves has no links"));
    }
    if draft.over.as_ref().is_some_and(|over| over.place.len() > Override::MAX_PLACE) {
        return Err(DecodeError::Rule("a place has at most 64 bytes"));
    }
    Ok(())
}

#[derive(Serialize)]
pub(crate) struct WireLink<'a>(pub(crate) &'a str, pub(crate) u8, pub(crate) Cost);

struct WireRecord(Draft);

impl<'de> Tolerant<'de> for WireRecord {
    const NAME: &'static str = "a record";

    fn read<A: serde::de::SeqAccess<'de>>(mut fields: Fields<A>) -> Result<Self, A::Error> {
        let origin = fields.next("origin")?;
        let version = fields.version()?;
        let flags: u8 = fields.next("flags")?;
        let links: Vec<compact::Read<WireLinkRead>> = fields.next("links")?;
        let capabilities: serde_bytes::ByteBuf = fields.next("capabilities")?;
        let (over, place): (Option<u64>, Option<String>) = (fields.optional()?, fields.optional()?);
        fields.finish()?;
        Ok(Self(Draft {
            origin,
            version,
            transit: flags & FLAG_NO_TRANSIT == 0,
            leaving: flags & FLAG_LEAVING != 0,
            echo: flags & FLAG_ECHO != 0,
            links: links.into_iter().filter_map(|link| link.0.0).collect(),
            capabilities: capabilities.into_vec().into(),
            over: over.map(|instance| Override {
                instance,
                late: flags & FLAG_LATE != 0,
                place: place.unwrap_or_default(),
            }),
        }))
    }
}

/// None: a class of link that this version does not know.
pub(crate) struct WireLinkRead(pub(crate) Option<Link>);

impl<'de> Tolerant<'de> for WireLinkRead {
    const NAME: &'static str = "a link";

    fn read<A: serde::de::SeqAccess<'de>>(mut fields: Fields<A>) -> Result<Self, A::Error> {
        let peer = fields.next("peer")?;
        let class: u8 = fields.next("class")?;
        let cost = fields.next("cost")?;
        fields.finish()?;
        Ok(Self(LinkClass::from_code(class).map(|class| Link { peer, class, cost })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft {
            origin: id("a"),
            version: Version { epoch: 1, sequence: 2, instance: 3 },
            transit: false,
            leaving: false,
            echo: true,
            links: vec![
                Link { peer: id("b"), class: LinkClass::Active, cost: Cost::DEFAULT },
                Link { peer: id("c"), class: LinkClass::Stub, cost: Cost::try_from(700).unwrap() },
                Link { peer: id("d"), class: LinkClass::Dormant, cost: Cost::DEFAULT },
            ],
            capabilities: Bytes::from_static(b"caps"),
            over: Some(Override { instance: u64::MAX, late: true, place: "x".repeat(64) }),
        }
    }

    #[test]
    fn a_record_survives_the_wire() {
        let record = draft().seal().unwrap();
        let read =
            Record::decode(&Advertisement::new(record.advertisement().bytes().clone())).unwrap();
        assert_eq!(*read, draft());
        assert_eq!(read, record);
        let alone = Draft { over: None, ..draft() }.seal().unwrap();
        assert_eq!(
            *Record::decode(alone.advertisement()).unwrap(),
            Draft { over: None, ..draft() }
        );
    }

    #[test]
    fn fields_and_classes_that_are_not_known_yet_are_skipped_and_kept_in_the_bytes() {
        let links = vec![("b", 0u8, 1u32, "later"), ("c", 9u8, 1u32, "later")];
        let none = serde_bytes::Bytes::new(b"");
        let bytes =
            compact::encode(&("a", 1u64, 2u64, 3u64, 8u8, links, none, ((), ()), "later", 7));
        assert!(
            Record::decode(&Advertisement::new(bytes.into())).is_err(),
            "an instance is a number"
        );
        let links = vec![("b", 0u8, 1u32, "later"), ("c", 9u8, 1u32, "later")];
        let bytes = compact::encode(&("a", 1u64, 2u64, 3u64, 8u8, links, none, (), (), "later", 7));
        let record = Record::decode(&Advertisement::new(bytes.clone().into())).unwrap();
        assert_eq!((record.links.len(), &record.over), (1, &None));
        assert_eq!(record.advertisement().bytes(), &bytes);
    }

    #[test]
    fn records_that_break_a_rule_are_refused() {
        let twice =
            Draft { links: vec![draft().links[0].clone(), draft().links[0].clone()], ..draft() };
        assert!(matches!(twice.seal(), Err(DecodeError::Rule(_))));
        let own = Link { peer: id("a"), class: LinkClass::Active, cost: Cost::DEFAULT };
        assert!(matches!(Draft { links: vec![own], ..draft() }.seal(), Err(DecodeError::Rule(_))));
        assert!(matches!(Draft { leaving: true, ..draft() }.seal(), Err(DecodeError::Rule(_))));
        assert!(Draft { capabilities: vec![0; 5000].into(), ..draft() }.seal().is_err());
        let far = Override { instance: 1, late: false, place: "x".repeat(65) };
        assert!(matches!(Draft { over: Some(far), ..draft() }.seal(), Err(DecodeError::Rule(_))));
        let many = |n: u32| Draft {
            links: (0..n)
                .map(|i| Link {
                    peer: id(&format!("{i:06}")),
                    class: LinkClass::Stub,
                    cost: Cost::DEFAULT,
                })
                .collect(),
            ..draft()
        };
        assert!(many(5_000).seal().is_ok());
        assert!(matches!(many(10_000).seal(), Err(DecodeError::TooLong { .. })));
    }

    #[test]
    fn the_size_of_a_record_is_never_underestimated() {
        let record = draft().seal().unwrap();
        let estimate = BASE_SIZE
            + record.links.iter().map(Link::size).sum::<usize>()
            + record.capabilities.len();
        assert!(record.advertisement().bytes().len() <= estimate);
    }

    fn id(text: &str) -> NodeId {
        text.try_into().unwrap()
    }
}
