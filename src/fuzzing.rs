//! Entry points for fuzzers: each takes any bytes to one decoder of what others send, and checks
//! what comes out.
//!
//! `fuzz/` runs them with libFuzzer; `tests/hostile/fuzzed.rs` replays the corpora. Not part of the
//! interface.

mod credit;
mod shares;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::id::NodeId;
use crate::mesh::links::election::{Arrival, Connections, Election, MAX_LINKS_OF_ONE, Step};
use crate::mesh::links::id::LinkId;
use crate::mesh::services::opening::open::{OpenHeader, Parsed};
use crate::mesh::services::opening::refuse::RefusedOpen;
use crate::mesh::{PeerAddr, clock};
#[cfg(feature = "policy")]
use crate::policy::{Action, Policy, Subject};
use crate::switch::{Header, HeaderError};
use crate::transport::carrier::Decoder;
use crate::transport::credential::{self, Verifier};
use crate::transport::frame::Frame;
use crate::transport::refusal::readable;
use crate::transport::{Fingerprint, Identity, Refusal, Trust, ids_in_certificate};
use crate::work::frame::{CallFrame, ResponseFrame};
use crate::work::unit::wire::{Reply, Subscription, UnitRequest};
use crate::{Authority, Directive};

/// Takes any bytes; panics if a decoder breaks a promise.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its corpus in `fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("frames", frames),
    ("header", header),
    ("carrier", carrier),
    ("open", open),
    ("work", work),
    ("unit", unit),
    ("datagram", datagram),
    ("certificate", certificate),
    ("identity", identity),
    ("text", text),
    ("election", election),
    ("shares", shares),
    ("credit", credit),
    #[cfg(feature = "mdns")]
    ("announcement", announcement),
    #[cfg(feature = "cli")]
    ("control", control),
    #[cfg(feature = "cli")]
    ("config", config),
    #[cfg(feature = "policy")]
    ("policy", policy),
];

/// Takes any bytes as the stream of a carrier: the packets, and the error if there is one, are the
/// same however the stream is cut.
pub fn carrier(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let decode = |parts: Vec<&[u8]>| {
        let (mut decoder, mut packets) = (Decoder::default(), Vec::new());
        let result = parts
            .into_iter()
            .try_for_each(|part| decoder.decode(part, |packet| packets.push(packet.to_vec())));
        assert!(decoder.held() <= usize::from(u16::MAX) + 2, "more than one frame is held");
        (packets, result)
    };
    let whole = decode(vec![stream]);
    assert_eq!(decode(stream.chunks(usize::from(*cut) + 1).collect()), whole);
}

/// Frames of the control stream, HELLO among them. What was read is written, and read again as the
/// same.
pub fn frames(bytes: &[u8]) {
    let Ok(Some(frame)) = Frame::decode(&Bytes::copy_from_slice(bytes)) else { return };
    let written = frame.encode();
    let len = u32::try_from(written.len() - 4).expect("frames are far below 4 GiB");
    assert_eq!(written[..4], len.to_be_bytes());
    let again = Frame::decode(&Bytes::copy_from_slice(&written[4..]));
    assert_eq!(again, Ok(Some(frame)));
}

/// Headers of switched packets, and what a relay does to them.
pub fn header(bytes: &[u8]) {
    match Header::decode(bytes) {
        Ok(header) => {
            let written = header.encode();
            assert_eq!(*written, bytes[..header.wire_len()]);
            let mut packet = bytes.to_vec();
            Header::rewrite(&mut packet, header.cookie);
            let hop_limit = header.hop_limit.saturating_sub(1);
            assert_eq!(Header::decode(&packet), Ok(Header { hop_limit, ..header }));
        }
        Err(HeaderError::TooShort) => assert!(bytes.len() <= Header::MAX_LEN),
        Err(HeaderError::UnknownType(kind)) => assert!(Header::len_of(kind).is_none()),
    }
}

/// The first bytes of a stream, and the answer to them. The first byte says which.
pub fn open(bytes: &[u8]) {
    let Some((side, bytes)) = bytes.split_first() else { return };
    if side % 2 == 1 {
        let refused = RefusedOpen::decode(bytes);
        let again = RefusedOpen::decode(&refused.encode()[1..]);
        assert_eq!(again.code, refused.code);
        return;
    }
    let came = Bytes::copy_from_slice(bytes);
    if let Parsed::Header(Ok(header), rest) = OpenHeader::parse(&came) {
        assert!(rest.len() + 4 <= came.len());
        let written = OpenHeader::encoded(&header.service, header.options, header.wants_credit);
        let Parsed::Header(Ok(again), none) = OpenHeader::parse(&written) else {
            unreachable!("what was written is read")
        };
        assert_eq!((again, none.len()), (header, 0));
    }
}

/// Frames of calls, and what nodes say of themselves. The first byte says which.
pub fn work(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => {
            let Ok(call) = CallFrame::decode(bytes) else { return };
            assert_eq!(CallFrame::decode(&call.encode()[4..]), Ok(call));
        }
        1 => {
            let Ok(response) = ResponseFrame::decode(&Bytes::copy_from_slice(bytes)) else {
                return;
            };
            assert!(response.body.len() <= bytes.len());
        }
        _ => {
            let directives = crate::work::directives(bytes);
            assert!(directives.len() <= bytes.len());
        }
    }
}

/// Frames of units. The first byte says which. What was read is written, and read again as the
/// same; details of later versions become known ones the first time.
pub fn unit(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => {
            let Ok(request) = UnitRequest::decode(bytes) else { return };
            let again = UnitRequest::decode(&request.encode()[4..]);
            assert_eq!(again.expect("what was written is read"), request);
        }
        1 => {
            let again = |reply: &Reply| {
                Reply::decode(&reply.encode()[4..]).expect("what was written is read")
            };
            let Ok(reply) = Reply::decode(bytes) else { return };
            let known = again(&reply);
            assert_eq!(again(&known), known);
        }
        _ => {
            let Ok(subscription) = Subscription::decode(bytes) else { return };
            assert_eq!(
                Subscription::decode(&subscription.encode()[4..]).expect("it is read"),
                subscription
            );
        }
    }
}

/// A datagram of a peer.
pub fn datagram(bytes: &[u8]) {
    if let Some((name, payload)) =
        crate::mesh::services::datagrams::datagram::parse(&Bytes::copy_from_slice(bytes))
    {
        assert_eq!(1 + name.len() + payload.len(), bytes.len());
    }
}

/// Certificates and chains. Odd first byte: a genuine chain, changed at the places that the rest
/// names.
pub fn certificate(bytes: &[u8]) {
    static GENUINE: OnceLock<(NodeId, Verifier, Identity)> = OnceLock::new();
    let (id, verifier, identity) = GENUINE.get_or_init(|| {
        let authority = Authority::new("fuzzing", 1).expect("a CA can be made");
        let id: NodeId = "node".parse().expect("a node id");
        let identity = authority.issue(&id, 1).expect("the CA can issue");
        (id, Verifier::new(authority.trust().clone()), identity)
    });
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let now = identity.not_before() + Duration::from_secs(3_600);
    let changed;
    let credential = if kind % 2 == 0 {
        bytes
    } else {
        let mut genuine = credential::encode(&identity.certified().cert).to_vec();
        for place in bytes.chunks_exact(3) {
            let at = usize::from(u16::from_be_bytes([place[0], place[1]])) % genuine.len();
            genuine[at] ^= place[2];
        }
        changed = genuine;
        &changed
    };
    if let Some(own) = credential::decode(credential).and_then(|chain| chain.into_iter().next()) {
        let _ = ids_in_certificate(&own);
    }
    let _ = ids_in_certificate(bytes);
    let name = crate::router::CredentialName::of(credential).0;
    // No signature is valid for a message that was not signed.
    let verified = verifier.verify(id, b"message", bytes, (name, credential), now);
    assert!(verified.is_err());
}

/// The files of an identity: chain, key and roots, as PEM.
pub fn identity(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let parts: Vec<&str> = text.split('\u{1f}').collect();
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    // Keys made of anything are seldom keys; what matters is that reading ends, and that errors can
    // be shown.
    if let Err(error) = Identity::from_pem(part(0), part(1), part(2)) {
        assert!(!error.to_string().is_empty());
    }
    if let Err(error) = Trust::from_pem(part(2)) {
        assert!(!error.to_string().is_empty());
    }
}

/// Texts of others: reasons of closes, addresses, names.
pub fn text(bytes: &[u8]) {
    let shown = readable(bytes);
    assert!(!shown.chars().any(char::is_control));
    for code in [0_u32, 0x03, 0x08, 0x12a, 0x12e] {
        let close = quinn::ApplicationClose {
            error_code: code.into(),
            reason: Bytes::copy_from_slice(bytes),
        };
        let error = quinn::ConnectionError::ApplicationClosed(close);
        if let Some(refusal) = Refusal::from_connection_error(&error) {
            assert!(!refusal.to_string().chars().any(char::is_control), "{refusal}");
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(directive) = text.parse::<Directive>() {
        assert_eq!(directive.as_str(), text);
    }
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.as_str(), text);
        assert!(id.base().suffix().is_none());
    }
    let _ = text.parse::<Fingerprint>();
    if let Ok(peer) = text.parse::<PeerAddr>() {
        assert_eq!(peer.to_string().parse::<PeerAddr>(), Ok(peer));
    }
}

/// What is announced on the local network: addresses, of which few are tried.
#[cfg(feature = "mdns")]
pub fn announcement(bytes: &[u8]) {
    let (v4, v6) = bytes.split_at(bytes.len() / 2);
    let port = |low: u8| u16::from(low) << 3;
    let v4 = v4.chunks_exact(5).map(|b| SocketAddr::from(([b[0], b[1], b[2], b[3]], port(b[4]))));
    let v6 = v6.chunks_exact(17).map(|b| {
        let octets: [u8; 16] = b[..16].try_into().expect("16 bytes");
        SocketAddr::from((octets, port(b[16])))
    });
    let mine = [
        ("192.168.1.5", 24),
        ("2001:db8:1::5", 64),
        ("127.0.0.1", 8),
        ("10.0.0.1", 0),
        ("fe80::1", 64),
    ];
    let mine: Vec<_> = mine
        .iter()
        .map(|(ip, prefix)| {
            crate::mesh::LocalAddress::new(ip.parse().expect("an address"), *prefix, "eth0")
        })
        .collect();
    let tried = crate::mesh::network::lan::on_segment(v4.chain(v6), &mine);
    assert!(tried.len() <= 8);
    assert!(tried.iter().all(|addr| addr.port() != 0 && !addr.ip().is_loopback()));
}

/// What goes over the control socket.
#[cfg(feature = "cli")]
pub fn control(bytes: &[u8]) {
    crate::cli::fuzz_control(bytes);
}

/// A configuration file.
#[cfg(feature = "cli")]
pub fn config(bytes: &[u8]) {
    crate::cli::fuzz_config(bytes);
}

/// A policy. Decisions are what their explanations say.
#[cfg(feature = "policy")]
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let policy = match Policy::from_toml(text) {
        Ok(policy) => policy,
        Err(error) => return assert!(!error.message().is_empty()),
    };
    let node = NodeId::try_from("edge-1").expect("it is an id");
    let subject = Subject::new(&node).with_roles(["monitor"]);
    let directive = Directive::try_from("ansible:run").expect("it is a directive");
    let compiled = policy.compile(&subject, None);
    for action in [Action::call(&directive), Action::submit(&directive), Action::TRANSIT] {
        let explained = policy.explain(&subject, &action, None);
        assert_eq!(explained.decision, compiled.decide(&action));
    }
}

/// Histories of budgets that sources share: places, windows, responses.
pub fn shares(bytes: &[u8]) {
    shares::run(bytes);
}

/// A history of streams, and the credit for more.
pub fn credit(bytes: &[u8]) {
    credit::run(bytes);
}

/// A history of one node's links to three neighbours.
pub fn election(bytes: &[u8]) {
    let mut links = Links::new(bytes.first().is_some_and(|first| first % 8 == 7));
    for op in bytes.get(1..).unwrap_or_default().chunks(3).take(400) {
        let [what, which, how] = [op.first(), op.get(1), op.get(2)].map(|byte| *byte.unwrap_or(&0));
        links.step(what, which, how);
        links.check();
    }
    links.end();
}

/// The links under election, over connections that end when the input says so.
struct Links {
    election: Election,
    wires: Wires,
    now: Instant,
    next: u64,
    known: BTreeSet<LinkId>,
    /// Pings that were sent, and not answered.
    pings: Vec<(LinkId, u64)>,
}

#[derive(Default)]
struct Wires {
    closed: BTreeSet<LinkId>,
    used: BTreeSet<LinkId>,
}

impl Connections for Wires {
    fn is_closed(&self, link: LinkId) -> bool {
        self.closed.contains(&link)
    }

    fn in_use(&self, link: LinkId) -> bool {
        self.used.contains(&link)
    }

    fn rtt(&self, link: LinkId) -> Duration {
        Duration::from_millis(link.0 % 400)
    }

    fn exporter(&self, link: LinkId) -> [u8; 32] {
        [(link.0.wrapping_mul(37)) as u8; 32]
    }
}

const NEIGHBOURS: [&str; 3] = ["a", "m", "z"];

impl Links {
    fn new(stub: bool) -> Self {
        let election = Election::new("k".parse().expect("a node id"), stub);
        let (wires, known, pings) = (Wires::default(), BTreeSet::new(), Vec::new());
        Self { election, wires, now: clock::now(), next: 0, known, pings }
    }

    fn pick(&self, which: u8) -> Option<LinkId> {
        self.known.iter().nth(usize::from(which) % self.known.len().max(1)).copied()
    }

    fn step(&mut self, what: u8, which: u8, how: u8) {
        let now = self.now;
        let steps = match what % 8 {
            0 | 1 => {
                let peer: NodeId =
                    NEIGHBOURS[usize::from(which) % NEIGHBOURS.len()].parse().expect("a node id");
                if !self.election.has_room(&peer) {
                    return;
                }
                self.next += 1;
                let link = LinkId(self.next);
                self.known.insert(link);
                let arrival = Arrival {
                    peer,
                    instance: u64::from(how % 3),
                    stub: how & 0x40 != 0,
                    dialled: how & 0x80 != 0,
                };
                self.election.arrive(link, arrival, &self.wires, now)
            }
            2 => {
                let Some(link) = self.pick(which) else { return };
                self.election.selected(link, u64::from(how), &self.wires, now)
            }
            3 => {
                let answered = usize::from(which) % self.pings.len().max(1);
                let Some((link, nonce)) = self.pings.get(answered).copied() else { return };
                // Now and then an answer to what was not asked.
                self.election.answered(
                    link,
                    nonce.wrapping_add(u64::from(how == 255)),
                    &self.wires,
                    now,
                )
            }
            4 => {
                let Some(link) = self.pick(which) else { return };
                self.wires.closed.insert(link);
                self.known.remove(&link);
                self.election.closed(link, &self.wires, now)
            }
            5 => {
                // The connection has ended, and that has not been reported yet.
                let Some(link) = self.pick(which) else { return };
                self.wires.closed.insert(link);
                return;
            }
            6 => {
                let Some(link) = self.pick(which) else { return };
                if !self.wires.used.remove(&link) {
                    self.wires.used.insert(link);
                }
                return;
            }
            _ => {
                self.now += Duration::from_millis(
                    [0, 1, 100, 600, 1_500, 11_000, 40_000, 3_700_000][usize::from(how % 8)],
                );
                self.election.handle_timeout(&self.wires, self.now)
            }
        };
        self.apply(steps);
    }

    fn apply(&mut self, steps: Vec<Step>) {
        assert!(steps.len() <= 16 + 4 * self.known.len(), "{} steps at once", steps.len());
        for step in steps {
            match step {
                Step::Ping { link, nonce } => self.pings.push((link, nonce)),
                Step::Close { link, .. } => {
                    self.wires.closed.insert(link);
                }
                Step::SessionUp(link) => assert!(self.known.contains(&link)),
                Step::Select { .. } | Step::SessionDown(_) | Step::DuplicateId { .. } => {}
            }
        }
    }

    fn check(&self) {
        for (peer, link) in self.election.active() {
            assert!(self.known.contains(link), "the link of {peer} is gone");
            assert!(self.election.phase(*link).is_some());
        }
        let links = NEIGHBOURS.len() * MAX_LINKS_OF_ONE;
        assert!(self.known.len() <= links, "{} links", self.known.len());
    }

    /// Time passes until nothing waits, then every link ends.
    fn end(&mut self) {
        for _ in 0..1_000 {
            let Some(at) = self.election.next_timeout() else { break };
            self.now = self.now.max(at);
            let steps = self.election.handle_timeout(&self.wires, self.now);
            self.apply(steps);
            for link in self.wires.closed.clone() {
                if self.known.remove(&link) {
                    let steps = self.election.closed(link, &self.wires, self.now);
                    self.apply(steps);
                }
            }
            let spins = self.election.next_timeout().is_some_and(|next| next <= self.now);
            // A drained link in use is looked at again later, not at once.
            assert!(!spins, "it wants to be woken at once, again");
        }
        for link in self.known.clone() {
            self.wires.closed.insert(link);
            self.known.remove(&link);
            let steps = self.election.closed(link, &self.wires, self.now);
            self.apply(steps);
        }
        assert!(self.election.active().is_empty());
    }
}
