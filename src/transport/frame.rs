//! Frames: a u32 length in network order, then a MessagePack array whose first element is the type.
//!
//! Types 0x00–0x0f belong to the link and are defined here; 0x10–0x3f belong to ROUTE2, whose
//! messages the mesh passes to the router unchanged. Frames of unknown types and fields after the
//! known ones are skipped, so that versions can mix. Every type has a size limit; a longer frame
//! closes the link.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use bytes::{Buf, Bytes, BytesMut};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::authenticator::Authenticator;
use super::code::CloseCode;
use crate::id::{Cost, NodeId};
use crate::switch::Cookie;

/// The protocol versions that this crate speaks, newest first.
pub(crate) const VERSIONS: &[u16] = &[1];

/// Maximum length of a frame of unknown type in bytes; it is read and skipped.
const MAX_UNKNOWN: usize = 64 * 1024;
/// The longest message of ROUTE2, in bytes; each of its types has its own limit below that, which
/// the router knows.
const MAX_ROUTE2: usize = 72 * 1024;
/// The types that belong to ROUTE2.
const ROUTE2: RangeInclusive<u8> = 0x10..=0x3f;
const MAX_HELLO: usize = 4 * 1024;
const MAX_SMALL: usize = 512;
/// A chain of 8 KiB, a signature, and what was signed.
pub(crate) const MAX_AUTHENTICATOR: usize = 12 * 1024;
/// How deep arrays and maps may nest in a frame.
const MAX_DEPTH: usize = 16;

/// The first frame on a control stream, both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Protocol versions, newest first.
    pub(crate) versions: Vec<u16>,
    /// The claimed id of the sender; its certificate must contain it.
    pub(crate) id: NodeId,
    /// Greater than that of any earlier start.
    pub(crate) epoch: u64,
    /// Random per process start.
    pub(crate) instance: u64,
    /// The cost of the link announced by the sender.
    pub(crate) cost: Cost,
    /// Whether the sender is a stub: it keeps no database, and is an entry in the receiver's
    /// record.
    pub(crate) stub: bool,
    /// Whether the sender forwards packets of other nodes (transit).
    pub(crate) transit: bool,
    /// The address at which the sender sees the receiver.
    pub(crate) observed: SocketAddr,
    /// What the receiver must put into the packets that it sends to the sender over this link.
    pub(crate) cookie: Cookie,
    /// The sender's software and version, for people.
    pub(crate) agent: String,
}

/// A frame of the control stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    /// Identifies the sender.
    Hello(Box<Hello>),
    /// Elects this link to carry the routing session. Sent by the end with the smaller id; the
    /// number grows.
    Select(u64),
    /// Are you there?
    Ping(u64),
    /// I am: the number from the ping.
    Pong(u64),
    /// From a stub: is there a route to this node?
    Query(NodeId),
    /// To a stub: the cost and hops to the node, if there is a route; otherwise, if the node has
    /// left the mesh, for how many milliseconds it has been gone, and whether it was ephemeral.
    Answer(NodeId, Option<(u64, u32)>, Option<(u64, bool)>),
    /// To a stub: it is part of the mesh now, which knows this many nodes.
    Attached(u64),
    /// From a stub: start a convergence wave for the route to it, with a deadline in milliseconds.
    Converge(u64),
    /// To a stub: whether all nodes have the route, how many of how many.
    Converged(bool, u64, u64),
    /// The address at which I see you is another one now.
    Observed(SocketAddr),
    /// A certificate that this end has renewed, with the proof that it is this end's.
    Authenticator(Authenticator),
    /// Another live process has tried to link here with your id, and was refused: its instance and
    /// its address, if known.
    Twin(u64, String),
    /// From a stub: its proof that it is attached to the receiver.
    Attach(SignedStatement),
    /// A message of ROUTE2, with its type.
    Route(Bytes),
}

/// What a stub has signed, with its credential. The router reads the statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedStatement {
    pub(crate) statement: Bytes,
    pub(crate) signature: Bytes,
    pub(crate) credential: Bytes,
}

/// Why bytes are not a frame. The sender's fault: its link is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FrameError {
    /// Longer than its type allows.
    #[error("a frame of type {frame_type:#04x} has {len} bytes; at most {max} are allowed")]
    TooLong { frame_type: u8, len: usize, max: usize },
    /// Not a MessagePack array of the shape that its type has.
    #[error("a frame could not be read: {0}")]
    Malformed(String),
}

impl FrameError {
    /// The code with which the link is closed.
    pub(crate) fn code(&self) -> CloseCode {
        match self {
            Self::TooLong { .. } => CloseCode::FrameTooLong,
            Self::Malformed(_) => CloseCode::BadFrame,
        }
    }
}

mod frame_type {
    pub(super) const HELLO: u8 = 0x00;
    pub(super) const SELECT: u8 = 0x01;
    pub(super) const PING: u8 = 0x02;
    pub(super) const PONG: u8 = 0x03;
    pub(super) const QUERY: u8 = 0x04;
    pub(super) const ANSWER: u8 = 0x05;
    pub(super) const ATTACHED: u8 = 0x06;
    pub(super) const CONVERGE: u8 = 0x07;
    pub(super) const CONVERGED: u8 = 0x08;
    pub(super) const OBSERVED: u8 = 0x09;
    pub(super) const AUTHENTICATOR: u8 = 0x0a;
    pub(super) const TWIN: u8 = 0x0b;
    pub(super) const ATTACH: u8 = 0x0c;
}

/// The longest frame of any type, in bytes, without its length.
pub(crate) fn max_frame() -> usize {
    MAX_ROUTE2.max(MAX_UNKNOWN)
}

fn max_len(frame_type: u8) -> usize {
    match frame_type {
        frame_type::HELLO => MAX_HELLO,
        frame_type::SELECT..=frame_type::OBSERVED | frame_type::TWIN => MAX_SMALL,
        frame_type::AUTHENTICATOR | frame_type::ATTACH => MAX_AUTHENTICATOR,
        _ if ROUTE2.contains(&frame_type) => MAX_ROUTE2,
        _ => MAX_UNKNOWN,
    }
}

impl Frame {
    /// The frame as bytes, its length in front.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = match self {
            Self::Hello(hello) => {
                let h = hello.as_ref();
                pack(&(
                    frame_type::HELLO,
                    &h.versions,
                    &h.id,
                    h.epoch,
                    h.instance,
                    h.cost,
                    h.stub,
                    h.transit,
                    h.observed.to_string(),
                    serde_bytes::Bytes::new(&h.cookie.0),
                    &h.agent,
                ))
            }
            Self::Select(number) => pack(&(frame_type::SELECT, number)),
            Self::Ping(nonce) => pack(&(frame_type::PING, nonce)),
            Self::Pong(nonce) => pack(&(frame_type::PONG, nonce)),
            Self::Query(node) => pack(&(frame_type::QUERY, node)),
            Self::Answer(node, route, None) => pack(&(frame_type::ANSWER, node, route)),
            Self::Answer(node, route, left) => pack(&(frame_type::ANSWER, node, route, left)),
            Self::Attached(nodes) => pack(&(frame_type::ATTACHED, nodes)),
            Self::Converge(millis) => pack(&(frame_type::CONVERGE, millis)),
            Self::Converged(converged, count, expected) => {
                pack(&(frame_type::CONVERGED, converged, count, expected))
            }
            Self::Observed(address) => pack(&(frame_type::OBSERVED, address.to_string())),
            Self::Authenticator(proof) => pack(&(
                frame_type::AUTHENTICATOR,
                serde_bytes::Bytes::new(&proof.credential),
                serde_bytes::Bytes::new(&proof.signature),
            )),
            Self::Twin(instance, address) => pack(&(frame_type::TWIN, instance, address)),
            Self::Attach(signed) => pack(&(
                frame_type::ATTACH,
                serde_bytes::Bytes::new(&signed.statement),
                serde_bytes::Bytes::new(&signed.signature),
                serde_bytes::Bytes::new(&signed.credential),
            )),
            Self::Route(message) => message.to_vec(),
        };
        let mut frame = Vec::with_capacity(4 + body.len());
        frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
        frame.extend_from_slice(&body);
        frame
    }

    /// Reads a frame, without its length; `None` if its type is unknown.
    pub(crate) fn decode(body: &Bytes) -> Result<Option<Self>, FrameError> {
        let frame_type = peek_type(body)?;
        let max = max_len(frame_type);
        if body.len() > max {
            return Err(FrameError::TooLong { frame_type, len: body.len(), max });
        }
        Ok(Some(match frame_type {
            frame_type::HELLO => Self::Hello(Box::new(decode_hello(body)?)),
            frame_type::SELECT => Self::Select(unpack::<(u8, u64)>(body)?.1),
            frame_type::PING => Self::Ping(unpack::<(u8, u64)>(body)?.1),
            frame_type::PONG => Self::Pong(unpack::<(u8, u64)>(body)?.1),
            frame_type::QUERY => Self::Query(unpack::<(u8, NodeId)>(body)?.1),
            frame_type::ANSWER => {
                type Fields = (u8, NodeId, Option<(u64, u32)>);
                type WithLeft = (u8, NodeId, Option<(u64, u32)>, Option<(u64, bool)>);
                // The last field is optional, and a later version may have put another one there.
                match unpack::<WithLeft>(body) {
                    Ok((_, node, route, left)) => Self::Answer(node, route, left),
                    Err(_) => {
                        let (_, node, route) = unpack::<Fields>(body)?;
                        Self::Answer(node, route, None)
                    }
                }
            }
            frame_type::ATTACHED => Self::Attached(unpack::<(u8, u64)>(body)?.1),
            frame_type::CONVERGE => Self::Converge(unpack::<(u8, u64)>(body)?.1),
            frame_type::CONVERGED => {
                let (_, converged, count, expected) = unpack::<(u8, bool, u64, u64)>(body)?;
                Self::Converged(converged, count, expected)
            }
            frame_type::OBSERVED => Self::Observed(observed(&unpack::<(u8, String)>(body)?.1)?),
            frame_type::AUTHENTICATOR => {
                type Fields = (u8, serde_bytes::ByteBuf, serde_bytes::ByteBuf);
                let (_, credential, signature) = unpack::<Fields>(body)?;
                let (credential, signature) =
                    (credential.into_vec().into(), signature.into_vec().into());
                Self::Authenticator(Authenticator { credential, signature })
            }
            frame_type::TWIN => {
                let (_, instance, address) = unpack::<(u8, u64, String)>(body)?;
                Self::Twin(instance, address)
            }
            frame_type::ATTACH => {
                type Fields =
                    (u8, serde_bytes::ByteBuf, serde_bytes::ByteBuf, serde_bytes::ByteBuf);
                let (_, statement, signature, credential) = unpack::<Fields>(body)?;
                let [statement, signature, credential] =
                    [statement, signature, credential].map(|bytes| bytes.into_vec().into());
                Self::Attach(SignedStatement { statement, signature, credential })
            }
            _ if ROUTE2.contains(&frame_type) => Self::Route(body.clone()),
            _ => return Ok(None),
        }))
    }
}

/// The type of a frame: the first element of its array.
fn peek_type(body: &[u8]) -> Result<u8, FrameError> {
    let malformed = |what: &str| FrameError::Malformed(what.to_owned());
    let ([0x91..=0x9f, rest @ ..] | [0xdc, _, _, rest @ ..] | [0xdd, _, _, _, _, rest @ ..]) = body
    else {
        return Err(malformed("not an array with a type"));
    };
    match rest {
        [number @ 0x00..=0x7f, ..] | [0xcc, number, ..] => Ok(*number),
        _ => Err(malformed("the type is not a small number")),
    }
}

fn decode_hello(body: &[u8]) -> Result<Hello, FrameError> {
    type Fields =
        (u8, Vec<u16>, NodeId, u64, u64, Cost, bool, bool, String, serde_bytes::ByteBuf, String);
    let (_, versions, id, epoch, instance, cost, stub, transit, observed, cookie, agent) =
        unpack::<Fields>(body)?;
    let observed = self::observed(&observed)?;
    let cookie = cookie
        .as_slice()
        .try_into()
        .map(Cookie)
        .map_err(|_| FrameError::Malformed("a cookie has 8 bytes".to_owned()))?;
    Ok(Hello { versions, id, epoch, instance, cost, stub, transit, observed, cookie, agent })
}

fn observed(address: &str) -> Result<SocketAddr, FrameError> {
    address.parse().map_err(|_| {
        FrameError::Malformed("the observed address is not a socket address".to_owned())
    })
}

fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("writing plain data to a vector cannot fail")
}

/// Reads the fields that this version knows; more may follow them.
fn unpack<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(body);
    // Skipped fields may nest, and each level takes stack: the default depth would overflow it.
    decoder.set_max_depth(MAX_DEPTH);
    match Known::<T>::deserialize(&mut decoder) {
        Ok(Known(fields)) => Ok(fields),
        Err(error) => Err(FrameError::Malformed(error.to_string())),
    }
}

/// The first fields of an array, whatever follows them.
struct Known<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Known<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of fields")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<T, A::Error> {
                let known = T::deserialize(SeqAccessDeserializer::new(&mut fields))?;
                while fields.next_element::<IgnoredAny>()?.is_some() {}
                Ok(known)
            }
        }

        deserializer.deserialize_seq(Fields(PhantomData)).map(Self)
    }
}

/// Reads frames from a control stream.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: quinn::RecvStream,
    /// The length of the current frame, and how much of length and body has been read.
    buffer: BytesMut,
}

impl FrameReader {
    pub(crate) fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame of a known type; `None` at the end of the stream. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadFrameError> {
        loop {
            while let Some(body) = self.take_body()? {
                if let Some(frame) = Frame::decode(&body)? {
                    return Ok(Some(frame));
                }
            }
            match self.stream.read_chunk(READ_CHUNK, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    return Err(FrameError::Malformed(
                        "the stream ended inside a frame".to_owned(),
                    )
                    .into());
                }
            }
        }
    }

    /// The body of the frame at the head of the buffer, once all of it is there.
    fn take_body(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((len, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes(*len) as usize;
        // Refused by its length alone, before the rest of it is kept; the type is in the first
        // bytes.
        let (frame_type, max) = match peek_type(rest) {
            Ok(frame_type) => (frame_type, max_len(frame_type)),
            Err(_) => (u8::MAX, max_frame()),
        };
        if len > max {
            return Err(FrameError::TooLong { frame_type, len, max });
        }
        if rest.len() < len {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }
}

/// How much is read from the control stream at a time, in bytes: a few packets' worth.
const READ_CHUNK: usize = 16 * 1024;

/// Why no frame could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadFrameError {
    /// Malformed frame: the sender's fault.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream or its connection ended.
    #[error(transparent)]
    Stream(#[from] quinn::ReadError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            versions: vec![1],
            id: "a".parse().unwrap(),
            epoch: 2,
            instance: 3,
            cost: Cost::DEFAULT,
            stub: false,
            transit: true,
            observed: "127.0.0.1:9".parse().unwrap(),
            cookie: Cookie([7; 8]),
            agent: "t".to_owned(),
        }
    }

    /// Of the ephemeral `a~1` at `b`, with version 1, 2, 3.
    fn attachment() -> SignedStatement {
        SignedStatement {
            statement: Bytes::from_static(b"\x96\xa3a~1\xa1b\x01\x02\x03\xceiU\xb9\x00"),
            signature: Bytes::from_static(b"signature"),
            credential: Bytes::from_static(b"credential"),
        }
    }

    fn body(frame: &Frame) -> Vec<u8> {
        frame.encode().split_off(4)
    }

    fn decode(body: &[u8]) -> Result<Option<Frame>, FrameError> {
        Frame::decode(&Bytes::copy_from_slice(body))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn frames_have_the_bytes_that_the_protocol_page_shows() {
        let page = include_str!("../../docs/protocol.md");
        for frame in [
            Frame::Hello(Box::new(hello())),
            Frame::Select(7),
            Frame::Ping(258),
            Frame::Pong(258),
            Frame::Query("b".parse().unwrap()),
            Frame::Answer("b".parse().unwrap(), Some((3, 2)), None),
            Frame::Answer("b".parse().unwrap(), None, None),
            Frame::Answer("b".parse().unwrap(), None, Some((90_000, false))),
            Frame::Attached(5),
            Frame::Converge(10_000),
            Frame::Converged(true, 5, 5),
            Frame::Converged(false, 3, 5),
            Frame::Observed("192.0.2.1:9".parse().unwrap()),
            Frame::Observed("[2001:db8::1]:9".parse().unwrap()),
            Frame::Authenticator(Authenticator {
                credential: Bytes::from_static(b"credential"),
                signature: Bytes::from_static(b"signature"),
            }),
            Frame::Twin(3, "192.0.2.1:9".to_owned()),
            Frame::Attach(attachment()),
        ] {
            let bytes = frame.encode();
            assert!(page.contains(&hex(&bytes)), "not on the page: {frame:?} {}", hex(&bytes));
            assert_eq!(decode(&bytes[4..]), Ok(Some(frame)));
        }
    }

    #[test]
    fn the_limits_on_the_protocol_page_are_those_of_the_code() {
        let (_, page) =
            include_str!("../../docs/protocol.md").split_once("### Frame types").unwrap();
        for (shown, frame_type) in [
            ("`0x00`", 0x00),
            ("`0x01`", 0x01),
            ("`0x07`", 0x07),
            ("`0x09`", 0x09),
            ("`0x0a`", 0x0a),
            ("`0x0b`", 0x0b),
            ("`0x0c`", 0x0c),
            ("`0x0d`–`0x0f`", 0x0d),
        ] {
            let row = page.lines().find(|line| line.starts_with(&format!("| {shown} |"))).unwrap();
            let limit = row.trim_end_matches(" |").rsplit("| ").next().unwrap().replace(',', "");
            assert_eq!(limit, max_len(frame_type).to_string(), "{row}");
        }
    }

    #[test]
    fn unknown_types_and_trailing_fields_are_skipped() {
        assert_eq!(decode(&pack(&(0x0e_u8, "later"))), Ok(None));
        assert_eq!(
            decode(&pack(&(frame_type::PING, 7_u64, "later", [1, 2]))),
            Ok(Some(Frame::Ping(7)))
        );
    }

    #[test]
    fn no_bytes_make_the_decoder_panic() {
        let whole = body(&Frame::Hello(Box::new(hello())));
        for len in 0..whole.len() {
            assert!(decode(&whole[..len]).is_err(), "cut at {len}");
        }
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 24) as u8;
            }
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_frame_longer_than_its_type_allows_is_refused() {
        let long = Hello { agent: "x".repeat(MAX_HELLO), ..hello() };
        assert!(matches!(
            decode(&body(&Frame::Hello(Box::new(long)))),
            Err(FrameError::TooLong { frame_type: 0, max: MAX_HELLO, .. })
        ));
    }
}
