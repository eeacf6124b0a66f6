//! Which nodes list which stubs, and the verification of these claims.
//!
//! ```text
//!   listed ──used──▶ asked ──▶ proven ──until it expires──▶ asked again
//!                      │ ▲
//!                      ▼ │ later, if it is still used
//!                   rejected
//! ```
//!
//! A record may list any id as a stub; only the stub's own [`Attachment`] makes it true. It is
//! asked for where the stub is used, so that an unused stub costs no more than its entry in a
//! record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, Version};
use crate::router::neighbour::throttle::Bucket;
use crate::router::proof::attachment::Attachment;
use crate::router::proof::signature::Distrust;

/// Maximum number of claims that are remembered, and of bytes of their proofs. The claimer with the
/// most makes room.
const MAX_CLAIMS: usize = 16_384;
const MAX_BYTES: usize = 16 << 20;
/// Neighbours that wait for the proof of one claim.
const MAX_ASKERS: usize = 64;
/// How long an answer is awaited, and how often it is asked for.
const ANSWER: Duration = Duration::from_secs(1);
const MAX_ASKS: u32 = 2;
/// When a rejected claim may be asked about again: doubled with each rejection, up to the second
/// value. A valid proof that could not be refreshed is requested again after the second value.
const REJECTED_FOR: Duration = Duration::from_secs(2);
const REJECTED_FOR_MAX: Duration = Duration::from_secs(64);
/// When a proof that is older than another one of the stub is asked for again, since its claimer
/// may have a newer one by now: doubled with each time that it has not, up to the second value.
const RECHECK_AFTER: Duration = Duration::from_millis(250);
const RECHECK_AFTER_MAX: Duration = Duration::from_secs(64);
/// How long before it expires a proof is asked for again.
const REFRESH_AHEAD: Duration = Duration::from_secs(600);
/// Proofs that a neighbour may ask this node to fetch in a row, and how long each takes to be
/// allowed again.
const FETCH_BURST: u32 = 256;
const FETCH_EVERY: Duration = Duration::from_millis(10);
/// Maximum number of neighbours whose pace is remembered. Nothing is fetched for others until one
/// of these may fetch a whole burst again.
const MAX_PACES: usize = 4_096;

/// What a node claims about a stub: that it is attached to the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Claim {
    /// The node that lists the stub.
    pub by: NodeId,
    /// What was found about it.
    pub state: ClaimState,
}

/// What was found about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClaimState {
    /// The stub has signed it.
    Proven,
    /// The proof was asked for and has not come yet.
    Pending,
    /// The stub is not used here, so the proof was not requested.
    Unverified,
    /// The claim is ignored.
    Rejected(ClaimFault),
}

/// Why a claim is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClaimFault {
    /// The node has no proof.
    NoProof,
    /// The proof is not signed by the stub.
    Forged,
    /// The certificate of the proof is not trusted here.
    Untrusted(Distrust),
    /// The proof has expired.
    Expired,
    /// The proof did not arrive in time.
    NoAnswer,
    /// The stub has attached itself to another node since.
    Older,
}

impl ClaimFault {
    /// Whether a later request may find a valid proof: the last one found none.
    fn is_missing(self) -> bool {
        matches!(self, Self::NoProof | Self::NoAnswer | Self::Expired)
    }
}

impl std::fmt::Display for ClaimFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoProof => f.write_str("there is no proof"),
            Self::Forged => f.write_str("the proof is forged"),
            Self::Untrusted(why) => write!(f, "the certificate is not trusted: {why}"),
            Self::Expired => f.write_str("the proof has expired"),
            Self::NoAnswer => f.write_str("the proof did not arrive in time"),
            Self::Older => f.write_str("the stub has attached itself to another node since"),
        }
    }
}

/// How far a claim counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The stub is reached through the claimer.
    Proven,
    /// The answer is awaited.
    Pending,
    /// It attracts nothing.
    Unproven,
}

/// What is to be done about a claim whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The proof is to be asked for, of another neighbour than this if possible.
    Ask { of_other_than: Option<NodeId> },
    /// The proof did not come; these neighbours wait for it.
    Failed { askers: BTreeSet<NodeId> },
}

/// The claims that were asked about.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    by_stub: BTreeMap<NodeId, BTreeMap<NodeId, Held>>,
    /// How many of each claimer are held.
    claimers: BTreeMap<NodeId, usize>,
    due: BTreeSet<(Instant, Key)>,
    count: usize,
    bytes: usize,
    /// Orders the uses of claims.
    uses: u64,
    paces: BTreeMap<NodeId, Bucket>,
}

/// Stub and claimer.
pub(crate) type Key = (NodeId, NodeId);

#[derive(Debug, Default)]
struct Held {
    proven: Option<(Attachment, Instant)>,
    asking: Option<Asking>,
    fault: Option<(ClaimFault, Instant)>,
    /// Rejections in a row.
    rejections: u32,
    /// Whether the proof is about to be asked for again because it is older than another one of the
    /// stub, and how often that was done in a row.
    rechecking: bool,
    rechecks: u32,
    due: Option<Instant>,
    used: u64,
}

#[derive(Debug)]
struct Asking {
    of: NodeId,
    asks: u32,
    askers: BTreeSet<NodeId>,
}

impl Claims {
    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// How far a claim counts. Of several proven ones of a stub those of the newest version do.
    /// `own` is the version of the stub's attachment to this node, if it is attached here.
    pub(crate) fn standing(
        &self,
        stub: &NodeId,
        claimer: &NodeId,
        own: Option<Version>,
    ) -> Standing {
        let Some(claims) = self.by_stub.get(stub) else { return Standing::Unproven };
        let Some(held) = claims.get(claimer) else { return Standing::Unproven };
        match &held.proven {
            Some((attachment, _)) if newest(claims).max(own) == Some(attachment.version()) => {
                Standing::Proven
            }
            None if held.asking.is_some() => Standing::Pending,
            _ => Standing::Unproven,
        }
    }

    /// The newest version that a claim about the stub has proven.
    pub(crate) fn newest(&self, stub: &NodeId) -> Option<Version> {
        newest(self.by_stub.get(stub)?)
    }

    /// The claimers whose claims about the stub are proven, with the versions of the proofs.
    pub(crate) fn proven(&self, stub: &NodeId) -> impl Iterator<Item = (&NodeId, Version)> {
        let claims = self.by_stub.get(stub).into_iter().flatten();
        claims.filter_map(|(claimer, held)| Some((claimer, held.proven.as_ref()?.0.version())))
    }

    pub(crate) fn state(
        &self,
        stub: &NodeId,
        claimer: &NodeId,
        own: Option<Version>,
    ) -> ClaimState {
        let held = self.held(stub, claimer);
        match (self.standing(stub, claimer, own), held) {
            (Standing::Proven, _) => ClaimState::Proven,
            (Standing::Pending, _) => ClaimState::Pending,
            (Standing::Unproven, Some(Held { proven: Some(_), .. })) => {
                ClaimState::Rejected(ClaimFault::Older)
            }
            (Standing::Unproven, Some(Held { fault: Some((fault, _)), .. })) => {
                ClaimState::Rejected(*fault)
            }
            (Standing::Unproven, _) => ClaimState::Unverified,
        }
    }

    pub(crate) fn proof(&self, stub: &NodeId, claimer: &NodeId) -> Option<&Attachment> {
        self.held(stub, claimer)?.proven.as_ref().map(|(attachment, _)| attachment)
    }

    /// Whether nothing is known about the claim, and its proof may be asked for.
    pub(crate) fn needs_proof(&self, stub: &NodeId, claimer: &NodeId, now: Instant) -> bool {
        self.held(stub, claimer).is_none_or(|held| {
            held.proven.is_none()
                && held.asking.is_none()
                && held.fault.is_none_or(|(_, retry_at)| retry_at <= now)
        })
    }

    /// The stub is used: its proofs are the last to make room.
    pub(crate) fn on_use(&mut self, stub: &NodeId) {
        self.uses += 1;
        for held in self.by_stub.get_mut(stub).into_iter().flat_map(BTreeMap::values_mut) {
            held.used = self.uses;
        }
    }

    /// Whether the neighbour may have this node fetch one more proof.
    pub(crate) fn may_fetch_for(&mut self, neighbour: &NodeId, now: Instant) -> bool {
        if self.paces.len() >= MAX_PACES && !self.paces.contains_key(neighbour) {
            self.paces.retain(|_, pace| pace.full_at() > now);
            if self.paces.len() >= MAX_PACES {
                return false;
            }
        }
        let full = || Bucket::new(FETCH_BURST, FETCH_EVERY, now);
        let pace = self.paces.entry(neighbour.clone()).or_insert_with(full);
        let may = pace.ready_at(now) <= now;
        if may {
            pace.take(now);
        }
        may
    }

    /// Notes that the proof was asked for, on behalf of `asker` if that is another node.
    pub(crate) fn on_asked(&mut self, key: &Key, of: NodeId, asker: Option<&NodeId>, now: Instant) {
        self.uses += 1;
        let used = self.uses;
        let held = self.held_mut(key);
        (held.used, held.rechecking) = (used, false);
        let (asks, mut askers) =
            held.asking.take().map_or((0, BTreeSet::new()), |asking| (asking.asks, asking.askers));
        askers.extend(asker.cloned());
        held.asking = Some(Asking { of, asks: asks + 1, askers });
        self.set_due(key, Some(now + ANSWER));
    }

    /// Another neighbour waits for a proof that was asked for. `false` if it was not, or too many
    /// do.
    pub(crate) fn join(&mut self, (stub, claimer): &Key, asker: &NodeId) -> bool {
        let held = self.by_stub.get_mut(stub).and_then(|claims| claims.get_mut(claimer));
        let Some(asking) = held.and_then(|held| held.asking.as_mut()) else { return false };
        let room = asking.askers.len() < MAX_ASKERS;
        if room {
            asking.askers.insert(asker.clone());
        }
        room
    }

    /// Whether this neighbour was asked for the proof.
    pub(crate) fn is_asked_of(&self, (stub, claimer): &Key, from: &NodeId) -> bool {
        self.held(stub, claimer)
            .and_then(|held| held.asking.as_ref())
            .is_some_and(|asking| asking.of == *from)
    }

    /// The proof is here and valid. Returns the neighbours that wait for it.
    pub(crate) fn on_proven(
        &mut self,
        key: &Key,
        attachment: Attachment,
        until: Instant,
        now: Instant,
    ) -> BTreeSet<NodeId> {
        self.uses += 1;
        let used = self.uses;
        // The new proof replaces the old one, so only the difference has to fit.
        let held = self.held_mut(key);
        let (old, asking) = (held.proven.take(), held.asking.take());
        // The claim is the last of its claimer to be evicted, but that may have no other.
        held.used = used;
        self.bytes -= old.map_or(0, |(old, _)| old.len());
        while self.bytes + attachment.len() > MAX_BYTES && self.evict() {}
        self.bytes += attachment.len();
        let held = self.held_mut(key);
        held.proven = Some((attachment, until));
        (held.fault, held.rejections, held.used) = (None, 0, used);
        self.set_due(key, Some(refresh_at(until, now)));
        asking.map(|asking| asking.askers).unwrap_or_default()
    }

    /// Schedules what leads all nodes to the same claims about a stub. Call it when a proof about
    /// the stub has come or was not there, and when the stub has proven its attachment to this
    /// node; `own` as for [`standing`](Self::standing).
    ///
    /// Nodes that follow different claims forward the stub's packets in a loop. Once any claim is
    /// proven, every claim is therefore verified until it is proven or found to be false, and
    /// a proof that is older than another one is fetched again: a stub that loses one of its
    /// neighbours sends newer proofs to the others, and a node may hold the older proof of one and
    /// the newer proof of another.
    pub(crate) fn reconsider(&mut self, stub: &NodeId, own: Option<Version>, now: Instant) {
        let Some(claims) = self.by_stub.get_mut(stub) else { return };
        let newest = newest(claims).max(own);
        if newest.is_none() {
            return;
        }
        let mut due = Vec::new();
        for (claimer, held) in claims.iter_mut().filter(|(_, held)| held.asking.is_none()) {
            let at = match (&held.proven, held.fault) {
                (Some((attachment, _)), _) if Some(attachment.version()) == newest => {
                    (held.rechecking, held.rechecks) = (false, 0);
                    continue;
                }
                (Some(_), _) if held.rechecking => continue,
                (Some(_), _) => {
                    let pause =
                        (RECHECK_AFTER * (1 << held.rechecks.min(8))).min(RECHECK_AFTER_MAX);
                    (held.rechecking, held.rechecks) = (true, held.rechecks.saturating_add(1));
                    now + pause
                }
                (None, Some((fault, retry_at))) if fault.is_missing() => retry_at,
                (None, _) => continue,
            };
            due.push(((stub.clone(), claimer.clone()), held.due.map_or(at, |due| due.min(at))));
        }
        due.into_iter().for_each(|(key, at)| self.set_due(&key, Some(at)));
    }

    /// There is no proof, or it is worth nothing. Returns the neighbours that wait for it, and
    /// whether the claim is to be reported as false: a forged proof at once, a missing one the
    /// second time, since the stub may have left just now.
    pub(crate) fn on_rejected(
        &mut self,
        key: &Key,
        fault: ClaimFault,
        now: Instant,
    ) -> (BTreeSet<NodeId>, bool) {
        let held = self.held_mut(key);
        let pause = (REJECTED_FOR * (1 << held.rejections.min(5))).min(REJECTED_FOR_MAX);
        held.rejections += 1;
        held.fault = Some((fault, now + pause));
        let first = held.rejections == 1;
        let reported = match fault {
            ClaimFault::Forged => first,
            ClaimFault::NoProof => held.rejections == 2,
            _ => false,
        };
        // A missing proof is requested a second time before it is reported.
        let again = (first && fault == ClaimFault::NoProof).then_some(now + pause);
        let askers = held.asking.take().map(|asking| asking.askers).unwrap_or_default();
        let old = held.proven.take();
        (held.rechecking, held.rechecks) = (false, 0);
        self.bytes -= old.map_or(0, |(old, _)| old.len());
        self.set_due(key, again);
        (askers, reported)
    }

    /// No answer has arrived, or there is no neighbour to ask. A proof that is held and valid is
    /// kept until it expires, and requested again before; without one the claim is rejected.
    /// Returns the neighbours that wait for the proof.
    pub(crate) fn on_unanswered(&mut self, key: &Key, now: Instant) -> BTreeSet<NodeId> {
        let held = self.by_stub.get_mut(&key.0).and_then(|claims| claims.get_mut(&key.1));
        let valid = held.and_then(|held| {
            let until =
                held.proven.as_ref().map(|(_, until)| *until).filter(|until| *until > now)?;
            Some((held, until))
        });
        let Some((held, until)) = valid else {
            return self.on_rejected(key, ClaimFault::NoAnswer, now).0;
        };
        held.rechecking = false;
        let askers = held.asking.take().map(|asking| asking.askers).unwrap_or_default();
        self.set_due(key, Some(until.min(now + REJECTED_FOR_MAX)));
        askers
    }

    /// The next claim whose time has come, and what is to be done about it.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(Key, Due)> {
        let (at, key) = self.due.first()?.clone();
        if at > now {
            return None;
        }
        self.set_due(&key, None);
        let held = self.by_stub.get_mut(&key.0)?.get_mut(&key.1)?;
        let expired = held.proven.as_ref().is_some_and(|(_, until)| *until <= now);
        let due = match &held.asking {
            Some(asking) if asking.asks < MAX_ASKS && !expired => {
                Due::Ask { of_other_than: Some(asking.of.clone()) }
            }
            Some(_) => Due::Failed { askers: self.on_unanswered(&key, now) },
            None if expired => {
                let (askers, _) = self.on_rejected(&key, ClaimFault::Expired, now);
                Due::Failed { askers }
            }
            None => Due::Ask { of_other_than: None },
        };
        Some((key, due))
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A record of the claimer was stored: forgets the claims that it makes no more.
    pub(crate) fn retain_of(&mut self, claimer: &NodeId, lists: impl Fn(&NodeId) -> bool) {
        if !self.claimers.contains_key(claimer) {
            return;
        }
        let gone = |(stub, claims): (&NodeId, &BTreeMap<NodeId, Held>)| {
            (claims.contains_key(claimer) && !lists(stub)).then(|| stub.clone())
        };
        let gone: Vec<NodeId> = self.by_stub.iter().filter_map(gone).collect();
        gone.into_iter().for_each(|stub| self.forget(&(stub, claimer.clone())));
    }

    /// Forgets the claims of all but these nodes.
    pub(crate) fn retain(&mut self, holds: impl Fn(&NodeId) -> bool) {
        let gone: Vec<NodeId> =
            self.claimers.keys().filter(|claimer| !holds(claimer)).cloned().collect();
        gone.iter().for_each(|claimer| self.retain_of(claimer, |_| false));
    }

    /// Forgets everything: another notary may judge otherwise.
    pub(crate) fn clear(&mut self) {
        *self = Self { paces: std::mem::take(&mut self.paces), uses: self.uses, ..Self::default() };
    }

    fn held(&self, stub: &NodeId, claimer: &NodeId) -> Option<&Held> {
        self.by_stub.get(stub)?.get(claimer)
    }

    /// The claim, which is inserted if it is not held. Only then does another one make room.
    fn held_mut(&mut self, (stub, claimer): &Key) -> &mut Held {
        if self.held(stub, claimer).is_none() {
            while self.count >= MAX_CLAIMS && self.evict() {}
            self.count += 1;
            *self.claimers.entry(claimer.clone()).or_default() += 1;
        }
        self.by_stub.entry(stub.clone()).or_default().entry(claimer.clone()).or_default()
    }

    fn set_due(&mut self, key: &Key, due: Option<Instant>) {
        let held = self.by_stub.get_mut(&key.0).and_then(|claims| claims.get_mut(&key.1));
        let Some(held) = held else { return };
        let old = std::mem::replace(&mut held.due, due);
        if let Some(old) = old {
            self.due.remove(&(old, key.clone()));
        }
        if let Some(due) = due {
            self.due.insert((due, key.clone()));
        }
    }

    /// Forgets the claim used longest ago of the node that makes the most. `false` if none is held.
    fn evict(&mut self) -> bool {
        let most = self.claimers.iter().max_by_key(|(_, count)| **count);
        let Some(claimer) = most.map(|(claimer, _)| claimer.clone()) else { return false };
        let of = self
            .by_stub
            .iter()
            .filter_map(|(stub, claims)| Some((claims.get(&claimer)?.used, stub)));
        let Some((_, stub)) = of.min() else { return false };
        let key = (stub.clone(), claimer);
        self.forget(&key);
        true
    }

    fn forget(&mut self, key: &Key) {
        self.set_due(key, None);
        let Some(claims) = self.by_stub.get_mut(&key.0) else { return };
        let Some(held) = claims.remove(&key.1) else { return };
        if claims.is_empty() {
            self.by_stub.remove(&key.0);
        }
        self.count -= 1;
        self.bytes -= held.proven.map_or(0, |(attachment, _)| attachment.len());
        if let Some(count) = self.claimers.get_mut(&key.1) {
            *count -= 1;
            if *count == 0 {
                self.claimers.remove(&key.1);
            }
        }
    }
}

fn newest(claims: &BTreeMap<NodeId, Held>) -> Option<Version> {
    claims.values().filter_map(|held| Some(held.proven.as_ref()?.0.version())).max()
}

fn refresh_at(until: Instant, now: Instant) -> Instant {
    let ahead = until.checked_sub(REFRESH_AHEAD).filter(|at| *at > now);
    ahead.unwrap_or(until)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::router::proof::signature::Proof;

    const HOUR: Duration = Duration::from_secs(3_600);
    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_claim_counts_once_it_is_proven_and_until_it_expires() {
        let (mut claims, now) = claims();
        assert!(claims.needs_proof(&id("s"), &id("n"), now));
        assert_eq!(claims.state(&id("s"), &id("n"), None), ClaimState::Unverified);
        claims.on_asked(&key("n"), id("hop"), Some(&id("asker")), now);
        assert_eq!(claims.standing(&id("s"), &id("n"), None), Standing::Pending);
        assert!(
            claims.is_asked_of(&key("n"), &id("hop")) && !claims.is_asked_of(&key("n"), &id("n"))
        );
        let askers = claims.on_proven(&key("n"), attachment("n", 1), now + HOUR, now);
        assert_eq!(askers, [id("asker")].into());
        assert_eq!(claims.standing(&id("s"), &id("n"), None), Standing::Proven);

        let refresh = now + HOUR - REFRESH_AHEAD;
        assert_eq!(claims.poll(refresh - MILLI), None);
        assert_eq!(claims.poll(refresh), Some((key("n"), Due::Ask { of_other_than: None })));
        claims.on_asked(&key("n"), id("hop"), None, refresh);
        claims.on_asked(&key("n"), id("hop"), None, refresh + ANSWER);
        let failed = Due::Failed { askers: BTreeSet::new() };
        assert_eq!(claims.poll(refresh + 2 * ANSWER), Some((key("n"), failed)));
        assert_eq!(claims.standing(&id("s"), &id("n"), None), Standing::Proven, "until it expires");
        claims.poll(now + HOUR);
        assert_eq!(
            claims.state(&id("s"), &id("n"), None),
            ClaimState::Rejected(ClaimFault::Expired)
        );
    }

    #[test]
    fn an_answer_that_does_not_come_is_asked_for_twice() {
        let (mut claims, now) = claims();
        claims.on_asked(&key("n"), id("hop"), Some(&id("asker")), now);
        assert_eq!(claims.poll(now + ANSWER - MILLI), None);
        let again = Due::Ask { of_other_than: Some(id("hop")) };
        assert_eq!(claims.poll(now + ANSWER), Some((key("n"), again)));
        claims.on_asked(&key("n"), id("other"), None, now + ANSWER);
        let failed = Due::Failed { askers: [id("asker")].into() };
        assert_eq!(claims.poll(now + 2 * ANSWER), Some((key("n"), failed)));
        assert_eq!(
            claims.state(&id("s"), &id("n"), None),
            ClaimState::Rejected(ClaimFault::NoAnswer)
        );
        assert!(!claims.needs_proof(&id("s"), &id("n"), now + 2 * ANSWER));
        assert!(claims.needs_proof(&id("s"), &id("n"), now + 2 * ANSWER + REJECTED_FOR));
    }

    #[test]
    fn a_valid_proof_outlives_a_failed_refresh_and_is_refreshed_again() {
        let (mut claims, now) = claims();
        let until = now + HOUR;
        claims.on_proven(&key("n"), attachment("n", 1), until, now);
        let mut at = now + HOUR - REFRESH_AHEAD;
        let mut refreshes = 0;
        while at < until {
            assert_eq!(claims.poll(at), Some((key("n"), Due::Ask { of_other_than: None })));
            assert_eq!(claims.on_unanswered(&key("n"), at), BTreeSet::new());
            assert_eq!(claims.standing(&id("s"), &id("n"), None), Standing::Proven);
            refreshes += 1;
            at = claims.next_timeout().unwrap();
        }
        assert_eq!((refreshes, at), (10, until));
        assert_eq!(claims.poll(until), Some((key("n"), Due::Failed { askers: BTreeSet::new() })));
        assert_eq!(
            claims.state(&id("s"), &id("n"), None),
            ClaimState::Rejected(ClaimFault::Expired)
        );
    }

    #[test]
    fn the_newest_proof_holds_and_equal_ones_hold_together() {
        let (mut claims, now) = claims();
        claims.on_proven(&key("old"), attachment("old", 1), now + HOUR, now);
        claims.on_proven(&key("new"), attachment("new", 2), now + HOUR, now);
        claims.on_proven(&key("too"), attachment("too", 2), now + HOUR, now);
        let standing = |claimer| claims.standing(&id("s"), &id(claimer), None);
        assert_eq!(
            ["old", "new", "too"].map(standing),
            [Standing::Unproven, Standing::Proven, Standing::Proven]
        );
        assert_eq!(
            claims.state(&id("s"), &id("old"), None),
            ClaimState::Rejected(ClaimFault::Older)
        );
    }

    #[test]
    fn a_missing_proof_is_reported_the_second_time_and_a_forged_one_at_once() {
        let (mut claims, now) = claims();
        assert!(!claims.on_rejected(&key("n"), ClaimFault::NoProof, now).1);
        let again = now + REJECTED_FOR;
        assert_eq!(claims.poll(again), Some((key("n"), Due::Ask { of_other_than: None })));
        assert!(claims.on_rejected(&key("n"), ClaimFault::NoProof, again).1);
        assert!(!claims.on_rejected(&key("n"), ClaimFault::NoProof, again).1, "once");
        assert_eq!(claims.next_timeout(), None);
        assert!(claims.on_rejected(&key("m"), ClaimFault::Forged, now).1);
    }

    #[test]
    fn a_missing_proof_is_retried_once_another_claim_is_proven() {
        for fault in [ClaimFault::NoAnswer, ClaimFault::NoProof, ClaimFault::Expired] {
            let (mut claims, now) = claims();
            claims.on_rejected(&key("m"), fault, now);
            // The second look at a missing proof is over, too.
            claims.set_due(&key("m"), None);
            claims.reconsider(&id("s"), None, now);
            assert_eq!(claims.next_timeout(), None, "nothing depends on it");
            claims.on_proven(&key("n"), attachment("n", 1), now + HOUR, now);
            claims.reconsider(&id("s"), None, now);
            assert_eq!(claims.poll(now + REJECTED_FOR - MILLI), None);
            let again = now + REJECTED_FOR;
            assert_eq!(claims.poll(again), Some((key("m"), Due::Ask { of_other_than: None })));
            claims.on_rejected(&key("m"), fault, again);
            claims.reconsider(&id("s"), None, again);
            let third = again + 2 * REJECTED_FOR;
            assert_eq!(claims.poll(third), Some((key("m"), Due::Ask { of_other_than: None })));
        }
        let (mut claims, now) = claims();
        claims.on_rejected(&key("m"), ClaimFault::Forged, now);
        claims.on_proven(&key("n"), attachment("n", 1), now + HOUR, now);
        claims.reconsider(&id("s"), None, now);
        assert_eq!(
            claims.poll(now + REJECTED_FOR),
            None,
            "a forged proof is final until the stub is used"
        );
    }

    #[test]
    fn an_older_proof_is_fetched_again_ever_more_rarely() {
        let (mut claims, now) = claims();
        claims.on_proven(&key("old"), attachment("old", 1), now + HOUR, now);
        claims.on_proven(&key("new"), attachment("new", 2), now + HOUR, now);
        let mut pauses = Vec::new();
        let mut at = now;
        for _ in 0..11 {
            // Further calls change nothing.
            (0..3).for_each(|_| claims.reconsider(&id("s"), None, at));
            let due = claims.next_timeout().unwrap();
            pauses.push((due - at).as_millis());
            at = due;
            assert_eq!(claims.poll(at), Some((key("old"), Due::Ask { of_other_than: None })));
            claims.on_asked(&key("old"), id("hop"), None, at);
            claims.on_proven(&key("old"), attachment("old", 1), now + HOUR, at);
        }
        assert_eq!(
            pauses,
            [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000, 64_000]
        );
        // The claimer has the newer one at last.
        claims.on_proven(&key("old"), attachment("old", 2), now + HOUR, at);
        claims.reconsider(&id("s"), None, at);
        assert_eq!(claims.next_timeout(), Some(now + HOUR - REFRESH_AHEAD));
        assert_eq!(claims.standing(&id("s"), &id("old"), None), Standing::Proven);
    }

    #[test]
    fn the_attachment_to_this_node_counts_like_a_proven_claim() {
        let (mut claims, now) = claims();
        claims.on_proven(&key("n"), attachment("n", 2), now + HOUR, now);
        let version = |sequence| Some(Version { epoch: 1, sequence, instance: 7 });
        let standing = |own| claims.standing(&id("s"), &id("n"), own);
        assert_eq!(
            [None, version(1), version(2), version(3)].map(standing),
            [Standing::Proven, Standing::Proven, Standing::Proven, Standing::Unproven]
        );
        let older = ClaimState::Rejected(ClaimFault::Older);
        assert_eq!(claims.state(&id("s"), &id("n"), version(3)), older);
        claims.reconsider(&id("s"), version(3), now);
        assert_eq!(claims.next_timeout(), Some(now + RECHECK_AFTER));
    }

    #[test]
    fn claims_that_are_made_no_more_are_forgotten() {
        let (mut claims, now) = claims();
        claims.on_proven(&key("n"), attachment("n", 1), now + HOUR, now);
        claims.on_rejected(&key("m"), ClaimFault::NoProof, now);
        claims.retain_of(&id("n"), |_| true);
        assert_eq!(claims.len(), 2);
        claims.retain_of(&id("n"), |_| false);
        claims.retain(|_| false);
        assert_eq!((claims.len(), claims.bytes, claims.next_timeout()), (0, 0, None));
        assert!(claims.by_stub.is_empty() && claims.claimers.is_empty());
    }

    #[test]
    fn a_node_with_many_stubs_makes_room_for_others() {
        let (mut claims, now) = claims();
        claims.on_proven(&key("n"), attachment("n", 1), now + HOUR, now);
        for nth in 0..MAX_CLAIMS + 9 {
            let key = (id(&format!("x{nth}")), id("liar"));
            claims.on_asked(&key, id("hop"), None, now);
        }
        assert_eq!(claims.len(), MAX_CLAIMS);
        assert_eq!(claims.standing(&id("s"), &id("n"), None), Standing::Proven);
    }

    #[test]
    fn rejected_claims_are_bounded_as_well() {
        let (mut claims, now) = claims();
        for nth in 0..MAX_CLAIMS + 9 {
            claims.on_rejected(&(id(&format!("x{nth}")), id("n")), ClaimFault::NoAnswer, now);
        }
        assert_eq!(claims.len(), MAX_CLAIMS);
    }

    #[test]
    fn a_full_table_evicts_nothing_for_a_claim_that_it_holds() {
        let (mut claims, now) = claims();
        for nth in 0..MAX_CLAIMS {
            claims.on_asked(&(id(&format!("x{nth}")), id("n")), id("hop"), None, now);
        }
        let held = (id("x0"), id("n"));
        claims.on_asked(&held, id("other"), None, now);
        claims.on_proven(&held, attachment("n", 1), now + HOUR, now);
        claims.on_rejected(&held, ClaimFault::NoProof, now);
        assert_eq!(claims.len(), MAX_CLAIMS);
    }

    #[test]
    fn refreshing_a_proof_in_a_full_table_evicts_no_other() {
        let (mut claims, now) = claims();
        let kept = fill(&mut claims, now, &|_| id("n"));
        let keys: Vec<Key> = (0..kept).map(|nth| (id(&format!("x{nth}")), id("n"))).collect();
        for key in &keys {
            claims.on_proven(key, large_attachment(), now + HOUR, now);
        }
        assert!(keys.iter().all(|(stub, claimer)| claims.proof(stub, claimer).is_some()));
        assert_eq!((claims.len(), claims.bytes), (kept, kept * large_attachment().len()));
    }

    #[test]
    fn a_proof_that_evicts_keeps_the_askers_of_its_own_claim() {
        let (mut claims, now) = claims();
        // Each claimer has one claim, so that of the greatest id is evicted first.
        let kept = fill(&mut claims, now, &|nth| id(&format!("n{nth}")));
        let key = (id("s"), id("z"));
        claims.on_asked(&key, id("hop"), Some(&id("asker")), now);
        let askers = claims.on_proven(&key, large_attachment(), now + HOUR, now);
        assert_eq!(askers, [id("asker")].into());
        assert!(claims.proof(&key.0, &key.1).is_some());
        assert_eq!((claims.len(), claims.bytes), (kept, kept * large_attachment().len()));
        assert_eq!(claims.next_timeout(), Some(now + HOUR - REFRESH_AHEAD));
    }

    /// Fills the table up to `MAX_BYTES` with large proofs of the stubs `x0`, `x1`, and so on.
    /// Returns their number.
    fn fill(claims: &mut Claims, now: Instant, claimer: &dyn Fn(usize) -> NodeId) -> usize {
        let count = MAX_BYTES / large_attachment().len();
        for nth in 0..count {
            let key = (id(&format!("x{nth}")), claimer(nth));
            claims.on_proven(&key, large_attachment(), now + HOUR, now);
        }
        count
    }

    #[test]
    fn a_neighbour_that_has_much_fetched_is_paced() {
        let (mut claims, now) = claims();
        let fetched = (0..1_000).filter(|_| claims.may_fetch_for(&id("m"), now)).count();
        assert_eq!(fetched, FETCH_BURST as usize);
        assert!(claims.may_fetch_for(&id("other"), now));
        assert!(claims.may_fetch_for(&id("m"), now + FETCH_EVERY));
    }

    #[test]
    fn no_more_paces_are_remembered_than_the_maximum() {
        let (mut claims, now) = claims();
        for nth in 0..MAX_PACES {
            assert!(claims.may_fetch_for(&id(&format!("n{nth}")), now));
        }
        assert!(!claims.may_fetch_for(&id("other"), now));
        assert!(claims.may_fetch_for(&id("n0"), now), "it is remembered");
        assert_eq!(claims.paces.len(), MAX_PACES);
        assert!(claims.may_fetch_for(&id("other"), now + FETCH_EVERY));
    }

    fn attachment(neighbour: &str, sequence: u64) -> Attachment {
        let version = Version { epoch: 1, sequence, instance: 7 };
        let body = Attachment::body(&id("s"), &id(neighbour), version, 1);
        Attachment::decode(body, Bytes::new(), Bytes::new()).expect("a body of its own")
    }

    fn large_attachment() -> Attachment {
        let version = Version { epoch: 1, sequence: 1, instance: 7 };
        let body = Attachment::body(&id("s"), &id("n"), version, 1);
        let credential = Bytes::from(vec![0; Proof::MAX_CREDENTIAL]);
        Attachment::decode(body, Bytes::new(), credential).expect("its parts are within bounds")
    }

    fn key(claimer: &str) -> Key {
        (id("s"), id(claimer))
    }

    fn id(text: &str) -> NodeId {
        text.parse().expect("an id")
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
    fn claims() -> (Claims, Instant) {
        (Claims::default(), Instant::now())
    }
}
