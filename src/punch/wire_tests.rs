//! Messages and probes have the bytes that the protocol page shows.

use super::wire::probe::Content;
use super::{
    Answer, Candidate, CandidateKind, Message, NatClass, Offer, PathCookie, Probe, ProbeKey, Role,
    Terms, Volley,
};

const ROUND: u64 = 0xfedc_ba98_7654_3210;
const KEY: ProbeKey = ProbeKey([0x0b; 32]);

#[track_caller]
fn assert_on_page(bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let page = include_str!("../../docs/protocol.md");
    assert!(page.contains(&format!("`{hex}`")), "not on the page: {hex}");
}

#[test]
fn messages_have_the_bytes_that_the_protocol_page_shows() {
    let candidate = |addr: &str, kind| Candidate { addr: addr.parse().unwrap(), kind };
    let candidates = vec![
        candidate("10.0.0.1:7400", CandidateKind::Host),
        candidate("[2001:db8::1]:9", CandidateKind::ServerReflexive),
    ];
    let terms = |class, candidates| Terms {
        class,
        cookie: PathCookie([7; 8]),
        candidates,
        volleys: true,
        padding: 0,
    };
    let offer = Offer { round: ROUND, key: KEY, terms: terms(NatClass::Public, Vec::new()) };
    let answer = Answer { round: 7, terms: terms(NatClass::EndpointIndependent, candidates) };
    let fresh = vec![candidate("192.0.2.1:50000", CandidateKind::ServerReflexive)];
    for message in [
        Message::Offer(offer),
        Message::Answer(answer),
        Message::Request,
        Message::Prepare(Volley { round: 7, number: 1, candidates: fresh, padding: 0 }),
        Message::Ready(Volley { round: 7, number: 1, candidates: Vec::new(), padding: 0 }),
        Message::Ready(Volley { round: 7, number: 1, candidates: Vec::new(), padding: 3 }),
        Message::Go { round: 7, number: 0 },
    ] {
        let body = message.encode();
        assert_on_page(&[&(body.len() as u32).to_be_bytes()[..], &body].concat());
        assert_eq!(Message::decode(&body), Ok(Some(message)));
    }
}

#[test]
fn probes_have_the_bytes_that_the_protocol_page_shows() {
    let probe = Content { sender: Role::Offerer, round: ROUND, counter: 258, seen: None };
    let seen = Some("192.0.2.1:9".parse().unwrap());
    let answer = Content { sender: Role::Answerer, seen, ..probe };
    for content in [probe, answer] {
        let bytes = content.seal(&KEY);
        assert_on_page(&bytes);
        assert_eq!(Probe::round_of(&bytes), Some(ROUND));
    }
}
