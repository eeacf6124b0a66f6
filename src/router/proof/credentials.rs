//! The credentials of other nodes: kept with their records, fetched once, and the records that wait
//! for one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::id::NodeId;
use crate::router::proof::signature::CredentialName;
use crate::router::record::Record;

/// Credentials kept per origin: the one in use, and the one before it or after it while a renewal
/// spreads.
const MAX_KEPT: usize = 2;

/// Records of one neighbour that wait for credentials, and their bytes.
const MAX_OF_ONE: Load = Load { records: 4_096, bytes: 4 << 20 };

/// The same of all neighbours together.
const MAX_OF_ALL: Load = Load { records: 16_384, bytes: 16 << 20 };

/// How long an answer is awaited before the next one who sent the record is asked.
const ANSWER: Duration = Duration::from_secs(5);

/// How often a credential is asked for before the records that wait for it are dropped.
const MAX_ASKS: u32 = 4;

/// The credentials of other nodes.
///
/// A record whose credential is not known waits here, and the neighbour that sent it is asked: it
/// has verified the record itself, so it has the credential. If it has not, or does not answer,
/// others that sent the same copy are asked. A neighbour's records take room on its own account
/// only, so that a liar cannot push out what others sent.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    kept: BTreeMap<NodeId, Vec<(CredentialName, Bytes)>>,
    wanted: BTreeMap<Key, Wanted>,
    due: BTreeSet<(Instant, Key)>,
    /// What waits, by the neighbour that sent it.
    load: BTreeMap<NodeId, Load>,
    total: Load,
    /// Neighbours that ended their sync while records that they had sent before were waiting: the
    /// origins of these.
    ends: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

/// Whose credential, and which.
pub(crate) type Key = (NodeId, CredentialName);

/// A record that waited, and who had sent it.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) record: Record,
    pub(crate) senders: Vec<NodeId>,
}

#[derive(Debug)]
struct Wanted {
    waiting: Vec<Waiting>,
    asked: NodeId,
    asks: u32,
    due: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    records: usize,
    bytes: usize,
}

/// To be asked of a neighbour.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) neighbour: NodeId,
    pub(crate) key: Key,
}

/// What became of a record whose credential is not known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Park {
    /// It waits, and this is to be asked.
    Ask(Ask),
    /// It waits; somebody was asked before.
    Waits,
    /// There is no room for it.
    Full,
}

impl Credentials {
    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.kept.values().map(Vec::len).sum()
    }

    /// How many records wait, one that several neighbours sent counted as often.
    pub(crate) fn waiting(&self) -> usize {
        self.total.records
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.kept.values().flatten().map(|(_, credential)| credential)
    }

    pub(crate) fn get(&self, origin: &NodeId, name: CredentialName) -> Option<&Bytes> {
        let kept = self.kept.get(origin)?;
        kept.iter().find(|(kept, _)| *kept == name).map(|(_, credential)| credential)
    }

    /// Keeps a credential that a stored record was verified with.
    pub(crate) fn keep(&mut self, origin: NodeId, credential: Bytes) {
        let name = CredentialName::of(&credential);
        let kept = self.kept.entry(origin).or_default();
        if kept.iter().any(|(kept, _)| *kept == name) {
            return;
        }
        if kept.len() == MAX_KEPT {
            kept.remove(0);
        }
        kept.push((name, credential));
    }

    /// Forgets the credentials of all but these origins.
    pub(crate) fn retain(&mut self, holds: impl Fn(&NodeId) -> bool) {
        self.kept.retain(|origin, _| holds(origin));
    }

    /// Lets a record wait for its credential. Of one origin and neighbour only the newest waits.
    pub(crate) fn park(
        &mut self,
        record: Record,
        name: CredentialName,
        from: &NodeId,
        now: Instant,
    ) -> Park {
        let key = (record.origin.clone(), name);
        let from_sender = |waiting: &&Waiting| waiting.senders.contains(from);
        let held = self.wanted.get(&key).and_then(|wanted| wanted.waiting.iter().find(from_sender));
        let held = held.map(|waiting| waiting.record.clone());
        if held.as_ref().is_some_and(|held| held.stamp() >= record.stamp()) {
            return Park::Waits;
        }
        let bytes = size(&record);
        let load = self.load.get(from).copied().unwrap_or_default();
        if !load.takes(bytes, MAX_OF_ONE) || !self.total.takes(bytes, MAX_OF_ALL) {
            return Park::Full;
        }
        self.load.entry(from.clone()).or_default().add(bytes);
        self.total.add(bytes);
        let asks = !self.wanted.contains_key(&key);
        let due = now + ANSWER;
        let wanted = self.wanted.entry(key.clone()).or_insert_with(|| Wanted {
            waiting: Vec::new(),
            asked: from.clone(),
            asks: 1,
            due,
        });
        match wanted.waiting.iter_mut().find(|waiting| waiting.record == record) {
            Some(same) => same.senders.push(from.clone()),
            None => wanted.waiting.push(Waiting { record, senders: vec![from.clone()] }),
        }
        if let Some(held) = held {
            self.release(from, &key, |waiting| waiting.record == held);
        }
        if !asks {
            return Park::Waits;
        }
        self.due.insert((due, key.clone()));
        Park::Ask(Ask { neighbour: from.clone(), key })
    }

    /// Whether anything waits for this credential.
    pub(crate) fn wants(&self, key: &Key) -> bool {
        self.wanted.contains_key(key)
    }

    /// The credential came: what waited for it, the newest first.
    pub(crate) fn take(&mut self, key: &Key) -> Vec<Waiting> {
        let Some(wanted) = self.wanted.remove(key) else { return Vec::new() };
        self.due.remove(&(wanted.due, key.clone()));
        for waiting in &wanted.waiting {
            for sender in &waiting.senders {
                self.unload(sender, key, size(&waiting.record));
            }
        }
        let mut waiting = wanted.waiting;
        waiting.sort_by_key(|waiting| std::cmp::Reverse(waiting.record.stamp()));
        waiting
    }

    /// The neighbour has no such credential. Who is to be asked instead, if anybody.
    pub(crate) fn on_refused(&mut self, from: &NodeId, key: &Key, now: Instant) -> Option<Ask> {
        self.release(from, key, |_| true);
        self.wanted.get(key).filter(|wanted| wanted.asked == *from)?;
        self.ask_next(key, now)
    }

    /// The session with the neighbour ended. Who is to be asked instead.
    pub(crate) fn on_session_down(&mut self, neighbour: &NodeId, now: Instant) -> Vec<Ask> {
        self.ends.remove(neighbour);
        if !self.load.contains_key(neighbour) {
            return Vec::new();
        }
        let keys: Vec<Key> = self.wanted.keys().cloned().collect();
        keys.iter().filter_map(|key| self.on_refused(neighbour, key, now)).collect()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Who is to be asked now, because others did not answer, and how many records were given up.
    pub(crate) fn poll(&mut self, now: Instant) -> (Vec<Ask>, usize) {
        let (mut asks, mut dropped) = (Vec::new(), 0);
        while let Some((at, key)) = self.due.first().cloned()
            && at <= now
        {
            if self.wanted.get(&key).is_some_and(|wanted| wanted.asks >= MAX_ASKS) {
                dropped += self.take(&key).len();
            } else {
                asks.extend(self.ask_next(&key, now));
            }
        }
        (asks, dropped)
    }

    /// The neighbour ended its sync. Says whether that is to wait for records that it sent before.
    pub(crate) fn holds_end(&mut self, neighbour: &NodeId) -> bool {
        if !self.load.contains_key(neighbour) {
            return false;
        }
        let sent = |wanted: &&Wanted| {
            wanted.waiting.iter().any(|waiting| waiting.senders.contains(neighbour))
        };
        let origins: BTreeSet<NodeId> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| sent(wanted))
            .map(|((origin, _), _)| origin.clone())
            .collect();
        let holds = !origins.is_empty();
        if holds {
            self.ends.insert(neighbour.clone(), origins);
        }
        holds
    }

    /// Whether the end of the neighbour's sync waits.
    pub(crate) fn ends(&self, neighbour: &NodeId) -> bool {
        self.ends.contains_key(neighbour)
    }

    /// The neighbours whose end of the sync need wait no longer.
    pub(crate) fn take_ended(&mut self) -> Vec<NodeId> {
        let ended: Vec<NodeId> = self
            .ends
            .iter()
            .filter(|(_, origins)| origins.is_empty())
            .map(|(id, _)| id.clone())
            .collect();
        for neighbour in &ended {
            self.ends.remove(neighbour);
        }
        ended
    }

    /// What this neighbour sent waits no longer.
    fn release(&mut self, from: &NodeId, key: &Key, which: impl Fn(&Waiting) -> bool) {
        let Some(wanted) = self.wanted.get_mut(key) else { return };
        let mut released = Vec::new();
        wanted.waiting.retain_mut(|waiting| {
            if !which(waiting) {
                return true;
            }
            let before = waiting.senders.len();
            waiting.senders.retain(|sender| sender != from);
            if waiting.senders.len() < before {
                released.push(size(&waiting.record));
            }
            !waiting.senders.is_empty()
        });
        if wanted.waiting.is_empty() {
            self.due.remove(&(wanted.due, key.clone()));
            self.wanted.remove(key);
        }
        for bytes in released {
            self.unload(from, key, bytes);
        }
    }

    fn unload(&mut self, sender: &NodeId, (origin, _): &Key, bytes: usize) {
        self.total.take(bytes);
        if let Some(load) = self.load.get_mut(sender) {
            load.take(bytes);
            if load.records == 0 {
                self.load.remove(sender);
            }
        }
        if let Some(origins) = self.ends.get_mut(sender) {
            origins.remove(origin);
        }
    }

    /// Asks the next one after the one asked last, round the names.
    fn ask_next(&mut self, key: &Key, now: Instant) -> Option<Ask> {
        let wanted = self.wanted.get_mut(key)?;
        let senders: BTreeSet<&NodeId> =
            wanted.waiting.iter().flat_map(|waiting| &waiting.senders).collect();
        let next =
            senders.iter().find(|sender| ***sender > wanted.asked).or_else(|| senders.first());
        let neighbour = (*next?).clone();
        self.due.remove(&(wanted.due, key.clone()));
        (wanted.asked, wanted.due, wanted.asks) =
            (neighbour.clone(), now + ANSWER, wanted.asks + 1);
        self.due.insert((wanted.due, key.clone()));
        Some(Ask { neighbour, key: key.clone() })
    }
}

impl Load {
    fn takes(self, bytes: usize, max: Self) -> bool {
        self.records < max.records && self.bytes + bytes <= max.bytes
    }

    fn add(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes;
    }

    fn take(&mut self, bytes: usize) {
        self.records -= 1;
        self.bytes -= bytes;
    }
}

fn size(record: &Record) -> usize {
    record.advertisement().bytes().len() + record.advertisement().proof().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::database::graph::tests::{id, record};

    #[test]
    fn who_sent_the_record_is_asked_then_others_that_sent_it_and_then_it_is_given_up() {
        let (mut credentials, now) = credentials();
        assert_eq!(
            credentials.park(record("o", &[]), name(), &id("n2"), now),
            Park::Ask(ask("n2"))
        );
        assert_eq!(credentials.park(record("o", &[]), name(), &id("n1"), now), Park::Waits);
        assert_eq!(credentials.park(record("o", &[]), name(), &id("n1"), now), Park::Waits);
        assert_eq!(credentials.poll(now), (vec![], 0));
        let mut at = now + ANSWER;
        for neighbour in ["n1", "n2", "n1"] {
            assert_eq!(credentials.poll(at), (vec![ask(neighbour)], 0));
            at += ANSWER;
        }
        assert_eq!(credentials.poll(at), (vec![], 1));
        assert_empty(&credentials);
    }

    #[test]
    fn a_refusal_or_the_end_of_a_session_turns_to_the_next_at_once() {
        let (mut credentials, now) = credentials();
        for neighbour in ["n1", "n2", "n3"] {
            credentials.park(record("o", &[]), name(), &id(neighbour), now);
        }
        assert_eq!(credentials.on_refused(&id("n3"), &key(), now), None, "it was not asked");
        assert_eq!(credentials.on_refused(&id("n1"), &key(), now), Some(ask("n2")));
        assert_eq!(credentials.on_session_down(&id("n2"), now), []);
        assert_empty(&credentials);
    }

    #[test]
    fn one_neighbour_takes_room_on_its_own_account_only() {
        let (mut credentials, now) = credentials();
        let park = |credentials: &mut Credentials, n: usize, from: &str| {
            credentials.park(record(&format!("o{n}"), &[]), name(), &id(from), now)
        };
        let taken = (0..MAX_OF_ONE.records + 9)
            .filter(|&n| park(&mut credentials, n, "liar") != Park::Full);
        assert_eq!(taken.count(), MAX_OF_ONE.records);
        assert!(matches!(park(&mut credentials, 1_000_000, "n"), Park::Ask(_)));
        credentials.on_session_down(&id("liar"), now);
        credentials.on_session_down(&id("n"), now);
        assert_empty(&credentials);
    }

    #[test]
    fn the_end_of_a_sync_waits_for_what_was_sent_before() {
        let (mut credentials, now) = credentials();
        assert!(!credentials.holds_end(&id("n")));
        credentials.park(record("o", &[]), name(), &id("n"), now);
        assert!(credentials.holds_end(&id("n")) && credentials.ends(&id("n")));
        credentials.park(record("later", &[]), name(), &id("n"), now);
        assert_eq!(credentials.take_ended(), []);
        assert_eq!(credentials.take(&key()).len(), 1);
        assert_eq!(credentials.take_ended(), [id("n")]);
        assert!(!credentials.ends(&id("n")));
    }

    #[test]
    fn two_credentials_are_kept_of_each_origin() {
        let (mut credentials, _) = credentials();
        for text in ["one", "two", "two", "three"] {
            credentials.keep(id("o"), text.into());
        }
        let has =
            |text: &str| credentials.get(&id("o"), CredentialName::of(text.as_bytes())).is_some();
        assert_eq!([has("one"), has("two"), has("three")], [false, true, true]);
        credentials.retain(|_| false);
        assert_empty(&credentials);
    }

    fn assert_empty(credentials: &Credentials) {
        assert!(
            credentials.wanted.is_empty()
                && credentials.due.is_empty()
                && credentials.load.is_empty()
        );
        assert_eq!((credentials.total.records, credentials.total.bytes), (0, 0));
        assert!(credentials.kept.is_empty());
    }

    fn ask(neighbour: &str) -> Ask {
        Ask { neighbour: id(neighbour), key: key() }
    }

    fn key() -> Key {
        (id("o"), name())
    }

    fn name() -> CredentialName {
        CredentialName::of(b"credential")
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
    fn credentials() -> (Credentials, Instant) {
        (Credentials::default(), Instant::now())
    }
}
