//! What one neighbour is still to be sent: sets, not a queue of messages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Instant;

use bytes::Bytes;

use crate::id::NodeId;
use crate::router::convergence::answer::Echo;
use crate::router::database::Database;
use crate::router::database::buckets::BucketSet;
use crate::router::proof::attachment::Attachment;
use crate::router::proof::claims;
use crate::router::proof::credentials::Key;
use crate::router::record::wire::{Digest, Entry, Message};

/// What one neighbour is still to be sent.
///
/// The sets name origins; messages are made from the current records when the stream can take them.
/// So a slow neighbour costs at most one entry per origin, skips what was superseded, and never
/// gets an older copy after a newer one.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    digest: Option<(Digest, u64)>,
    /// A digest under a key of its own.
    rekeyed: Option<([u8; 16], Digest)>,
    /// Digests of so many buckets, as a power of two.
    buckets: Option<u32>,
    summary: Option<SummaryCursor>,
    wants: BTreeSet<NodeId>,
    nacks: BTreeSet<NodeId>,
    credential_wants: BTreeSet<Key>,
    /// Answers to the neighbour; `None` if this node does not have it.
    credentials: BTreeMap<Key, Option<Bytes>>,
    /// Stub and neighbour.
    attachment_wants: BTreeSet<claims::Key>,
    attachments: BTreeMap<claims::Key, Option<Box<Attachment>>>,
    dirty: BTreeMap<NodeId, Owed>,
    /// Origins whose id waits for more of its kind. Never in `dirty` as well.
    announced: BTreeMap<NodeId, Owed>,
    /// Answers to waves, by origin. They go last: what was owed when the answer was ready comes
    /// before it.
    echoes: BTreeMap<NodeId, Echo>,
    /// Where the round through `dirty` stands, so that busy origins do not starve others.
    turn: Option<NodeId>,
    /// Records that must be sent before the end of the sync; `None`: it was sent, or is not due.
    before_end: Option<BTreeSet<NodeId>>,
    /// A request or an answer went last. Now it is the turn of records: where the stream is so slow
    /// that requests are repeated before it takes the next message, nothing else would ever go.
    records_next: bool,
}

/// What is owed of a dirty origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owed {
    /// The stamp, in a HAVE.
    Id,
    /// The same, of a record that does not come by itself.
    Offer,
    /// The record, or its change against the one before, if one is kept.
    Change,
    /// The record.
    Payload,
}

#[derive(Debug)]
struct SummaryCursor {
    after: Option<NodeId>,
    only: Option<BucketSet>,
}

impl Outbox {
    pub(crate) fn digest(&mut self, digest: Digest, count: u64) {
        self.digest = Some((digest, count));
    }

    pub(crate) fn rekeyed(&mut self, key: [u8; 16], digest: Digest) {
        self.rekeyed = Some((key, digest));
    }

    /// Sends the digests of 2^`bits` buckets.
    pub(crate) fn buckets(&mut self, bits: u32) {
        self.buckets = Some(bits);
    }

    /// Sends a summary from the start, of these buckets alone where some are given. One of all that
    /// is on its way says that, too, and the neighbour's answer to it is awaited.
    pub(crate) fn summary(&mut self, only: Option<BucketSet>) {
        let whole = self.summary.as_ref().is_some_and(|cursor| cursor.only.is_none());
        if only.is_none() || !whole {
            self.summary = Some(SummaryCursor { after: None, only });
        }
    }

    pub(crate) fn want(&mut self, origin: NodeId) {
        self.wants.insert(origin);
    }

    /// Refusals are bounded like everything; a neighbour that asks for more unknown origins asks
    /// again.
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
    pub(crate) fn give_credential(
        &mut self,
        key: Key,
        credential: Option<Bytes>,
        max: usize,
    ) -> bool {
        let room = self.credentials.len() < max;
        if room {
            self.credentials.insert(key, credential);
        }
        room
    }

    pub(crate) fn want_attachment(&mut self, key: claims::Key) {
        self.attachment_wants.insert(key);
    }

    /// Answers are bounded like refusals.
    pub(crate) fn give_attachment(
        &mut self,
        key: claims::Key,
        attachment: Option<Attachment>,
        max: usize,
    ) -> bool {
        let room = self.attachments.len() < max;
        if room {
            self.attachments.insert(key, attachment.map(Box::new));
        }
        room
    }

    /// Whether anything of this origin waits.
    pub(crate) fn owes(&self, origin: &NodeId) -> bool {
        self.dirty.contains_key(origin) || self.announced.contains_key(origin)
    }

    pub(crate) fn owe(&mut self, origin: NodeId, owed: Owed) {
        self.announced.remove(&origin);
        let entry = self.dirty.entry(origin).or_insert(owed);
        *entry = (*entry).max(owed);
    }

    /// Owes the record of `origin` that was just stored. A change will do if nothing of the origin
    /// was owed to the neighbour, which is `synced`: then it was sent the one before, or has shown
    /// it.
    pub(crate) fn owe_newer(&mut self, origin: &NodeId, synced: bool) {
        let owed = if synced && !self.owes(origin) { Owed::Change } else { Owed::Payload };
        self.owe(origin.clone(), owed);
    }

    /// Owes the id once [`release`](Self::release) is called, unless the neighbour shows before
    /// that it holds the record. Says whether that is to come.
    pub(crate) fn announce(&mut self, origin: NodeId, announced: Owed) -> bool {
        if let Some(owed) = self.dirty.get_mut(&origin) {
            // A change from what the neighbour was not sent is of no use to it.
            *owed = if *owed == Owed::Change { Owed::Payload } else { *owed };
            return false;
        }
        self.announced.insert(origin, announced);
        true
    }

    /// The same, at once, and even if the neighbour shows that it holds the record.
    pub(crate) fn tell(&mut self, origin: NodeId, told: Owed) {
        if self.announce(origin.clone(), told) {
            self.owe(origin, told);
        }
    }

    /// What was announced goes out now. Says whether there was anything.
    pub(crate) fn release(&mut self) -> bool {
        let announced = std::mem::take(&mut self.announced);
        let any = !announced.is_empty();
        self.dirty.extend(announced);
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

    /// The neighbour has shown that it holds what would be sent of this origin, and still is to be
    /// sent its id.
    pub(crate) fn settle_payload(&mut self, origin: &NodeId) {
        match self.dirty.get_mut(origin) {
            Some(owed) => *owed = Owed::Id,
            None => self.settle(origin),
        }
    }

    pub(crate) fn echo(&mut self, echo: Echo) {
        self.echoes.insert(echo.origin.clone(), echo);
    }

    /// Whether the end of the sync has gone, if it was due.
    pub(crate) fn has_ended_sync(&self) -> bool {
        self.before_end.is_none()
    }

    /// Ends the sync once everything that is dirty now has gone.
    pub(crate) fn end_sync(&mut self) {
        self.before_end = Some(self.dirty.keys().cloned().collect());
    }

    /// How many origins wait.
    pub(crate) fn len(&self) -> usize {
        self.dirty.len() + self.announced.len()
    }

    /// Everything that waits: origins, requests, refusals, and messages of the sync.
    pub(crate) fn waiting(&self) -> usize {
        let comparisons = [
            self.digest.is_some(),
            self.rekeyed.is_some(),
            self.buckets.is_some(),
            self.summary.is_some(),
            self.before_end.is_some(),
        ];
        let requests = self.wants.len()
            + self.nacks.len()
            + self.credential_wants.len()
            + self.credentials.len()
            + self.attachment_wants.len()
            + self.attachments.len()
            + self.echoes.len();
        self.len() + requests + comparisons.into_iter().filter(|&waits| waits).count()
    }

    /// The next message, if there is anything to say.
    pub(crate) fn next(&mut self, database: &Database, now: Instant) -> Option<Message> {
        if let Some((digest, count)) = self.digest.take() {
            return Some(Message::Digest { digest, count });
        }
        if let Some((key, digest)) = self.rekeyed.take() {
            return Some(Message::Rekeyed { key, digest });
        }
        if let Some(bits) = self.buckets.take() {
            return Some(Message::Buckets(database.buckets(bits, now)));
        }
        if let Some(SummaryCursor { after, only }) = self.summary.take() {
            let (entries, last) = database.summary(after.as_ref(), only.as_ref(), now);
            if !last {
                let after = entries.last().map(|entry| entry.origin.clone());
                self.summary = Some(SummaryCursor { after, only: only.clone() });
            }
            return Some(Message::Summary { after, entries, last, buckets: only });
        }
        if std::mem::take(&mut self.records_next)
            && let Some(message) = self.next_end().or_else(|| self.next_dirty(database))
        {
            return Some(message);
        }
        if let Some(message) = self.next_request() {
            self.records_next = true;
            return Some(message);
        }
        let next = self.next_end().or_else(|| self.next_dirty(database));
        next.or_else(|| self.echoes.pop_first().map(|(_, echo)| Message::Echo(echo)))
    }

    /// A request, or an answer to one.
    fn next_request(&mut self) -> Option<Message> {
        if let Some(origins) = take_some(&mut self.wants) {
            return Some(Message::Want(origins));
        }
        if let Some(origins) = take_some(&mut self.nacks) {
            return Some(Message::Nack(origins));
        }
        if let Some(wanted) = take_some(&mut self.credential_wants) {
            return Some(Message::CredentialWant(wanted));
        }
        if let Some(wanted) = take_some(&mut self.attachment_wants) {
            return Some(Message::AttachmentWant(wanted));
        }
        if let Some(((stub, neighbour), attachment)) = self.attachments.pop_first() {
            return Some(Message::Attachment { stub, neighbour, attachment });
        }
        let ((origin, name), credential) = self.credentials.pop_first()?;
        Some(Message::Credential { origin, name, credential })
    }

    fn next_dirty(&mut self, database: &Database) -> Option<Message> {
        while let Some((origin, owed)) = self.take_dirty() {
            let Some(record) = database.get(&origin) else { continue };
            if owed == Owed::Change
                && let Some(delta) = database.delta(&origin)
            {
                return Some(Message::Delta(delta));
            }
            if owed >= Owed::Change {
                return Some(Message::Update(record.advertisement().clone()));
            }
            let mut entries = vec![Entry { origin, stamp: record.stamp() }];
            self.gather_ids(database, owed, &mut entries);
            return Some(if owed == Owed::Id {
                Message::Have(entries)
            } else {
                Message::Offer(entries)
            });
        }
        None
    }

    fn take_dirty(&mut self) -> Option<(NodeId, Owed)> {
        let start = self.turn.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next =
            self.dirty.range((start, Bound::Unbounded)).next().or_else(|| self.dirty.iter().next());
        let (origin, owed) = next.map(|(origin, &owed)| (origin.clone(), owed))?;
        self.settle(&origin);
        self.turn = Some(origin.clone());
        Some((origin, owed))
    }

    /// Other ids that are owed alike go in the same message.
    fn gather_ids(&mut self, database: &Database, alike: Owed, entries: &mut Vec<Entry>) {
        let room = Message::MAX_ENTRIES - entries.len();
        let ids: Vec<NodeId> = self
            .dirty
            .iter()
            .filter(|(_, owed)| **owed == alike)
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
