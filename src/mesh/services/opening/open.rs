//! The first bytes on a stream to a service: OPEN, and the answer.
//!
//! The opener writes a u32 length and a MessagePack array
//! `[version, service, deadline in ms | nil, wants credit, peer timeout in ms]`. The last two
//! fields are optional. Data may follow at once. The acceptor answers with the byte 0x00 and its
//! own data, or with 0x01, `[code, text]`, and the end of the stream.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;

use super::refuse::{RefuseCode, RefusedOpen};
use crate::id::{InvalidDirective, InvalidName, NodeId, ServiceName};
use crate::mesh::services::ending::{Cause, EndReason, EndedBy};
use crate::transport::Refusal;

/// The version of the header.
const VERSION: u16 = 1;
/// The longest header, in bytes, without its length.
const MAX_HEADER: usize = 256;

/// How a stream is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// How long opening the stream may take. It is sent to the other side, which refuses the stream
    /// afterwards. No limit by default: opening then waits about a second for a route or a place.
    pub deadline: Option<Duration>,
    /// How long the stream may wait for a node that is unreachable: without a route to it and
    /// without a packet from it. From 0.5 s to 10 min; other values are brought within these
    /// bounds. By default, each side has [its own](crate::NodeBuilder::peer_timeout).
    ///
    /// It is sent to the other side, so that both wait for as long, and the stream goes on after an
    /// outage that was shorter. While there is a route, a silent node is given up after 15 s, or
    /// this if that is longer. Streams to a neighbour end with their link, whatever this says.
    pub peer_timeout: Option<Duration>,
}

/// What a stream is opened for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OpenHeader {
    pub(crate) service: ServiceName,
    /// How long the opener will wait, and for how long the stream waits for an unreachable node.
    pub(crate) options: OpenOptions,
    /// Whether the opener holds so many streams that it should be permitted more.
    pub(crate) wants_credit: bool,
}

impl OpenHeader {
    #[cfg(test)]
    fn encode(&self) -> Bytes {
        Self::encoded(&self.service, self.options, self.wants_credit)
    }

    /// The header as bytes, its length in front.
    pub(crate) fn encoded(
        service: &ServiceName,
        options: OpenOptions,
        wants_credit: bool,
    ) -> Bytes {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let fields = match (wants_credit, options.peer_timeout) {
            (_, Some(_)) => 5,
            (true, None) => 4,
            (false, None) => 3,
        };
        // One allocation of the right size: this is on the way of every call.
        let mut bytes = Vec::with_capacity(4 + 2 + 2 + service.as_str().len() + 9 + 1 + 9);
        bytes.extend_from_slice(&[0; 4]);
        let written = rmp::encode::write_array_len(&mut bytes, fields)
            .and_then(|_| rmp::encode::write_uint(&mut bytes, VERSION.into()))
            .and_then(|_| rmp::encode::write_str(&mut bytes, service.as_str()));
        written.expect("writing plain data to a vector cannot fail");
        match options.deadline.map(millis) {
            None => bytes.push(rmp::Marker::Null.to_u8()),
            Some(millis) => {
                rmp::encode::write_uint(&mut bytes, millis)
                    .expect("writing plain data to a vector cannot fail");
            }
        }
        if fields > 3 {
            let marker = if wants_credit { rmp::Marker::True } else { rmp::Marker::False };
            bytes.push(marker.to_u8());
        }
        if let Some(peer_timeout) = options.peer_timeout {
            rmp::encode::write_uint(&mut bytes, millis(peer_timeout))
                .expect("writing plain data to a vector cannot fail");
        }
        let len = bytes.len() as u32 - 4;
        bytes[..4].copy_from_slice(&len.to_be_bytes());
        bytes.into()
    }

    /// Reads the header of a stream from `came`, which has arrived, and what follows it. Returns
    /// the header and the bytes that were read beyond it, or `None` if there is no header.
    pub(crate) async fn read(
        mut came: Bytes,
        stream: &mut impl Chunks,
    ) -> Option<(Result<Self, RefuseCode>, Bytes)> {
        loop {
            match Self::parse(&came) {
                Parsed::Header(header, rest) => return Some((header, rest)),
                Parsed::TooLong => return None,
                Parsed::Part => {}
            }
            // A few bytes of a header would keep a batch of packets while the rest is awaited.
            let mut part = came.to_vec();
            drop(came);
            let chunk = stream.next_chunk().await?;
            came = if part.is_empty() {
                chunk
            } else {
                part.extend_from_slice(&chunk);
                part.into()
            };
        }
    }

    /// What the bytes at the start of a stream are.
    pub(crate) fn parse(came: &Bytes) -> Parsed {
        let Some((len, body)) = came.split_first_chunk() else { return Parsed::Part };
        let len = u32::from_be_bytes(*len) as usize;
        if len > MAX_HEADER {
            return Parsed::TooLong;
        }
        match body.get(..len) {
            Some(body) => Parsed::Header(Self::decode(body), came.slice(4 + len..)),
            None => Parsed::Part,
        }
    }

    fn decode(body: &[u8]) -> Result<Self, RefuseCode> {
        // Fields of later versions follow the ones known here.
        let mut cursor = body;
        let fields = rmp::decode::read_array_len(&mut cursor).map_err(|_| RefuseCode::BadHeader)?;
        if fields < 3 {
            return Err(RefuseCode::BadHeader);
        }
        let version: u16 = rmp::decode::read_int(&mut cursor).map_err(|_| RefuseCode::BadHeader)?;
        if version != VERSION {
            return Err(RefuseCode::Version);
        }
        let (service, mut cursor) =
            rmp::decode::read_str_from_slice(cursor).map_err(|_| RefuseCode::BadHeader)?;
        let deadline: Option<u64> = match cursor.split_first() {
            Some((&marker, rest)) if marker == rmp::Marker::Null.to_u8() => {
                cursor = rest;
                None
            }
            _ => Some(rmp::decode::read_int(&mut cursor).map_err(|_| RefuseCode::BadHeader)?),
        };
        let (mut wants_credit, mut peer_timeout) = (false, None);
        if fields > 3
            && let Some((&marker, mut rest)) = cursor.split_first()
        {
            wants_credit = marker == rmp::Marker::True.to_u8();
            // A later version may have put something else here.
            peer_timeout =
                if fields > 4 { rmp::decode::read_int::<u64, _>(&mut rest).ok() } else { None };
        }
        let service = ServiceName::try_from(service).map_err(|_| RefuseCode::UnknownService)?;
        let options = OpenOptions {
            deadline: deadline.map(Duration::from_millis),
            peer_timeout: peer_timeout.map(Duration::from_millis),
        };
        Ok(Self { service, options, wants_credit })
    }
}

/// The header of a stream that was opened, kept for the next one, which mostly asks for the same.
#[derive(Debug, Default)]
pub(crate) struct LastHeader(Mutex<Option<(OpenHeader, Bytes)>>);

impl LastHeader {
    /// As [`OpenHeader::encoded`]. Waits for nobody.
    pub(crate) fn encoded(
        &self,
        service: &ServiceName,
        options: OpenOptions,
        wants_credit: bool,
    ) -> Bytes {
        let encode = || OpenHeader::encoded(service, options, wants_credit);
        // Deadlines may differ from call to call.
        if options.deadline.is_some() {
            return encode();
        }
        let Ok(mut last) = self.0.try_lock() else { return encode() };
        if let Some((header, bytes)) = &*last
            && header.service == *service
            && header.options == options
            && header.wants_credit == wants_credit
        {
            return bytes.clone();
        }
        let bytes = encode();
        let header = OpenHeader { service: service.clone(), options, wants_credit };
        *last = Some((header, bytes.clone()));
        bytes
    }
}

/// A stream of bytes in pieces.
pub(crate) trait Chunks {
    /// The next piece; `None` at the end, or if the stream was reset.
    fn next_chunk(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

impl Chunks for quinn::RecvStream {
    async fn next_chunk(&mut self) -> Option<Bytes> {
        Some(self.read_chunk(usize::MAX, true).await.ok()??.bytes)
    }
}

/// What the bytes at the start of a stream are.
pub(crate) enum Parsed {
    /// A header, and what came right behind it.
    Header(Result<OpenHeader, RefuseCode>, Bytes),
    /// Not a header: it exceeds the maximum length.
    TooLong,
    /// A part of a header: the rest is on its way.
    Part,
}

/// Why a stream could not be opened. Nothing was sent to the service.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name of the node or of the service is not valid: the caller's fault.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// The directive is not valid: the caller's fault.
    #[error(transparent)]
    InvalidDirective(#[from] InvalidDirective),
    /// The mesh has no route to the node: it is unknown, down, or cut off. Try again when it is
    /// reachable.
    #[error("no route to {node}")]
    NoRoute {
        /// The node.
        node: NodeId,
    },
    /// There is a route, but the node did not answer.
    #[error("{node} is unreachable: {why}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What was seen.
        why: String,
    },
    /// The two nodes do not accept each other's certificates.
    #[error("{node}: {why}")]
    NotTrusted {
        /// The node.
        node: NodeId,
        /// Why.
        why: Refusal,
    },
    /// The node did not accept the stream.
    #[error("{node}: {why}")]
    Refused {
        /// The node.
        node: NodeId,
        /// Why.
        why: RefusedOpen,
    },
    /// The deadline passed first.
    #[error("the deadline of {0:?} passed")]
    Deadline(Duration),
    /// This node has as many streams to that node open as it may, or the node permits no more.
    /// Close some, or give a deadline: an open with a deadline waits for a place until then, one
    /// without for about a second.
    #[error("this node has too many streams to {node} open (at most {max} at a time)")]
    TooManyStreams {
        /// The node.
        node: NodeId,
        /// The bound.
        max: usize,
    },
    /// This node has as many peer connections as it may, all in use. Close some streams.
    #[error("too many peer connections ({max})")]
    TooManyPeers {
        /// The bound.
        max: usize,
    },
    /// Another live process has this node's id, and keeps it. Stop one of the two, or give it
    /// another id, and start this one again.
    #[error("this node has yielded its id to another live process, at {to}")]
    Yielded {
        /// Where the other process is, as far as it is known.
        to: String,
    },
    /// This node is shut down.
    #[error("this node is shut down")]
    ShutDown,
}

impl OpenError {
    /// Whether the same attempt may succeed later without anybody changing a setting: there was no
    /// route, the node was unreachable, overloaded or leaving, this node had no room, or the
    /// deadline passed.
    ///
    /// Nothing was handed to the service, so another attempt is always safe.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoRoute { .. }
            | Self::Unreachable { .. }
            | Self::Deadline(_)
            | Self::TooManyStreams { .. }
            | Self::TooManyPeers { .. } => true,
            Self::Refused { why, .. } => why.code.is_transient(),
            Self::InvalidName(_)
            | Self::InvalidDirective(_)
            | Self::NotTrusted { .. }
            | Self::Yielded { .. }
            | Self::ShutDown => false,
        }
    }

    /// The connection ended before the stream was open.
    pub(crate) fn lost(node: &NodeId, cause: Cause) -> Self {
        let node = node.clone();
        match cause {
            Cause { by: EndedBy::This, why: EndReason::ShutDown | EndReason::Dropped, .. } => {
                Self::ShutDown
            }
            Cause { why: EndReason::NotTrusted(why), .. } => Self::NotTrusted { node, why },
            cause => Self::Unreachable { node, why: cause.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_bytes_that_the_protocol_page_shows() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md"));
        let assert_on_page = |bytes: &[u8]| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(page.contains(&format!("`{hex}`")), "not on the page: {hex}");
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (deadline, wants_credit, peer_timeout) in [
            (seconds(5), false, None),
            (None, false, None),
            (None, true, None),
            (None, false, seconds(60)),
            (seconds(5), true, seconds(2)),
        ] {
            let options = OpenOptions { deadline, peer_timeout };
            let header = OpenHeader { service: "echo".parse().unwrap(), options, wants_credit };
            assert_on_page(&header.encode());
            assert_eq!(OpenHeader::decode(&header.encode()[4..]), Ok(header));
        }
        let refused = RefusedOpen { code: RefuseCode::Overloaded, text: "try later".to_owned() };
        assert_on_page(&refused.encode());
        let refused = RefusedOpen::new(RefuseCode::Application(7)).with_text("quota");
        assert_on_page(&refused.encode());
    }

    #[test]
    fn a_header_is_kept_for_streams_that_ask_for_the_same() {
        let (echo, other) = ("echo".parse().unwrap(), "other".parse().unwrap());
        let (usual, last) = (OpenOptions::default(), LastHeader::default());
        let timed = OpenOptions { peer_timeout: Some(Duration::from_secs(2)), ..usual };
        let late = OpenOptions { deadline: Some(Duration::from_secs(2)), ..usual };
        let first = last.encoded(&echo, usual, false);
        assert_eq!(first.as_ptr(), last.encoded(&echo, usual, false).as_ptr());
        for (service, options, credit) in [
            (&echo, usual, true),
            (&other, usual, false),
            (&echo, timed, false),
            (&echo, late, false),
        ] {
            let header = OpenHeader::encoded(service, options, credit);
            assert_eq!(last.encoded(service, options, credit), header);
            assert_eq!(last.encoded(service, options, credit), header);
        }
        assert_eq!(last.encoded(&echo, usual, false), first);
    }

    /// What is left of a stream, and the batch of packets that its first bytes came in.
    struct Late {
        rest: Option<Bytes>,
        batch: Bytes,
    }

    impl Chunks for Late {
        async fn next_chunk(&mut self) -> Option<Bytes> {
            assert!(self.batch.is_unique(), "the batch is kept");
            self.rest.take()
        }
    }

    #[tokio::test]
    async fn a_header_that_is_late_keeps_no_batch_of_packets() {
        let options = OpenOptions::default();
        let header = OpenHeader { service: "echo".parse().unwrap(), options, wants_credit: false };
        let encoded = header.encode();
        for len in 1..encoded.len() {
            let batch = Bytes::from([&encoded[..], b"payload"].concat());
            let (came, rest) = (batch.slice(..len), Bytes::copy_from_slice(&batch[len..]));
            let mut late = Late { rest: Some(rest), batch };
            let read = OpenHeader::read(came, &mut late).await;
            assert_eq!(read, Some((Ok(header.clone()), Bytes::from_static(b"payload"))));
        }
    }

    #[test]
    fn later_fields_are_skipped_and_later_versions_refused() {
        let later = rmp_serde::to_vec(&(1_u16, "echo", None::<u64>, "more")).unwrap();
        assert!(OpenHeader::decode(&later).is_ok());
        let later =
            rmp_serde::to_vec(&(1_u16, "echo", None::<u64>, true, "other", "more")).unwrap();
        assert!(
            OpenHeader::decode(&later).is_ok_and(|header| header.options.peer_timeout.is_none())
        );
        let later = rmp_serde::to_vec(&(2_u16, "echo", None::<u64>)).unwrap();
        assert_eq!(OpenHeader::decode(&later), Err(RefuseCode::Version));
        assert_eq!(OpenHeader::decode(&[0x93, 1]), Err(RefuseCode::BadHeader));
        assert_eq!(OpenHeader::decode(&[]), Err(RefuseCode::BadHeader));
    }
}
