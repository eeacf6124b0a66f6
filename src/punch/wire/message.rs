//! Messages between the two ends of a peer connection that negotiate a direct path.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::probe::Probe;
use super::secret::{PathCookie, ProbeKey};
use crate::punch::gather::candidate::{Candidate, CandidateKind};
use crate::punch::gather::nat::NatClass;

/// Maximum ratio of probe bytes sent to unvalidated addresses to bytes received from the peer.
pub(crate) const FACTOR: usize = 4;

/// A message between the two ends of a peer connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Starts a round. Sent by the [`Role::Offerer`](crate::punch::Role::Offerer).
    Offer(Offer),
    /// Answers an offer.
    Answer(Answer),
    /// Requests an offer. Sent by the [`Role::Answerer`](crate::punch::Role::Answerer).
    Request,
    /// Announces a volley from fresh ports. Sent by the
    /// [`Role::Offerer`](crate::punch::Role::Offerer).
    Prepare(Volley),
    /// Answers [`Prepare`](Self::Prepare).
    Ready(Volley),
    /// Fires the volley: at the answerer on arrival, at the offerer half a round trip later.
    Go {
        /// The offer's id.
        round: u64,
        /// The volley's number; 0 is that of the node's own socket, which is not prepared.
        number: u8,
    },
}

/// The fresh ports of one end for a volley.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volley {
    /// The offer's id.
    pub round: u64,
    /// The volley's number, from 1 upwards.
    pub number: u8,
    /// Where these ports may be reached. At most [`Message::MAX_FRESH`] are sent and accepted.
    pub candidates: Vec<Candidate>,
    /// Bytes of padding, see [`Terms::padding`].
    pub padding: u16,
}

/// Begins a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The round's id, random for each offer and contained in every probe of the round.
    pub round: u64,
    /// The key of the round's probes, drawn likewise.
    pub key: ProbeKey,
    /// The terms of the sender of the offer.
    pub terms: Terms,
}

/// Answers an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The offer's id.
    pub round: u64,
    /// The terms of the sender of the answer.
    pub terms: Terms,
}

/// What each end announces about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What it knows of its NAT.
    pub class: NatClass,
    /// What the other end must put into the packets that it sends over a direct path.
    pub cookie: PathCookie,
    /// Its candidate addresses, best first. At most [`Message::MAX_CANDIDATES`] are sent and
    /// accepted.
    pub candidates: Vec<Candidate>,
    /// Whether it supports volleys; absent from versions that do not.
    pub volleys: bool,
    /// Bytes of padding. The receiver sends at most four times the message's length in probes to
    /// addresses that have not answered, so a message is padded to a fourth of what its sender
    /// expects, bounded by [`Message::MAX_LEN`].
    pub padding: u16,
}

/// Encodes the fields as an array, followed by this many zeros as bytes; without any, by nothing.
macro_rules! padded {
    ($padding:expr, $($field:expr),+) => {
        match $padding {
            0 => rmp_serde::to_vec(&($($field,)+)),
            len => rmp_serde::to_vec(&($($field,)+ serde_bytes::Bytes::new(&ZEROS[..usize::from(len).min(ZEROS.len())]))),
        }
    };
}

impl Message {
    /// The maximum number of candidates of a [`Volley`].
    pub const MAX_FRESH: usize = 8;

    /// Maximum number of candidates sent and accepted in one message.
    pub const MAX_CANDIDATES: usize = 32;

    /// Maximum length of a message in bytes, unknown types included. A longer one must not be read;
    /// close the connection.
    pub const MAX_LEN: usize = 4 * 1024;

    /// The MessagePack array, without a length before it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = match self {
            Self::Offer(Offer { round, key, terms }) => {
                let Terms { class, cookie, candidates, volleys, padding } = terms;
                let (key, cookie) =
                    (serde_bytes::Bytes::new(&key.0), serde_bytes::Bytes::new(&cookie.0));
                let flags = u8::from(*volleys) * FLAG_VOLLEYS;
                padded!(
                    *padding,
                    OFFER,
                    round,
                    key,
                    code_of(*class),
                    cookie,
                    Listed(candidates),
                    flags
                )
            }
            Self::Answer(Answer { round, terms }) => {
                let Terms { class, cookie, candidates, volleys, padding } = terms;
                let cookie = serde_bytes::Bytes::new(&cookie.0);
                let flags = u8::from(*volleys) * FLAG_VOLLEYS;
                padded!(*padding, ANSWER, round, code_of(*class), cookie, Listed(candidates), flags)
            }
            Self::Request => rmp_serde::to_vec(&(REQUEST,)),
            Self::Prepare(Volley { round, number, candidates, padding }) => {
                padded!(*padding, PREPARE, round, number, Listed(candidates))
            }
            Self::Ready(Volley { round, number, candidates, padding }) => {
                padded!(*padding, READY, round, number, Listed(candidates))
            }
            Self::Go { round, number } => rmp_serde::to_vec(&(GO, round, number)),
        };
        bytes.expect("plain values in memory always encode")
    }

    /// Pads the message so that the receiver may send this many probes for it, as far as
    /// [`MAX_PADDED`] permits.
    pub(crate) fn pad_for(self, probes: usize) -> Self {
        let unpadded = self.encode().len();
        let wanted = (probes * Probe::LEN).div_ceil(FACTOR).min(MAX_PADDED);
        let missing = u16::try_from(wanted.saturating_sub(unpadded)).unwrap_or(u16::MAX);
        match self {
            Self::Offer(offer) => {
                Self::Offer(Offer { terms: Terms { padding: missing, ..offer.terms }, ..offer })
            }
            Self::Answer(answer) => {
                Self::Answer(Answer { terms: Terms { padding: missing, ..answer.terms }, ..answer })
            }
            Self::Prepare(volley) => Self::Prepare(Volley { padding: missing, ..volley }),
            Self::Ready(volley) => Self::Ready(Volley { padding: missing, ..volley }),
            other @ (Self::Request | Self::Go { .. }) => other,
        }
    }

    /// Decodes the MessagePack array. `None` if the type was added by a later version; skip it.
    /// Unknown trailing fields and candidates of unknown kinds are skipped.
    ///
    /// # Errors
    /// The bytes are not a message: the sender's fault.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        if bytes.len() > Self::MAX_LEN {
            return Err(DecodeError::TooLong { len: bytes.len() });
        }
        let mut deserializer = rmp_serde::Deserializer::new(bytes);
        deserializer.set_max_depth(MAX_DEPTH);
        let message = deserializer
            .deserialize_seq(Array)
            .map_err(|error| DecodeError::Malformed(error.to_string()))?;
        if !deserializer.get_ref().is_empty() {
            return Err(DecodeError::Trailing);
        }
        Ok(message)
    }
}

/// The length up to which messages are padded: 15 probes to each of ten candidates.
const MAX_PADDED: usize = 2_400;

const OFFER: u8 = 0x01;
const ANSWER: u8 = 0x02;
const REQUEST: u8 = 0x03;
const PREPARE: u8 = 0x04;
const READY: u8 = 0x05;
const GO: u8 = 0x06;

/// The flag of OFFER and ANSWER for [`Terms::volleys`].
const FLAG_VOLLEYS: u8 = 0x01;

/// How deep arrays may nest: a message has three levels; the rest is room for later versions.
const MAX_DEPTH: usize = 16;

const ZEROS: [u8; Message::MAX_LEN] = [0; Message::MAX_LEN];

struct Array;

impl<'de> Visitor<'de> for Array {
    type Value = Option<Message>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message about direct paths")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let message = match field::<u8, A>(&mut fields, "type")? {
            OFFER => {
                let round = field(&mut fields, "round")?;
                let key = ProbeKey(
                    field::<serde_bytes::ByteArray<32>, A>(&mut fields, "key")?.into_array(),
                );
                Some(Message::Offer(Offer { round, key, terms: terms(&mut fields)? }))
            }
            ANSWER => {
                let round = field(&mut fields, "round")?;
                Some(Message::Answer(Answer { round, terms: terms(&mut fields)? }))
            }
            REQUEST => Some(Message::Request),
            PREPARE => Some(Message::Prepare(volley(&mut fields)?)),
            READY => Some(Message::Ready(volley(&mut fields)?)),
            GO => {
                let round = field(&mut fields, "round")?;
                Some(Message::Go { round, number: field(&mut fields, "volley")? })
            }
            _ => None,
        };
        while fields.next_element::<IgnoredAny>()?.is_some() {}
        Ok(message)
    }
}

fn terms<'de, A: SeqAccess<'de>>(fields: &mut A) -> Result<Terms, A::Error> {
    let class = class_of(field(fields, "class")?);
    let cookie = PathCookie(field::<serde_bytes::ByteArray<8>, A>(fields, "cookie")?.into_array());
    let candidates = candidates(fields)?;
    let flags: u8 = fields.next_element()?.unwrap_or_default();
    Ok(Terms {
        class,
        cookie,
        candidates,
        volleys: flags & FLAG_VOLLEYS != 0,
        padding: padding(fields)?,
    })
}

fn padding<'de, A: SeqAccess<'de>>(fields: &mut A) -> Result<u16, A::Error> {
    let zeros: Option<serde_bytes::ByteBuf> = fields.next_element()?;
    let len = zeros.map_or(0, |zeros| zeros.len());
    u16::try_from(len).map_err(|_| A::Error::invalid_length(len, &"at most 65,535"))
}

fn volley<'de, A: SeqAccess<'de>>(fields: &mut A) -> Result<Volley, A::Error> {
    let (round, number) = (field(fields, "round")?, field(fields, "volley")?);
    Ok(Volley { round, number, candidates: candidates(fields)?, padding: padding(fields)? })
}

fn candidates<'de, A: SeqAccess<'de>>(fields: &mut A) -> Result<Vec<Candidate>, A::Error> {
    let received: Vec<Received> = field(fields, "candidates")?;
    Ok(received.into_iter().filter_map(|received| received.0).collect())
}

fn field<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    fields: &mut A,
    name: &'static str,
) -> Result<T, A::Error> {
    fields.next_element()?.ok_or_else(|| A::Error::missing_field(name))
}

/// Candidates as they are sent.
struct Listed<'a>(&'a [Candidate]);

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = self
            .0
            .iter()
            .filter_map(|candidate| Some((kind_code(candidate.kind)?, candidate.addr)));
        let told: Vec<_> = told.take(Message::MAX_CANDIDATES).collect();
        let mut octets = Vec::with_capacity(told.len());
        for (kind, addr) in told {
            let ip = match addr.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            octets.push((kind, serde_bytes::ByteBuf::from(ip), addr.port()));
        }
        octets.serialize(serializer)
    }
}

/// A received candidate; `None` if its kind was added by a later version.
struct Received(Option<Candidate>);

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Received;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a candidate")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Received, A::Error> {
                let kind = kind_of(field(&mut fields, "kind")?);
                let mut candidate = None;
                if let Some(kind) = kind {
                    let ip: serde_bytes::ByteBuf = field(&mut fields, "address")?;
                    let ip = match (<[u8; 4]>::try_from(&ip[..]), <[u8; 16]>::try_from(&ip[..])) {
                        (Ok(ip), _) => IpAddr::from(ip),
                        (_, Ok(ip)) => IpAddr::from(ip),
                        _ => return Err(A::Error::invalid_length(ip.len(), &"4 or 16 bytes")),
                    };
                    let addr = SocketAddr::new(ip, field(&mut fields, "port")?);
                    candidate = Some(Candidate { addr, kind });
                }
                while fields.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Received(candidate))
            }
        }

        deserializer.deserialize_seq(Fields)
    }
}

/// The wire value of a candidate's kind; `None` if it is not announced.
const fn kind_code(kind: CandidateKind) -> Option<u8> {
    match kind {
        CandidateKind::Host => Some(0),
        CandidateKind::ServerReflexive => Some(1),
        CandidateKind::Mapped => Some(2),
        CandidateKind::External => Some(3),
        CandidateKind::PeerReflexive => None,
    }
}

const fn kind_of(code: u8) -> Option<CandidateKind> {
    match code {
        0 => Some(CandidateKind::Host),
        1 => Some(CandidateKind::ServerReflexive),
        2 => Some(CandidateKind::Mapped),
        3 => Some(CandidateKind::External),
        _ => None,
    }
}

const fn code_of(class: NatClass) -> u8 {
    match class {
        NatClass::Unknown => 0,
        NatClass::Public => 1,
        NatClass::EndpointIndependent => 2,
        NatClass::EndpointDependent => 3,
    }
}

/// A class that a later version added is not known.
const fn class_of(code: u8) -> NatClass {
    match code {
        1 => NatClass::Public,
        2 => NatClass::EndpointIndependent,
        3 => NatClass::EndpointDependent,
        _ => NatClass::Unknown,
    }
}

/// Malformed message. The sender's fault; close the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not valid MessagePack of this format, or a value out of range.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Longer than [`Message::MAX_LEN`].
    #[error("{len} bytes, where {max} are allowed", max = Message::MAX_LEN)]
    TooLong {
        /// What it had, in bytes.
        len: usize,
    },
    /// Bytes follow the array.
    #[error("nothing follows the array")]
    Trailing,
}

/// Why a message was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The caller's fault: [`connected`](crate::punch::Puncher::connected) was not called for this
    /// peer, or there were too many peers. Nothing was changed; drop the message.
    #[error("there is no session with this peer")]
    NoSession,
    /// The peer sent what only the other end may send. Nothing was changed; close the connection.
    #[error("only the other end may send this message")]
    WrongRole,
    /// The peer offered a round id that is in use with another key, or by another peer. Nothing was
    /// changed; close the connection.
    #[error("the id of this round is in use")]
    RoundInUse,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::punch::testing::addr;

    fn offer() -> Offer {
        let candidates = vec![
            Candidate { addr: addr("192.0.2.1:4433"), kind: CandidateKind::Host },
            Candidate { addr: addr("[2001:db8::1]:443"), kind: CandidateKind::External },
        ];
        let (class, cookie) = (NatClass::EndpointIndependent, PathCookie(*b"cookie!!"));
        let key = ProbeKey(std::array::from_fn(|at| at as u8));
        Offer {
            round: 0x0102_0304_0506_0708,
            key,
            terms: Terms { class, cookie, candidates, volleys: true, padding: 0 },
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let cookie = PathCookie(*b"eikooc!!");
        let terms = Terms {
            class: NatClass::EndpointDependent,
            cookie,
            candidates: Vec::new(),
            volleys: false,
            padding: 0,
        };
        let answer = Answer { round: offer().round, terms };
        let volley =
            Volley { round: 9, number: 3, candidates: offer().terms.candidates, padding: 5 };
        for message in [
            Message::Offer(offer()),
            Message::Answer(answer),
            Message::Request,
            Message::Prepare(volley.clone()),
            Message::Ready(volley),
            Message::Go { round: u64::MAX, number: 11 },
        ] {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(Some(message)));
        }
    }

    #[test]
    fn what_later_versions_add_is_skipped() {
        let key = serde_bytes::Bytes::new(&[7; 32]);
        let cookie = serde_bytes::Bytes::new(&[8; 8]);
        let ip = serde_bytes::Bytes::new(&[192, 0, 2, 1]);
        let candidates = ((0, ip, 7, "more"), (200, ip, 9));
        let bytes =
            rmp_serde::to_vec(&(1, 5_u64, key, 77, cookie, candidates, 0xfe, "more", [1])).unwrap();
        let Ok(Some(Message::Offer(offer))) = Message::decode(&bytes) else { panic!() };
        assert_eq!((offer.terms.class, offer.terms.volleys), (NatClass::Unknown, false));
        assert_eq!(
            offer.terms.candidates,
            [Candidate { addr: addr("192.0.2.1:7"), kind: CandidateKind::Host }]
        );
        assert_eq!(Message::decode(&rmp_serde::to_vec(&(99, "what")).unwrap()), Ok(None));
    }

    #[test]
    fn a_version_without_volleys_leaves_the_flags_out() {
        let (key, cookie) = (serde_bytes::Bytes::new(&[7; 32]), serde_bytes::Bytes::new(&[8; 8]));
        let bytes = rmp_serde::to_vec(&(1, 5_u64, key, 0, cookie, [0; 0])).unwrap();
        let Ok(Some(Message::Offer(offer))) = Message::decode(&bytes) else { panic!() };
        assert!(!offer.terms.volleys);
    }

    #[test]
    fn candidates_learned_from_probes_are_never_told_and_no_more_than_the_bound() {
        let mut offer = offer();
        let reflexive = Candidate { addr: addr("192.0.2.9:9"), kind: CandidateKind::PeerReflexive };
        offer.terms.candidates = vec![reflexive];
        offer.terms.candidates.extend((1..100).map(|port| Candidate {
            addr: SocketAddr::new(IpAddr::from([192, 0, 2, 1]), port),
            kind: CandidateKind::Host,
        }));
        let bytes = Message::Offer(offer).encode();
        let Ok(Some(Message::Offer(read))) = Message::decode(&bytes) else { panic!() };
        assert_eq!(read.terms.candidates.len(), Message::MAX_CANDIDATES);
        assert!(!read.terms.candidates.contains(&reflexive));
        assert!(bytes.len() < Message::MAX_LEN / 4);
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let good = Message::Offer(offer()).encode();
        for end in 0..good.len() {
            assert!(
                matches!(Message::decode(&good[..end]), Err(DecodeError::Malformed(_))),
                "{end}"
            );
        }
        let mut longer = good.clone();
        longer.push(0);
        assert_eq!(Message::decode(&longer), Err(DecodeError::Trailing));
        let len = Message::MAX_LEN + 1;
        assert_eq!(Message::decode(&vec![0; len]), Err(DecodeError::TooLong { len }));
        let ip = serde_bytes::Bytes::new(&[192, 0, 2]);
        let (key, cookie) = (serde_bytes::Bytes::new(&[7; 32]), serde_bytes::Bytes::new(&[8; 8]));
        let bytes = rmp_serde::to_vec(&(1, 5_u64, key, 0, cookie, ((0, ip, 7),))).unwrap();
        assert!(matches!(Message::decode(&bytes), Err(DecodeError::Malformed(_))));
        let bytes = rmp_serde::to_vec(&(1, 5_u64, cookie, 0, cookie, [0; 0])).unwrap();
        assert!(matches!(Message::decode(&bytes), Err(DecodeError::Malformed(_))), "a short key");
    }

    #[test]
    fn secrets_do_not_go_into_logs() {
        let shown = format!("{:?}", offer());
        assert!(shown.contains("ProbeKey(..)") && shown.contains("PathCookie(..)"), "{shown}");
    }
}
