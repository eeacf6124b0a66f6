//! Which neighbours a node's packets avoid on their way to each peer, because they got no answer
//! through them. Pure.
//!
//! ```text
//!            silent: take the best other first hop        answered, and no silence for a while
//!   routed ───────────────────────────────▶ trying ───────────────────────────▶ settled
//!     ▲                                       │  ▲                                │
//!     │        silent: no other left         │  └─── silent: take the next ──────┘
//!     ├───────────────────────────────────────┘
//!     │                                       unused for KEPT ◀── settled
//!     └───────── the next silence counts after a pause that doubles
//! ```
//!
//! A silent peer says nothing about a neighbour: the peer itself may be gone. So a neighbour is
//! reported as avoided only once the peer was heard through another one. A settled detour stays:
//! nothing this node sees can show that the neighbour forwards again, except sending through it.
//!
//! Evidence about one neighbour overrides guesses. A peer whose packets come through a neighbour is
//! answered through that one. A handshake that was answered through a neighbour proves it: it is no
//! longer avoided, and for [`PROVEN_FOR`] silence is blamed on the other end, which may still have
//! to choose another first hop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::MAX_PEERS;
use crate::id::NodeId;
use crate::mesh::report::status::Detour;

/// Neighbours that are avoided on the way to one peer; beyond that all count as tried.
pub(crate) const MAX_AVOIDED: usize = 8;
/// How long the peer must go on to answer before the neighbours tried before are taken for black
/// holes.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// How long silence is ignored after every first hop was tried in vain. It doubles each time, up to
/// a limit that lets a pair come back within 5 s of the moment when another path works.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long silence does not count against the neighbour that a handshake was answered through. The
/// peer hears of the silence within two samples and two round trips, and then changes its first
/// hop.
const PROVEN_FOR: Duration = Duration::from_millis(1_500);
/// How long a detour is kept without a connection to the peer.
const KEPT: Duration = Duration::from_secs(600);

/// The detours of a node's own packets; at most one for each of [`MAX_PEERS`] peers.
#[derive(Debug)]
pub(crate) struct Detours {
    peers: BTreeMap<NodeId, Peer>,
    /// Silent peers whose next first hop is to be found, and the neighbours that their packets come
    /// through.
    silent: VecDeque<(NodeId, Option<NodeId>)>,
    /// Finding first hops takes searches of the graph, which are paced.
    not_before: Instant,
    settled: u64,
}

/// A peer that was silent.
#[derive(Debug)]
struct Peer {
    avoided: Vec<NodeId>,
    /// The first hop in use; `None` if that of the route is.
    via: Option<NodeId>,
    /// If the peer is a stub, a node that it is attached to and that is not avoided.
    toward: Option<NodeId>,
    since: Instant,
    /// When it was first heard through `via`.
    answered: Option<Instant>,
    /// Whether the first hop was chosen because packets of the peer came through it.
    followed: bool,
    settled: bool,
    /// How often every first hop was tried in vain, in a row.
    failures: u32,
    /// Until when silence is ignored.
    pause: Option<Instant>,
    /// When a handshake was last answered through `via`.
    proven: Option<Instant>,
    /// When there was last a connection to it.
    used: Instant,
}

/// A peer that does not answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unanswered {
    pub(crate) peer: NodeId,
    /// The neighbour that its packets come through, if they do.
    pub(crate) through: Option<NodeId>,
    /// The neighbours that were tried before.
    pub(crate) avoided: BTreeSet<NodeId>,
}

/// Where the packets for a peer go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way<'a> {
    pub(crate) peer: &'a NodeId,
    pub(crate) via: &'a NodeId,
    pub(crate) avoided: &'a [NodeId],
    /// If the peer is a stub, a node that it is attached to and that is not avoided.
    pub(crate) toward: Option<&'a NodeId>,
}

/// The first hop that replaces one that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replacement {
    pub(crate) via: NodeId,
    /// As in [`Way`].
    pub(crate) toward: Option<NodeId>,
    /// Whether it is taken because packets of the peer came through it.
    pub(crate) followed: bool,
}

/// A detour that works, while the neighbours before it did not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) peer: NodeId,
    pub(crate) avoided: Vec<NodeId>,
    pub(crate) via: NodeId,
}

impl Detours {
    pub(crate) fn new(now: Instant) -> Self {
        Self { peers: BTreeMap::new(), silent: VecDeque::new(), not_before: now, settled: 0 }
    }

    /// A peer does not answer, although its packets come `through` a neighbour, if that is known.
    /// Ignored during a pause, and where too many peers have detours already.
    pub(crate) fn silent(&mut self, peer: &NodeId, through: Option<NodeId>, now: Instant) {
        let full = self.peers.len() >= MAX_PEERS && !self.peers.contains_key(peer);
        if full || self.silent.len() >= MAX_PEERS {
            return;
        }
        if let Some(known) = self.peers.get_mut(peer) {
            (known.answered, known.used) = (None, now);
            let elsewhere = through.is_some() && through != known.via;
            if !elsewhere && known.is_excused(now) {
                return;
            }
        }
        match self.silent.iter_mut().find(|(silent, _)| silent == peer) {
            Some((_, known)) => *known = through,
            None => self.silent.push_back((peer.clone(), through)),
        }
    }

    /// A peer that was silent answers; `through` is the neighbour that a handshake was answered
    /// through. Returns whether the way of its packets changes: that neighbour is not avoided any
    /// more.
    pub(crate) fn answered(
        &mut self,
        peer: &NodeId,
        through: Option<&NodeId>,
        now: Instant,
    ) -> bool {
        self.silent.retain(|(silent, _)| silent != peer);
        let Some(known) = self.peers.get_mut(peer) else { return false };
        let mut moved = false;
        if let Some(nth) =
            through.and_then(|through| known.avoided.iter().position(|id| id == through))
        {
            // It was only slow. Those that were tried before it are still avoided.
            known.via = known.avoided.get(nth).cloned();
            known.avoided.truncate(nth);
            moved = true;
        }
        if known.via.is_none() || known.avoided.is_empty() {
            self.peers.remove(peer);
            return moved;
        }
        if through.is_some() && through == known.via.as_ref() {
            known.proven = Some(now);
        }
        known.used = now;
        known.answered.get_or_insert(now);
        moved
    }

    /// The next silent peer whose first hop is to be replaced.
    pub(crate) fn take_silent(&mut self, now: Instant) -> Option<Unanswered> {
        if now < self.not_before {
            return None;
        }
        let (peer, through) = self.silent.pop_front()?;
        let avoided = self.peers.get(&peer).map(|known| known.avoided.iter().cloned().collect());
        Some(Unanswered { peer, through, avoided: avoided.unwrap_or_default() })
    }

    /// The search for first hops took its time: the next one comes this much later.
    pub(crate) fn pace(&mut self, pause: Duration, now: Instant) {
        self.not_before = now + pause;
    }

    /// The packets for a peer got no answer through `failed`; `next` is the best of the others.
    /// Returns whether the way of its packets changes.
    pub(crate) fn replace(
        &mut self,
        peer: &NodeId,
        failed: NodeId,
        next: Option<Replacement>,
        now: Instant,
    ) -> bool {
        let known = self.peers.entry(peer.clone()).or_insert_with(|| Peer::new(now));
        let before = (known.via.take(), known.toward.take());
        if !known.avoided.contains(&failed) {
            known.avoided.push(failed);
        }
        (known.answered, known.settled, known.since, known.proven) = (None, false, now, None);
        // It may be one that failed while the other end had not changed its first hop yet.
        known.avoided.retain(|avoided| next.as_ref().is_none_or(|next| *avoided != next.via));
        known.followed = false;
        if let Some(next) = next.filter(|_| known.avoided.len() <= MAX_AVOIDED) {
            known.followed = next.followed;
            (known.via, known.toward) = (Some(next.via), next.toward);
        }
        if known.via.is_none() {
            // No next hop is at fault: start over from the route, a little later.
            known.avoided.clear();
            let pause = FIRST_PAUSE.saturating_mul(1 << known.failures.min(16)).min(LONGEST_PAUSE);
            known.failures = known.failures.saturating_add(1);
            known.pause = Some(now + pause);
        } else {
            known.pause = None;
        }
        (&known.via, &known.toward) != (&before.0, &before.1)
    }

    /// Ends detours that were chosen because packets of the peer came that way, if they come by an
    /// avoided neighbour again before the detour has settled: the path was only slow. `heard` is
    /// the neighbour that the peer's last packet came through. Returns whether the way of any
    /// packets changes.
    pub(crate) fn acquit(&mut self, heard: impl Fn(&NodeId) -> Option<NodeId>) -> bool {
        let before = self.peers.len();
        self.peers.retain(|peer, known| {
            let doubtful = known.followed && !known.settled;
            !doubtful || heard(peer).is_none_or(|heard| !known.avoided.contains(&heard))
        });
        before != self.peers.len()
    }

    /// Reports the detours that have proven themselves, each once.
    pub(crate) fn settle(&mut self, now: Instant) -> Vec<Settled> {
        let mut settled = Vec::new();
        for (peer, known) in &mut self.peers {
            let proven = known.answered.is_some_and(|at| now >= at + SETTLED_AFTER);
            if let (false, true, Some(via)) = (known.settled, proven, &known.via) {
                (known.settled, known.failures) = (true, 0);
                self.settled += 1;
                settled.push(Settled {
                    peer: peer.clone(),
                    avoided: known.avoided.clone(),
                    via: via.clone(),
                });
            }
        }
        settled
    }

    /// Forgets what has not been of use for long. Returns whether the way of any packets changes.
    pub(crate) fn sweep(&mut self, connected: impl Fn(&NodeId) -> bool, now: Instant) -> bool {
        let before = self.peers.len();
        self.peers.retain(|peer, known| {
            if connected(peer) {
                known.used = now;
            }
            now.saturating_duration_since(known.used) < KEPT
        });
        before != self.peers.len()
    }

    /// The detours in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Way<'_>> {
        self.peers.iter().filter_map(|(peer, known)| {
            let via = known.via.as_ref()?;
            Some(Way { peer, via, avoided: &known.avoided, toward: known.toward.as_ref() })
        })
    }

    /// The detour of a peer's packets.
    pub(crate) fn of(&self, peer: &NodeId, now: Instant) -> Option<Detour> {
        let known = self.peers.get(peer)?;
        Some(Detour {
            avoided: known.avoided.clone(),
            via: known.via.clone()?,
            since_s: now.saturating_duration_since(known.since).as_secs_f64(),
            settled: known.settled,
        })
    }

    /// How many detours have proven themselves since the start.
    pub(crate) fn count(&self) -> u64 {
        self.settled
    }

    /// When the next silent peer can be dealt with.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        (!self.silent.is_empty()).then_some(self.not_before)
    }
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self {
            avoided: Vec::new(),
            via: None,
            toward: None,
            since: now,
            answered: None,
            followed: false,
            settled: false,
            failures: 0,
            pause: None,
            proven: None,
            used: now,
        }
    }

    /// Whether silence is ignored: all first hops were tried, or the one in use has just been
    /// proven.
    fn is_excused(&self, now: Instant) -> bool {
        let proven = self.proven.is_some_and(|at| now < at + PROVEN_FOR);
        proven || self.pause.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn to(via: &str) -> Replacement {
        Replacement { via: id(via), toward: None, followed: false }
    }

    /// The detours in use: peer, first hop, and the neighbours that are avoided.
    fn ways(detours: &Detours) -> Vec<(&str, &str, Vec<&str>)> {
        detours
            .iter()
            .map(|way| {
                (
                    way.peer.as_str(),
                    way.via.as_str(),
                    way.avoided.iter().map(NodeId::as_str).collect(),
                )
            })
            .collect()
    }

    /// The peer is silent through `failed`, and `next` is taken.
    fn fail(detours: &mut Detours, failed: &str, next: Option<&str>, now: Instant) -> bool {
        detours.silent(&id("b"), None, now);
        let Some(Unanswered { peer, .. }) = detours.take_silent(now) else { return false };
        detours.replace(&peer, id(failed), next.map(to), now)
    }

    #[test]
    fn a_detour_that_answers_is_reported_once_and_stays() {
        let now = clock::now();
        let mut detours = Detours::new(now);
        assert!(fail(&mut detours, "r1", Some("r2"), now));
        assert!(!detours.of(&id("b"), now).unwrap().settled);
        detours.answered(&id("b"), None, now);
        assert_eq!(detours.settle(now), []);
        let settled = Settled { peer: id("b"), avoided: vec![id("r1")], via: id("r2") };
        assert_eq!(detours.settle(now + SECOND), [settled]);
        assert_eq!(detours.settle(now + 2 * SECOND), []);
        assert!(!detours.sweep(|_| true, now + 3_600 * SECOND));
        assert!(!detours.sweep(|_| false, now + 3_600 * SECOND + KEPT / 2));
        assert_eq!(ways(&detours), [("b", "r2", vec!["r1"])]);
        assert!(detours.sweep(|_| false, now + 3_600 * SECOND + KEPT));
        assert_eq!((detours.iter().count(), detours.count()), (0, 1));
    }

    #[test]
    fn a_followed_detour_ends_when_the_peer_is_heard_the_usual_way() {
        let now = clock::now();
        let mut detours = Detours::new(now);
        let follow = |detours: &mut Detours| {
            let next = Replacement { followed: true, ..to("r2") };
            detours.replace(&id("b"), id("r1"), Some(next), now)
        };
        assert!(follow(&mut detours));
        assert!(!detours.acquit(|_| Some(id("r2"))));
        assert!(!detours.acquit(|_| None));
        assert!(detours.acquit(|_| Some(id("r1"))));
        assert_eq!(detours.iter().count(), 0);
        follow(&mut detours);
        detours.answered(&id("b"), None, now);
        assert_eq!(detours.settle(now + SECOND).len(), 1);
        assert!(!detours.acquit(|_| Some(id("r1"))), "it has settled");
        // A guess is not refuted by the direction that it is not about.
        detours.replace(&id("c"), id("r1"), Some(to("r2")), now);
        assert!(!detours.acquit(|_| Some(id("r1"))));
    }

    #[test]
    fn an_answer_that_is_the_last_one_proves_nothing() {
        let now = clock::now();
        let mut detours = Detours::new(now);
        fail(&mut detours, "r1", Some("r2"), now);
        detours.answered(&id("b"), None, now);
        detours.silent(&id("b"), None, now + SECOND / 2);
        assert_eq!(detours.settle(now + 2 * SECOND), []);
    }

    #[test]
    fn a_peer_that_is_silent_by_every_way_blames_nobody() {
        let now = clock::now();
        let mut detours = Detours::new(now);
        assert!(fail(&mut detours, "r1", Some("r2"), now));
        assert!(fail(&mut detours, "r2", None, now));
        assert_eq!(detours.of(&id("b"), now), None);
        assert!(!fail(&mut detours, "r1", Some("r2"), now + FIRST_PAUSE / 2), "there is a pause");
        assert!(fail(&mut detours, "r1", Some("r2"), now + FIRST_PAUSE));
        fail(&mut detours, "r2", None, now + FIRST_PAUSE);
        assert!(!fail(&mut detours, "r1", Some("r2"), now + 2 * FIRST_PAUSE), "which doubles");
        detours.answered(&id("b"), None, now + 2 * FIRST_PAUSE);
        assert!(fail(&mut detours, "r1", Some("r2"), now + 2 * FIRST_PAUSE), "until it answers");
    }

    #[test]
    fn the_ways_that_failed_are_known_until_all_have() {
        let now = clock::now();
        let mut detours = Detours::new(now);
        fail(&mut detours, "r1", Some("r2"), now);
        fail(&mut detours, "r2", Some("r3"), now);
        detours.silent(&id("b"), None, now);
        let unanswered =
            Unanswered { peer: id("b"), through: None, avoided: [id("r1"), id("r2")].into() };
        assert_eq!(detours.take_silent(now), Some(unanswered));
    }

    #[test]
    fn a_handshake_answered_through_an_avoided_hop_acquits_it() {
        let now = clock::now();
        let mut detours = Detours::new(now);
        fail(&mut detours, "r1", Some("r2"), now);
        fail(&mut detours, "r2", Some("r3"), now);
        assert!(detours.answered(&id("b"), Some(&id("r2")), now), "it was only slow");
        assert_eq!(ways(&detours), [("b", "r2", vec!["r1"])]);
        assert!(detours.answered(&id("b"), Some(&id("r1")), now));
        assert_eq!(detours.iter().count(), 0, "the route's own next hop works");
    }

    #[test]
    fn a_hop_that_answered_a_handshake_is_not_blamed_at_once() {
        let now = clock::now();
        let mut detours = Detours::new(now);
        fail(&mut detours, "r1", Some("r2"), now);
        assert!(!detours.answered(&id("b"), Some(&id("r2")), now));
        assert!(!fail(&mut detours, "r2", Some("r3"), now + PROVEN_FOR / 2));
        assert!(fail(&mut detours, "r2", Some("r3"), now + PROVEN_FOR));
    }

    #[test]
    fn the_hop_that_the_peer_is_heard_through_is_tried_also_in_a_pause() {
        let now = clock::now();
        let mut detours = Detours::new(now);
        fail(&mut detours, "r1", Some("r2"), now);
        fail(&mut detours, "r2", None, now);
        detours.silent(&id("b"), None, now);
        assert_eq!(detours.take_silent(now), None, "there is a pause");
        detours.silent(&id("b"), Some(id("r2")), now);
        assert_eq!(detours.take_silent(now).unwrap().through, Some(id("r2")));
        assert!(detours.replace(&id("b"), id("r1"), Some(to("r2")), now));
        assert_eq!(detours.of(&id("b"), now).unwrap().avoided, [id("r1")]);
    }

    #[test]
    fn searches_are_paced_and_peers_are_bounded() {
        let now = clock::now();
        let mut detours = Detours::new(now);
        for n in 0..MAX_PEERS + 9 {
            detours.silent(&id(&format!("n{n}")), None, now);
        }
        assert!(detours.take_silent(now).is_some());
        detours.pace(SECOND, now);
        assert_eq!(detours.take_silent(now), None);
        assert_eq!(detours.next_timeout(), Some(now + SECOND));
        detours.pace(Duration::ZERO, now);
        assert_eq!(std::iter::from_fn(|| detours.take_silent(now)).count(), MAX_PEERS - 1);
    }
}
