//! What one neighbour is still to be sent: sets, not a queue of messages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Instant;

use bytes::Bytes;

use super::credentials::Key;
use super::database::Database;
use super::wire::{Digest, Entry, Message};
use crate::id::NodeId;

/// What one neighbour is still to be sent.
///
/// The sets name origins; messages are made from the current records when the stream can take them. So a slow neighbour costs at most
/// one entry per origin, skips what was superseded, and never gets an older copy after a newer one.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    digest: Option<(Digest, u64)>,
    summary: Option<SummaryCursor>,
    wants: BTreeSet<NodeId>,
    nacks: BTreeSet<NodeId>,
    credential_wants: BTreeSet<Key>,
    /// Answers to the neighbour; none: this node does not have it.
    credentials: BTreeMap<Key, Option<Bytes>>,
    dirty: BTreeMap<NodeId, Owed>,
    /// Origins whose id waits for more of its kind. Never in `dirty` as well.
    announced: BTreeSet<NodeId>,
    /// Where the round through `dirty` stands, so that busy origins do not starve others.
    turn: Option<NodeId>,
    /// Records that must go before the end of the sync; none: the end was sent, or is not due.
    before_end: Option<BTreeSet<NodeId>>,
}

/// What is owed of a dirty origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owed {
    /// The stamp, in a HAVE.
    Id,
    /// The record.
    Payload,
}

#[derive(Debug)]
struct SummaryCursor {
    after: Option<NodeId>,
}

impl Outbox {
    pub(crate) fn digest(&mut self, digest: Digest, count: u64) {
        self.digest = Some((digest, count));
    }

    /// Sends a whole summary, from the start.
    pub(crate) fn summary(&mut self) {
        self.summary = Some(SummaryCursor { after: None });
    }

    pub(crate) fn want(&mut self, origin: NodeId) {
        self.wants.insert(origin);
    }

    /// Refusals are bounded like everything; a neighbour that asks for more unknown origins asks again.
    pub(crate) fn nack(&mut self, origin: NodeId, max: usize) -> bool {
        let room = self.nacks.len() < max;
        if room {
            self.nacks.insert(origin);
        }
        room
    }

    pub(crate) fn want_credential(&mut self, key: Key) {
        self.credential_wants.insert(key);
    }

    /// Answers are bounded like refusals.
    pub(crate) fn give_credential(&mut self, key: Key, credential: Option<Bytes>, max: usize) -> bool {
        let room = self.credentials.len() < max;
        if room {
            self.credentials.insert(key, credential);
        }
        room
    }

    pub(crate) fn owe(&mut self, origin: NodeId, owed: Owed) {
        self.announced.remove(&origin);
        let entry = self.dirty.entry(origin).or_insert(owed);
        *entry = (*entry).max(owed);
    }

    /// Owes the id once [`release`](Self::release) is called, unless the neighbour shows before that it holds the record.
    /// Says whether that is to come.
    pub(crate) fn announce(&mut self, origin: NodeId) -> bool {
        let waits = !self.dirty.contains_key(&origin);
        if waits {
            self.announced.insert(origin);
        }
        waits
    }

    /// What was announced goes out now. Says whether there was anything.
    pub(crate) fn release(&mut self) -> bool {
        let announced = std::mem::take(&mut self.announced);
        let any = !announced.is_empty();
        self.dirty.extend(announced.into_iter().map(|origin| (origin, Owed::Id)));
        any
    }

    /// The neighbour has shown that it holds what would be sent of this origin.
    pub(crate) fn settle(&mut self, origin: &NodeId) {
        self.dirty.remove(origin);
        self.announced.remove(origin);
        if let Some(before_end) = &mut self.before_end {
            before_end.remove(origin);
        }
    }

    /// Ends the sync once everything that is dirty now has gone.
    pub(crate) fn end_sync(&mut self) {
        self.before_end = Some(self.dirty.keys().cloned().collect());
    }

    /// How many origins wait.
    pub(crate) fn len(&self) -> usize {
        self.dirty.len() + self.announced.len()
    }

    /// The next message, if there is anything to say.
    pub(crate) fn next(&mut self, database: &Database, now: Instant) -> Option<Message> {
        if let Some((digest, count)) = self.digest.take() {
            return Some(Message::Digest { digest, count });
        }
        if let Some(SummaryCursor { after }) = self.summary.take() {
            let (entries, last) = database.summary(after.as_ref(), now);
            if !last {
                self.summary =
                    entries.last().map(|entry| SummaryCursor { after: Some(entry.origin.clone()) });
            }
            return Some(Message::Summary { after, entries, last });
        }
        if let Some(origins) = take_some(&mut self.wants) {
            return Some(Message::Want(origins));
        }
        if let Some(origins) = take_some(&mut self.nacks) {
            return Some(Message::Nack(origins));
        }
        if let Some(wanted) = take_some(&mut self.credential_wants) {
            return Some(Message::CredentialWant(wanted));
        }
        if let Some(((origin, name), credential)) = self.credentials.pop_first() {
            return Some(Message::Credential { origin, name, credential });
        }
        self.next_end().or_else(|| self.next_dirty(database))
    }

    fn next_dirty(&mut self, database: &Database) -> Option<Message> {
        while let Some((origin, owed)) = self.take_dirty() {
            let Some(record) = database.get(&origin) else { continue };
            if owed == Owed::Payload {
                return Some(Message::Update(record.advertisement().clone()));
            }
            let mut entries = vec![Entry { origin, stamp: record.stamp() }];
            self.gather_ids(database, &mut entries);
            return Some(Message::Have(entries));
        }
        None
    }

    fn take_dirty(&mut self) -> Option<(NodeId, Owed)> {
        let start = self.turn.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.dirty.range((start, Bound::Unbounded)).next().or_else(|| self.dirty.iter().next());
        let (origin, owed) = next.map(|(origin, &owed)| (origin.clone(), owed))?;
        self.settle(&origin);
        self.turn = Some(origin.clone());
        Some((origin, owed))
    }

    /// Other ids that are owed go in the same HAVE.
    fn gather_ids(&mut self, database: &Database, entries: &mut Vec<Entry>) {
        let room = Message::MAX_ENTRIES - entries.len();
        let ids: Vec<NodeId> = self
            .dirty
            .iter()
            .filter(|(_, owed)| **owed == Owed::Id)
            .take(room)
            .map(|(id, _)| id.clone())
            .collect();
        for origin in ids {
            self.settle(&origin);
            if let Some(stamp) = database.stamp(&origin) {
                entries.push(Entry { origin, stamp });
            }
        }
    }

    fn next_end(&mut self) -> Option<Message> {
        if self.before_end.as_ref()?.is_empty() {
            self.before_end = None;
            return Some(Message::SyncEnd);
        }
        None
    }
}

fn take_some<T: Ord>(set: &mut BTreeSet<T>) -> Option<Vec<T>> {
    if set.is_empty() {
        return None;
    }
    let mut some = Vec::new();
    while some.len() < Message::MAX_ENTRIES
        && let Some(id) = set.pop_first()
    {
        some.push(id);
    }
    Some(some)
}
