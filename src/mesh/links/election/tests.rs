//! Two ends of an election over connections that the test closes and delays as it likes.

use std::collections::VecDeque;

use super::*;
use crate::mesh::clock;

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);
const OLD: u64 = 1;
const NEW: u64 = 2;

/// Connections with one round-trip time; those named are closed or in use.
#[derive(Default)]
struct Wires {
    closed: BTreeSet<LinkId>,
    used: BTreeSet<LinkId>,
    rtt: Duration,
}

impl Connections for Wires {
    fn is_closed(&self, link: LinkId) -> bool {
        self.closed.contains(&link)
    }

    fn in_use(&self, link: LinkId) -> bool {
        self.used.contains(&link)
    }

    fn rtt(&self, _: LinkId) -> Duration {
        self.rtt
    }

    // The smaller number has the smaller exporter.
    fn exporter(&self, link: LinkId) -> [u8; 32] {
        [u8::try_from(link.0).unwrap(); 32]
    }
}

/// One end of the election, at a time of its own.
struct End {
    election: Election,
    wires: Wires,
    now: Instant,
}

impl End {
    fn full(me: &str) -> Self {
        Self::new(me, false)
    }

    fn new(me: &str, stub: bool) -> Self {
        let election = Election::new(id(me), stub);
        Self { election, wires: Wires::default(), now: clock::now() }
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    /// A link to `peer`, dialled by this end.
    fn dials(&mut self, link: u64, peer: &str, instance: u64) -> Vec<Step> {
        self.arrives(link, arrival(peer, instance, true))
    }

    /// A link that `peer` has dialled.
    fn accepts(&mut self, link: u64, peer: &str, instance: u64) -> Vec<Step> {
        self.arrives(link, arrival(peer, instance, false))
    }

    fn arrives(&mut self, link: u64, arrival: Arrival) -> Vec<Step> {
        assert!(self.election.has_room(&arrival.peer));
        self.election.arrive(LinkId(link), arrival, &self.wires, self.now)
    }

    fn selected(&mut self, link: u64, number: u64) -> Vec<Step> {
        self.election.selected(LinkId(link), number, &self.wires, self.now)
    }

    fn answered(&mut self, (link, nonce): (u64, u64)) -> Vec<Step> {
        self.election.answered(LinkId(link), nonce, &self.wires, self.now)
    }

    fn ends(&mut self, link: u64) -> Vec<Step> {
        self.wires.closed.insert(LinkId(link));
        self.election.closed(LinkId(link), &self.wires, self.now)
    }

    fn timeout(&mut self) -> Vec<Step> {
        self.election.handle_timeout(&self.wires, self.now)
    }

    fn active(&self, peer: &str) -> Option<u64> {
        self.election.active().get(&id(peer)).map(|link| link.0)
    }

    fn drains(&self, link: u64) -> bool {
        matches!(self.election.phase(LinkId(link)), Some(Phase::Draining { .. }))
    }
}

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn arrival(peer: &str, instance: u64, dialled: bool) -> Arrival {
    Arrival { peer: id(peer), instance, stub: false, dialled }
}

fn up(link: u64) -> Step {
    Step::SessionUp(LinkId(link))
}

fn down(peer: &str) -> Step {
    Step::SessionDown(id(peer))
}

/// The link and nonce of the only step, which must be a ping.
fn ping(steps: &[Step]) -> (u64, u64) {
    match steps {
        [Step::Ping { link, nonce }] => (link.0, *nonce),
        other => panic!("not one ping: {other:?}"),
    }
}

/// SELECT on `link`, and its session.
fn assert_chosen(steps: &[Step], link: u64) {
    match steps {
        [Step::Select { link: on, .. }, session] => assert_eq!((on.0, session), (link, &up(link))),
        other => panic!("not chosen: {other:?}"),
    }
}

fn assert_closed(steps: &[Step], link: u64, code: CloseCode) {
    let closed = |step: &Step| matches!(step, Step::Close { link: on, code: with, .. } if *on == LinkId(link) && *with == code);
    assert!(steps.iter().any(closed), "{link} is not closed with {code}: {steps:?}");
}

#[test]
fn the_smaller_id_leads_and_chooses_the_first_link_at_once() {
    let mut a = End::full("a");
    assert_chosen(&a.dials(1, "b", OLD), 1);
    assert_eq!(a.active("b"), Some(1));
    assert_eq!(a.selected(1, 9), [], "a SELECT from the end that does not lead is ignored");

    let mut b = End::full("b");
    assert_eq!(b.accepts(1, "a", OLD), [], "the other end waits for SELECT");
    assert_eq!(b.active("a"), None);
    assert_eq!(b.selected(1, 9), [up(1)]);
    assert_eq!(b.active("a"), Some(1));
}

#[test]
fn of_a_node_and_its_stub_the_node_leads_whatever_their_ids() {
    let mut stub = End::new("a", true);
    assert_eq!(stub.dials(1, "b", OLD), []);
    assert_eq!(stub.selected(1, 1), [up(1)]);

    let mut node = End::full("b");
    let arrival = Arrival { stub: true, ..arrival("a", OLD, false) };
    assert_chosen(&node.arrives(1, arrival), 1);
}

#[test]
fn a_link_that_is_already_closed_is_not_chosen() {
    let mut a = End::full("a");
    a.wires.closed.insert(LinkId(1));
    assert_eq!(a.dials(1, "b", OLD), []);

    let mut b = End::full("b");
    b.accepts(1, "a", OLD);
    b.wires.closed.insert(LinkId(1));
    assert_eq!(b.selected(1, 1), []);
    assert_eq!(b.active("a"), None);
}

#[test]
fn the_preferred_of_two_simultaneous_links_wins_if_it_answers() {
    let mut a = End::full("a");
    assert_chosen(&a.accepts(1, "b", OLD), 1);
    // Link 2 was dialled by the smaller id.
    let test = ping(&a.after(SEC).dials(2, "b", OLD));
    assert_eq!(test.0, 2);
    assert_eq!(a.answered((1, test.1)), [], "the answer must come on the tested link");
    assert_eq!(a.answered((2, test.1 + 1)), [], "with the nonce of the test");
    assert_eq!(a.active("b"), Some(1));
    assert_chosen(&a.answered(test), 2);
    assert!(a.drains(1) && a.active("b") == Some(2));
    assert_eq!(a.answered(test), [], "and once");
}

#[test]
fn of_two_links_of_one_dialler_the_smaller_exporter_is_preferred() {
    let mut a = End::full("a");
    a.dials(5, "b", OLD);
    assert_eq!(ping(&a.dials(3, "b", OLD)).0, 3);
    let mut a = End::full("a");
    a.dials(3, "b", OLD);
    assert_eq!(ping(&a.dials(5, "b", OLD)).0, 3);
}

#[test]
fn a_preferred_link_that_does_not_answer_loses_to_its_rival() {
    let mut a = End::full("a");
    a.accepts(1, "b", OLD);
    let start = a.now;
    a.dials(2, "b", OLD);
    let deadline = a.election.next_timeout().unwrap();
    assert_eq!(deadline, start + 2 * SEC);
    a.now = deadline - MS;
    assert_eq!(a.timeout(), []);
    a.now = deadline;
    assert_eq!(a.timeout(), [], "link 1 keeps the session that it has");
    assert!(a.drains(2) && a.active("b") == Some(1));
    assert_eq!(a.election.next_timeout(), None);
}

#[test]
fn only_the_leader_tests_two_links_of_one_process() {
    let mut b = End::full("b");
    b.accepts(1, "a", OLD);
    b.selected(1, 1);
    assert_eq!(b.dials(2, "a", OLD), []);
    assert_eq!(b.election.next_timeout(), None);
    assert_eq!(b.selected(2, 2), [up(2)], "its SELECT moves the session");
    assert!(b.drains(1));
}

#[test]
fn an_overtaken_select_does_not_undo_a_later_choice() {
    let mut b = End::full("b");
    b.accepts(1, "a", OLD);
    b.dials(2, "a", OLD);
    assert_eq!(b.selected(2, 7), [up(2)]);
    assert_eq!(b.selected(1, 6), [], "sent before 7, arrived after it");
    assert_eq!(b.active("a"), Some(2));
}

#[test]
fn select_numbers_of_another_process_are_not_compared() {
    let mut b = End::full("b");
    b.accepts(1, "a", OLD);
    b.selected(1, 700);
    let test = ping(&b.accepts(2, "a", NEW));
    assert_eq!(test.0, 1);
    b.selected(2, 1);
    b.after(SEC);
    let steps = b.timeout();
    assert_closed(&steps, 1, CloseCode::Replaced);
    assert!(steps.contains(&up(2)), "{steps:?}");
}

#[test]
fn a_link_that_lost_is_never_chosen_again() {
    let mut b = End::full("b");
    b.accepts(1, "a", OLD);
    b.selected(1, 1);
    b.dials(2, "a", OLD);
    b.selected(2, 2);
    assert_eq!(b.selected(1, 3), [], "a newer SELECT on the drained link");
    assert_eq!(b.active("a"), Some(2));
    let steps = b.ends(2);
    assert_eq!(steps[0], down("a"));
    assert_closed(&steps, 1, CloseCode::Replaced);
    assert_eq!(b.active("a"), None);
}

#[test]
fn a_redial_of_a_settled_link_tests_the_old_one_soon() {
    let mut a = End::full("a");
    a.accepts(1, "b", OLD);
    a.after(5 * SEC - MS);
    assert_eq!(ping(&a.dials(2, "b", OLD)).0, 2, "not settled yet: the preferred one is tested");

    let mut a = End::full("a");
    a.accepts(1, "b", OLD);
    a.after(5 * SEC);
    let test = ping(&a.dials(2, "b", OLD));
    assert_eq!(test.0, 1);
    assert_eq!(a.election.next_timeout(), Some(a.now + 500 * MS));
    assert_eq!(a.answered(test), [], "alive: it keeps the session");
    assert!(a.drains(2) && a.active("b") == Some(1));

    let mut a = End::full("a");
    a.accepts(1, "b", OLD);
    a.after(5 * SEC).dials(2, "b", OLD);
    assert_chosen(&a.after(500 * MS).timeout(), 2);
    assert!(a.drains(1), "dead or only slow: its streams may run out");
}

#[test]
fn a_restarted_neighbour_replaces_the_link_that_does_not_answer() {
    for leads in [true, false] {
        let (me, peer) = if leads { ("a", "b") } else { ("b", "a") };
        let mut end = End::full(me);
        end.accepts(1, peer, OLD);
        if !leads {
            end.selected(1, 5);
        }
        let test = ping(&end.after(60 * SEC).accepts(2, peer, NEW));
        assert_eq!(test.0, 1, "whoever sees the new instance tests the old link");
        if !leads {
            assert_eq!(end.selected(2, 1), [], "the choice waits for the test");
        }
        let steps = end.after(500 * MS).timeout();
        assert_closed(&steps, 1, CloseCode::Replaced);
        assert!(steps.contains(&up(2)), "{steps:?}");
        assert_eq!(end.active(peer), Some(2));
        assert_eq!(end.ends(1), [], "the end of the old link changes nothing");
    }
}

#[test]
fn the_link_before_a_restart_has_half_a_second_to_answer() {
    // Nothing says that the process before is dead: its port is another one, and stays silent.
    for (rtt, limit) in [(0, 500), (100, 500), (200, 800), (3_000, 1_000)] {
        for answers in [false, true] {
            let mut end = End::full("a");
            end.wires.rtt = MS * rtt;
            end.accepts(1, "b", OLD);
            let test = ping(&end.after(60 * SEC).accepts(2, "b", NEW));
            assert_eq!(end.after(MS * (limit - 1)).timeout(), [], "round trip of {rtt} ms");
            assert_eq!(end.active("b"), Some(1));
            if answers {
                assert_closed(&end.answered(test), 2, CloseCode::DuplicateId);
                assert_eq!(end.after(60 * SEC).timeout(), []);
                assert_eq!(end.active("b"), Some(1));
            } else {
                let steps = end.after(MS).timeout();
                assert_closed(&steps, 1, CloseCode::Replaced);
                assert_eq!(end.active("b"), Some(2));
                assert_eq!(end.answered(test), [], "an answer that is too late");
            }
        }
    }
}

#[test]
fn a_neighbour_with_several_links_that_leaves_is_down_once() {
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let mut a = End::full("a");
        // One link drains, one is active, and one is tested against it.
        a.accepts(1, "b", OLD);
        a.wires.used.insert(LinkId(1));
        a.after(6 * SEC).accepts(2, "b", OLD);
        a.after(500 * MS).timeout();
        a.after(6 * SEC).accepts(3, "b", OLD);
        assert!(a.drains(1));
        assert_eq!(a.active("b"), Some(2));
        // The neighbour closes them all; their ends are reported one by one.
        a.wires.closed.extend([1, 2, 3].map(LinkId));
        let steps: Vec<_> = order.into_iter().flat_map(|link| a.ends(link)).collect();
        let is_session = |step: &&Step| matches!(step, Step::SessionUp(_) | Step::SessionDown(_));
        assert_eq!(steps.iter().filter(is_session).collect::<Vec<_>>(), [&down("b")], "{order:?}");
        assert_eq!((a.active("b"), a.election.next_timeout()), (None, None));
        // Its next process comes and leaves again at once.
        assert_chosen(&a.after(MS).accepts(4, "b", NEW), 4);
        assert_eq!(a.ends(4), [down("b")]);
        assert_eq!(a.after(60 * SEC).timeout(), []);
    }
}

#[test]
fn the_end_of_the_tested_link_decides_for_its_rival_at_once() {
    let mut a = End::full("a");
    a.accepts(1, "b", OLD);
    a.accepts(2, "b", NEW);
    let steps = a.ends(1);
    assert_eq!(steps[0], down("b"));
    assert_chosen(&steps[1..], 2);
    assert_eq!(a.election.next_timeout(), None, "the contest is over");
}

#[test]
fn the_end_of_the_rival_ends_the_contest_without_a_change() {
    let mut a = End::full("a");
    a.accepts(1, "b", OLD);
    a.accepts(2, "b", NEW);
    assert_eq!(a.ends(2), []);
    assert_eq!(a.election.next_timeout(), None);
    assert_eq!(a.active("b"), Some(1));
}

#[test]
fn a_second_live_process_with_the_same_id_is_refused() {
    let mut a = End::full("a");
    a.accepts(1, "b", OLD);
    let test = ping(&a.accepts(2, "b", NEW));
    let steps = a.answered(test);
    assert_eq!(steps[0], Step::DuplicateId { keeps: LinkId(1), refused: LinkId(2) });
    assert_closed(&steps, 2, CloseCode::DuplicateId);
    assert_eq!(a.active("b"), Some(1));
    assert_eq!(a.selected(2, 99), []);
    let steps = a.ends(1);
    assert_eq!(steps, [down("b")], "a link that is being closed takes no session");
}

#[test]
fn a_neighbour_has_at_most_four_links_at_a_time() {
    let mut b = End::full("b");
    for link in 1..=4 {
        b.accepts(link, "a", OLD);
    }
    assert!(!b.election.has_room(&id("a")) && b.election.has_room(&id("c")));
    b.ends(3);
    assert!(b.election.has_room(&id("a")));
}

#[test]
fn a_link_that_is_not_chosen_within_ten_seconds_is_closed_once() {
    let mut b = End::full("b");
    b.accepts(1, "a", OLD);
    assert_eq!(b.after(10 * SEC - MS).timeout(), []);
    assert_closed(&b.after(MS).timeout(), 1, CloseCode::HandshakeTimeout);
    assert_eq!(b.after(SEC).timeout(), []);
    assert_eq!(b.selected(1, 1), [], "and can no longer be chosen");
}

#[test]
fn the_leader_closes_a_drained_link_after_a_second_without_streams() {
    let mut a = End::full("a");
    a.accepts(1, "b", OLD);
    let test = ping(&a.dials(2, "b", OLD));
    a.answered(test);
    a.wires.used.insert(LinkId(1));
    assert_eq!(a.after(SEC).timeout(), [], "streams are open");
    a.wires.used.clear();
    assert_closed(&a.timeout(), 1, CloseCode::DuplicateLink);
}

#[test]
fn a_link_in_use_drains_for_half_a_minute_and_twice_that_at_the_other_end() {
    for (me, peer, limit) in [("a", "b", 30 * SEC), ("b", "a", 60 * SEC)] {
        let mut end = End::full(me);
        end.accepts(1, peer, OLD);
        end.selected(1, 1);
        let steps = end.dials(2, peer, OLD);
        if let [Step::Ping { link, nonce }] = steps[..] {
            end.answered((link.0, nonce));
        }
        end.selected(2, 2);
        assert!(end.drains(1));
        end.wires.used.insert(LinkId(1));
        assert_eq!(end.after(limit - MS).timeout(), []);
        assert_closed(&end.after(MS).timeout(), 1, CloseCode::DuplicateLink);
    }
}

#[test]
fn a_settled_link_in_use_drains_for_an_hour() {
    let mut a = End::full("a");
    a.accepts(1, "b", OLD);
    a.wires.used.insert(LinkId(1));
    a.after(5 * SEC).dials(2, "b", OLD);
    a.after(500 * MS).timeout();
    assert!(a.drains(1));
    assert_eq!(a.after(3_600 * SEC - MS).timeout(), []);
    assert_closed(&a.after(MS).timeout(), 1, CloseCode::DuplicateLink);
}

#[test]
fn sessions_of_neighbours_do_not_touch_each_other() {
    let mut a = End::full("a");
    a.accepts(1, "b", OLD);
    a.accepts(2, "c", OLD);
    a.accepts(3, "c", NEW);
    assert_eq!(a.ends(1), [down("b")]);
    assert_eq!((a.active("b"), a.active("c")), (None, Some(2)));
    assert_eq!(a.ends(9), [], "an unknown link");
}

/// Two ends, links that either dials, frames that are delayed, restarts and deaths: in the end both
/// agree on one link.
#[test]
fn both_ends_agree_on_one_link_in_any_order_of_events() {
    for seed in 0..2_000 {
        let agreed = Duel::new(seed).play();
        assert!(agreed, "seed {seed}: the ends do not agree on one link");
    }
}

/// Two ends, and what is on its way between them: in order on each link, in any order across links.
struct Duel {
    ends: [End; 2],
    /// By link and receiver.
    ways: BTreeMap<(LinkId, usize), VecDeque<Word>>,
    random: u64,
}

#[derive(Clone, Copy, Debug)]
enum Word {
    Arrive,
    Select(u64),
    Ping(u64),
    Pong(u64),
    Closed,
}

impl Duel {
    fn new(seed: u64) -> Self {
        let mut ends = [End::full("a"), End::full("b")];
        ends.iter_mut().for_each(|end| end.wires.rtt = 10 * MS);
        Self { ends, ways: BTreeMap::new(), random: seed.wrapping_mul(2) + 1 }
    }

    fn below(&mut self, bound: usize) -> usize {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        usize::try_from(self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % bound
    }

    fn play(mut self) -> bool {
        let dialled = 2 + self.below(3);
        for number in 1..=dialled {
            let link = LinkId(number as u64);
            let dialler = self.below(2);
            self.send(1 - dialler, link, Word::Arrive);
            let steps = self.arrive(dialler, link, true);
            self.say(dialler, steps);
            for _ in 0..self.below(12) {
                self.step();
            }
        }
        // The dust settles.
        for _ in 0..400 {
            self.step();
        }
        let active: Vec<_> =
            self.ends.iter().zip(["b", "a"]).map(|(end, peer)| end.active(peer)).collect();
        active[0].is_some() && active[0] == active[1]
    }

    fn arrive(&mut self, end: usize, link: LinkId, dialled: bool) -> Vec<Step> {
        let peer = if end == 0 { "b" } else { "a" };
        let this = &mut self.ends[end];
        if !this.election.has_room(&id(peer)) {
            return vec![Step::Close { link, code: CloseCode::Overloaded, why: "" }];
        }
        this.arrives(link.0, arrival(peer, OLD, dialled))
    }

    /// One word arrives, or a little time passes.
    fn step(&mut self) {
        let full: Vec<_> =
            self.ways.iter().filter(|(_, way)| !way.is_empty()).map(|(at, _)| *at).collect();
        if full.is_empty() || self.below(4) == 0 {
            let time = MS * u32::try_from(self.below(400)).unwrap();
            for end in 0..2 {
                let steps = self.ends[end].after(time).timeout();
                self.say(end, steps);
            }
            return;
        }
        let at = full[self.below(full.len())];
        let Some(word) = self.ways.get_mut(&at).and_then(VecDeque::pop_front) else { return };
        let (link, end) = at;
        let steps = match word {
            Word::Arrive => self.arrive(end, link, false),
            Word::Select(number) => self.ends[end].selected(link.0, number),
            Word::Ping(nonce) => {
                self.send(1 - end, link, Word::Pong(nonce));
                Vec::new()
            }
            Word::Pong(nonce) => self.ends[end].answered((link.0, nonce)),
            Word::Closed => self.ends[end].ends(link.0),
        };
        self.say(end, steps);
    }

    fn say(&mut self, end: usize, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Select { link, number } => self.send(1 - end, link, Word::Select(number)),
                Step::Ping { link, nonce } => self.send(1 - end, link, Word::Ping(nonce)),
                Step::Close { link, .. } => {
                    // What was said before the close is lost, as with QUIC.
                    for to in 0..2 {
                        self.ends[to].wires.closed.insert(link);
                        self.ways.insert((link, to), std::iter::once(Word::Closed).collect());
                    }
                }
                Step::SessionUp(_) | Step::SessionDown(_) | Step::DuplicateId { .. } => {}
            }
        }
    }

    fn send(&mut self, to: usize, link: LinkId, word: Word) {
        if !self.ends[to].wires.closed.contains(&link) {
            self.ways.entry((link, to)).or_default().push_back(word);
        }
    }
}
