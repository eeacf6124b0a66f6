//! What strangers, neighbours and peers can do: at most a few paced probes to whom they name.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use receptor_quic::NodeId;
use receptor_quic::punch::{
    Answer, Arrival, Candidate, CandidateKind, Config, Event, HostAddress, Message, MessageError,
    NatClass, Offer, PathCookie, Probe, ProbeError, ProbeKey, Puncher, Role, Terms, Volley,
};
use sha2::Sha256;

use crate::nat::{Behaviour, Filtering, Mapping};
use crate::rng::Rng;
use crate::world::{INTERNET, World, addr, is_probe, start};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A puncher alone with a peer that the test plays.
struct Victim {
    punch: Puncher,
    now: Instant,
    peer: NodeId,
    probes: Vec<(Instant, Probe)>,
    messages: Vec<Message>,
    events: Vec<Event>,
}

impl Victim {
    fn new(role: Role) -> Self {
        let now = start();
        let mut punch = Puncher::new(Config::new("victim".parse().unwrap(), [7; 32]), now);
        punch.set_host(vec![HostAddress::new(addr("10.0.0.1:7000"))], now);
        let peer: NodeId = "mallory".parse().unwrap();
        punch.connected(&peer, role, now);
        Self { punch, now, peer, probes: Vec::new(), messages: Vec::new(), events: Vec::new() }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.drain();
            match self.punch.poll_timeout().map(|deadline| deadline.at.max(self.now)) {
                Some(at) if at <= until => self.now = at,
                _ => break,
            }
            self.punch.handle_timeout(self.now);
        }
        self.now = until;
    }

    fn drain(&mut self) {
        while let Some(probe) = self.punch.poll_probe() {
            self.probes.push((self.now, probe));
        }
        while let Some((_, message)) = self.punch.poll_message() {
            self.messages.push(message);
        }
        while let Some(event) = self.punch.poll_event() {
            self.events.push(event);
        }
    }

    fn message(&mut self, message: Message) -> Result<(), MessageError> {
        let taken = self.punch.handle_message(&self.peer.clone(), message, self.now);
        self.drain();
        taken
    }

    fn probe(&mut self, from: &str, bytes: &[u8]) -> Result<(), ProbeError> {
        let taken = self.punch.handle_probe(Arrival::new(addr(from)), bytes, self.now);
        self.drain();
        taken
    }

    /// Probes, without answers, by address.
    fn probed(&self) -> BTreeMap<IpAddr, usize> {
        let mut probed = BTreeMap::new();
        for (_, probe) in self.probes.iter().filter(|(_, probe)| is_probe(probe)) {
            *probed.entry(probe.to.ip()).or_default() += 1;
        }
        probed
    }
}

fn terms(candidates: Vec<SocketAddr>) -> Terms {
    let candidate = |addr| Candidate { addr, kind: CandidateKind::Host };
    let candidates = candidates.into_iter().map(candidate).collect();
    Terms {
        class: NatClass::Unknown,
        cookie: PathCookie([5; 8]),
        candidates,
        volleys: false,
        padding: 0,
    }
}

fn offer(round: u64, candidates: Vec<SocketAddr>) -> Message {
    offer_with_key(round, candidates, [9; 32])
}

fn offer_with_key(round: u64, candidates: Vec<SocketAddr>, key: [u8; 32]) -> Message {
    Message::Offer(Offer { round, key: ProbeKey(key), terms: terms(candidates) })
}

fn padded(offer: Message, padding: u16) -> Message {
    match offer {
        Message::Offer(offer) => {
            Message::Offer(Offer { terms: Terms { padding, ..offer.terms }, ..offer })
        }
        other => other,
    }
}

/// A probe (kind 0) or answer (1) of a peer that knows the key.
fn sealed(kind: u8, round: u64, counter: u32) -> [u8; 64] {
    let mut bytes = [0; 64];
    (bytes[0], bytes[1]) = (0x04, kind);
    bytes[2..10].copy_from_slice(&round.to_be_bytes());
    bytes[10..14].copy_from_slice(&counter.to_be_bytes());
    let mut mac = Hmac::<Sha256>::new_from_slice(&[9; 32]).unwrap();
    mac.update(&bytes[..48]);
    bytes[48..].copy_from_slice(&mac.finalize().into_bytes()[..16]);
    bytes
}

#[test]
fn a_bystander_gets_a_few_probes_a_round_however_often_a_peer_names_it() {
    let mut victim = Victim::new(Role::Answerer);
    let list = (0..500).map(|n| addr(&format!("192.0.2.1:{}", 1_000 + n))).collect();
    victim.message(offer(1, list)).unwrap();
    victim.run(Duration::from_secs(30));
    assert_eq!(victim.probed().values().copied().collect::<Vec<_>>(), [18]);
}

#[test]
fn of_hundreds_of_candidates_thirty_two_are_probed_and_paced() {
    let mut victim = Victim::new(Role::Answerer);
    let list =
        (0..500_u32).map(|n| addr(&format!("192.0.{}.{}:7", 2 + n / 250, 1 + n % 250))).collect();
    victim.message(padded(offer(1, list), 2_000)).unwrap();
    victim.run(Duration::from_secs(30));
    assert_eq!(victim.probed().len(), 32);
    assert!(victim.probed().values().all(|probes| *probes <= 15));
    let times: Vec<_> = victim.probes.iter().map(|(at, _)| *at).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= MS(5)));
}

#[test]
fn probes_to_the_silent_have_at_most_four_times_an_offers_bytes() {
    for padding in [0, 100, 1_000, 3_400] {
        let mut victim = Victim::new(Role::Answerer);
        let list = (1..=32_u32).map(|n| addr(&format!("198.51.100.{n}:7"))).collect();
        let offer = padded(offer(1, list), padding);
        let len = offer.encode().len();
        victim.message(offer).unwrap();
        victim.run(Duration::from_secs(30));
        let probes: usize = victim.probed().values().sum();
        assert_eq!(probes, (4 * len / 64).min(32 * 15), "{len} bytes");
        assert!(victim.punch.counters().probes_withheld > 0 || probes == 32 * 15);
        // Who answers is probed on: the limit is for bystanders.
        assert!(victim.probe("198.51.100.1:7", &sealed(0, 1, 1)).is_ok());
        victim.run(MS(100));
        assert!(victim.probed().values().sum::<usize>() > probes);
    }
}

#[test]
fn probes_of_volleys_have_at_most_four_times_the_bytes_received() {
    let mut victim = Victim::new(Role::Answerer);
    // The NAT does not keep ports, so volleys leave from the victim's own socket.
    let seen = [("one", "203.0.113.9:1111"), ("two", "203.0.113.9:2222")];
    for (neighbour, at) in seen {
        victim.punch.observed(&neighbour.parse().unwrap(), Some(addr(at)), victim.now);
    }
    let bystander = |port: u16| Candidate {
        addr: SocketAddr::new(addr("192.0.2.1:1").ip(), port),
        kind: CandidateKind::ServerReflexive,
    };
    let terms = Terms { candidates: vec![bystander(1)], volleys: true, ..terms(Vec::new()) };
    let mut received = 0;
    let mut tell = |victim: &mut Victim, message: Message| {
        received += message.encode().len();
        victim.message(message).unwrap();
        victim.run(MS(20));
        let probes: usize = victim.probed().values().sum();
        assert!(64 * probes <= 4 * received, "{probes} probes for {received} bytes");
    };
    tell(&mut victim, Message::Offer(Offer { round: 1, key: ProbeKey([9; 32]), terms }));
    tell(&mut victim, Message::Go { round: 1, number: 0 });
    for number in 1..24 {
        let candidates = (0..8).map(|nth| bystander(1_000 + 8 * u16::from(number) + nth)).collect();
        tell(&mut victim, Message::Prepare(Volley { round: 1, number, candidates, padding: 0 }));
        tell(&mut victim, Message::Go { round: 1, number });
    }
    assert!(victim.punch.counters().volleys > 20 && victim.punch.counters().probes_withheld > 0);
}

#[test]
fn a_public_node_leaves_it_to_a_peer_behind_a_nat_to_begin() {
    let mut victim = Victim::new(Role::Answerer);
    victim.punch.observed(&"relay".parse().unwrap(), Some(addr("10.0.0.1:7000")), victim.now);
    let terms = Terms { class: NatClass::EndpointDependent, ..terms(vec![addr("10.0.0.9:1")]) };
    let begin = victim.now;
    victim.message(Message::Offer(Offer { round: 1, key: ProbeKey([9; 32]), terms })).unwrap();
    victim.run(Duration::from_secs(10));
    // A packet that comes before the peer's own has left would spoil the peer's NAT.
    let first =
        victim.probes.iter().map(|(at, _)| *at - begin).min().expect("it probes in the end");
    assert!(first >= MS(400), "{first:?}");
}

#[test]
fn a_flood_of_offers_is_taken_at_four_and_then_one_in_five_seconds() {
    let mut victim = Victim::new(Role::Answerer);
    for round in 0..60_000 {
        victim.message(offer(round, vec![addr("192.0.2.1:7")])).unwrap();
        victim.run(MS(1));
    }
    let answers =
        victim.messages.iter().filter(|message| matches!(message, Message::Answer(_))).count();
    assert!((10..=16).contains(&answers), "{answers}");
    assert!(victim.probed()[&addr("192.0.2.1:7").ip()] <= 15 * 16);
    assert!(victim.punch.rounds().count() <= 3);
    assert!(victim.punch.explain(&victim.peer).unwrap().attempts.len() <= 16);
}

#[test]
fn a_flood_of_requests_is_served_likewise() {
    let mut victim = Victim::new(Role::Offerer);
    for _ in 0..60_000 {
        victim.message(Message::Request).unwrap();
        victim.run(MS(1));
        if let Some(Message::Offer(offer)) = victim.messages.last().cloned() {
            let _ = victim
                .message(Message::Answer(Answer { round: offer.round, terms: terms(Vec::new()) }));
        }
    }
    let offers =
        victim.messages.iter().filter(|message| matches!(message, Message::Offer(_))).count();
    assert!((10..=16).contains(&offers), "{offers}");
}

#[test]
fn nobody_is_told_to_probe_loopback_broadcast_multicast_or_the_node_itself() {
    let mut victim = Victim::new(Role::Answerer);
    let host = HostAddress { prefix: 24, ..HostAddress::new(addr("10.0.0.1:7000")) };
    victim.punch.set_host(vec![host], victim.now);
    let list = [
        "127.0.0.1:53",
        "10.0.0.255:7",
        "255.255.255.255:7",
        "224.0.0.251:5353",
        "10.0.0.1:7000",
        "0.0.0.0:7",
    ];
    let more = ["192.0.2.1:0", "[::1]:7", "[2001:db8::1]:7", "[::ffff:127.0.0.1]:7"];
    victim.message(offer(1, list.iter().chain(&more).map(|text| addr(text)).collect())).unwrap();
    victim.run(Duration::from_secs(30));
    assert!(victim.probed().is_empty(), "{:?}", victim.probed());
}

#[test]
fn a_peer_that_fakes_the_sources_of_its_probes_gets_a_bounded_number_of_answers_and_probes() {
    let mut victim = Victim::new(Role::Answerer);
    victim.message(offer(1, Vec::new())).unwrap();
    for n in 0..10_000_u32 {
        let from = format!("198.51.{}.{}:7", n / 250, 1 + n % 250);
        let _ = victim.probe(&from, &sealed(0, 1, n + 1));
        victim.run(MS(1));
    }
    let counters = victim.punch.counters();
    assert!(counters.answers_sent <= 64 + 25 * 10 + 1, "{counters:?}");
    assert!(victim.probed().len() <= 8);
    assert!(victim.probed().values().all(|probes| *probes <= 15));
    assert_eq!(victim.punch.path(&victim.peer), None);
    assert!(counters.probes_refused > 9_000);
}

#[test]
fn a_peer_that_fakes_many_ports_of_a_bystander_turns_few_probes_to_it() {
    let mut victim = Victim::new(Role::Answerer);
    victim.message(offer(1, Vec::new())).unwrap();
    for n in 0..50 {
        let _ = victim.probe(&format!("192.0.2.1:{}", 1_000 + n), &sealed(0, 1, n + 1));
    }
    victim.run(Duration::from_secs(30));
    assert_eq!(victim.probed().into_values().collect::<Vec<_>>(), [4 * 15]);
}

#[test]
fn a_faked_source_that_does_not_answer_becomes_no_path() {
    let mut victim = Victim::new(Role::Answerer);
    victim.message(offer(1, Vec::new())).unwrap();
    victim.probe("192.0.2.1:7", &sealed(0, 1, 1)).unwrap();
    victim.run(MS(100));
    // The peer answers from its own address what was asked of another one.
    let asked = victim.probes.iter().find(|(_, probe)| is_probe(probe)).unwrap().1;
    let counter = u32::from_be_bytes(asked.bytes[10..14].try_into().unwrap());
    assert_eq!(victim.probe("198.51.100.1:7", &sealed(1, 1, counter)), Err(ProbeError::Unasked));
    assert_eq!(victim.punch.path(&victim.peer), None);
    assert_eq!(victim.probe("192.0.2.1:7", &sealed(1, 1, counter)), Ok(()));
    assert!(victim.punch.path(&victim.peer).is_some());
}

#[test]
fn what_strangers_forge_changes_nothing() {
    let mut victim = Victim::new(Role::Answerer);
    victim.message(offer(1, vec![addr("192.0.2.1:7")])).unwrap();
    victim.run(MS(50));
    let before = victim.punch.explain(&victim.peer);
    let (probes, good) = (victim.probes.len(), sealed(0, 1, 1));
    let mut rng = Rng::new(1);
    for _ in 0..5_000 {
        let mut bytes = good;
        bytes[rng.below(64) as usize] ^= 1 << rng.below(8);
        assert!(victim.probe("198.51.100.1:7", &bytes).is_err());
        let length = rng.below(130) as usize;
        let noise: Vec<_> = (0..length).map(|_| rng.number() as u8).collect();
        assert!(victim.probe("198.51.100.1:7", &noise).is_err());
    }
    assert_eq!(victim.probes.len(), probes);
    assert_eq!(victim.punch.explain(&victim.peer), before);
    let counters = victim.punch.counters();
    assert!(
        counters.probes_forged > 0
            && counters.probes_malformed > 0
            && counters.probes_unknown_round > 0
    );
    assert_eq!(victim.probe("198.51.100.1:7", &good), Ok(()));
}

#[test]
fn a_replayed_probe_teaches_no_address_and_a_reflected_one_neither() {
    let mut victim = Victim::new(Role::Answerer);
    victim.message(offer(1, vec![addr("192.0.2.1:7")])).unwrap();
    victim.probe("192.0.2.1:7", &sealed(0, 1, 1)).unwrap();
    assert_eq!(victim.probe("198.51.100.1:7", &sealed(0, 1, 1)), Err(ProbeError::Replayed));
    victim.run(MS(50));
    let own = victim.probes.iter().find(|(_, probe)| is_probe(probe)).unwrap().1;
    assert_eq!(victim.probe("192.0.2.1:7", &own.bytes), Err(ProbeError::Reflected));
    victim.run(Duration::from_secs(20));
    assert_eq!(victim.probed().into_keys().collect::<Vec<_>>(), [addr("192.0.2.1:7").ip()]);
    assert_eq!(victim.punch.path(&victim.peer), None);
}

#[test]
fn an_answer_counts_once() {
    let mut victim = Victim::new(Role::Answerer);
    victim.message(offer(1, vec![addr("192.0.2.1:7")])).unwrap();
    victim.run(MS(1));
    assert_eq!(victim.probe("192.0.2.1:7", &sealed(1, 1, 1)), Ok(()));
    assert_eq!(victim.probe("192.0.2.1:7", &sealed(1, 1, 1)), Err(ProbeError::Unasked));
    assert_eq!(victim.probe("192.0.2.1:7", &sealed(1, 1, 77)), Err(ProbeError::Unasked));
}

#[test]
fn an_offer_that_comes_again_and_again_is_answered_now_and_then_and_begins_one_round() {
    let mut victim = Victim::new(Role::Answerer);
    for _ in 0..1_000 {
        victim.message(offer(1, vec![addr("192.0.2.1:7")])).unwrap();
        victim.run(MS(10));
    }
    let counters = victim.punch.counters();
    assert_eq!(counters.rounds, 1);
    assert!(
        (2..=7).contains(&victim.messages.len()),
        "four at once, and one in 5 s: {}",
        victim.messages.len()
    );
    assert!(
        victim
            .messages
            .iter()
            .all(|message| matches!(message, Message::Answer(Answer { round: 1, .. })))
    );
    assert!(counters.probes_sent <= 18, "{counters:?}");
}

#[test]
fn a_peer_cannot_take_over_the_round_of_another_nor_speak_out_of_turn() {
    let mut victim = Victim::new(Role::Answerer);
    victim.message(offer(1, Vec::new())).unwrap();
    let other: NodeId = "eve".parse().unwrap();
    assert_eq!(
        victim.punch.handle_message(&other, Message::Request, victim.now),
        Err(MessageError::NoSession)
    );
    victim.punch.connected(&other, Role::Answerer, victim.now);
    let taken = victim.punch.handle_message(&other, offer(1, Vec::new()), victim.now);
    assert_eq!(taken, Err(MessageError::RoundInUse));
    assert_eq!(
        victim.message(offer_with_key(1, Vec::new(), [8; 32])),
        Err(MessageError::RoundInUse)
    );
    assert_eq!(victim.message(Message::Request), Err(MessageError::WrongRole));
    let answer = Message::Answer(Answer { round: 1, terms: terms(Vec::new()) });
    assert_eq!(victim.message(answer), Err(MessageError::WrongRole));
}

#[test]
fn a_neighbour_whose_word_flaps_does_not_make_a_pair_with_a_path_punch() {
    let mut world = World::new(4);
    let home = Behaviour {
        mapping: Mapping::Independent,
        filtering: Filtering::Port,
        hairpin: false,
        remembers: false,
    };
    let ends = [0, 1].map(|n| {
        let realm = world.behind(INTERNET, &format!("192.0.2.{}", n + 1), home);
        let end = world.end(["alice", "bob"][n]);
        world.interface(end, realm, &format!("10.0.{n}.2"));
        world.observe(end);
        end
    });
    world.connect(ends[0], ends[1]);
    world.talk(ends[0], ends[1]);
    world.run(Duration::from_secs(10));
    assert!(world.both_direct(ends[0], ends[1]));
    let told = world.told.len();
    for n in 0..200_u32 {
        let lie = addr(&format!("198.51.100.{}:7", 1 + n % 250));
        let now = world.now;
        world.ends[ends[0]].punch.observed(&"neighbour-1".parse().unwrap(), Some(lie), now);
        world.run(MS(300));
    }
    assert_eq!(world.told.len(), told);
    assert!(world.both_direct(ends[0], ends[1]));
}

#[test]
fn more_peers_than_the_bound_are_relayed() {
    let mut victim = Victim::new(Role::Offerer);
    for n in 0..2_000 {
        let peer: NodeId = format!("peer-{n}").parse().unwrap();
        victim.punch.connected(&peer, Role::Offerer, victim.now);
        victim.punch.sent(&peer, victim.now);
    }
    assert_eq!(victim.punch.rounds().count(), Puncher::MAX_PEERS - 1);
    assert_eq!(victim.punch.counters().peers_refused, 2_000 - Puncher::MAX_PEERS as u64 + 1);
}
