//! This node's own record: what it says, and when.

pub(in crate::router) mod duplicate_id;
pub(in crate::router) mod first_word;
pub(in crate::router) mod twin;

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;

use super::config::{Config, Limits, Timers};
use super::database::earlier;
use super::neighbour::throttle::Bucket;
use super::record::BASE_SIZE;
use super::record::draft::{Draft, Link, LinkClass};
use crate::id::{Cost, NodeId, Version};

/// This node's own record: its version, its content other than links, and when the next one is due.
///
/// That something changed is a flag, never the difference of two graphs; requests to speak are
/// merged, never dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    id: NodeId,
    version: Version,
    /// When the newest record was originated; `None` before the first one.
    spoke_at: Option<Instant>,
    transit: bool,
    leaving: bool,
    capabilities: Bytes,
    dormant: BTreeSet<NodeId>,
    due: Option<Instant>,
    /// When a record is due because of stubs alone.
    stubs_due: Option<Instant>,
    /// When the next record may be made because of stubs alone.
    stubs_ready_at: Instant,
    /// Whether the draft that was polled last was made because of stubs alone.
    for_stubs: bool,
    /// The next record goes out even if it says the same as the last one.
    forced: bool,
    pace: Bucket,
    limits: Limits,
    timers: Timers,
}

/// Whether news can wait for more of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    Now,
    Coalesce,
}

/// A draft of the next record, and whether it was cut to fit.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) draft: Draft,
    pub(crate) cut: bool,
    pub(crate) forced: bool,
}

impl Origin {
    pub(crate) fn new(config: &Config, now: Instant) -> Self {
        let timers = config.timers.clone();
        Self {
            id: config.id.clone(),
            version: Version { epoch: config.epoch, sequence: 0, instance: config.instance },
            spoke_at: None,
            transit: config.transit,
            leaving: false,
            capabilities: Bytes::new(),
            dormant: BTreeSet::new(),
            due: None,
            stubs_due: None,
            stubs_ready_at: now,
            for_stubs: false,
            forced: false,
            pace: Bucket::new(timers.originate_burst, timers.originate_interval, now),
            limits: config.limits.clone(),
            timers,
        }
    }

    /// The version of the newest record, or the one that the first record will overtake.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Whether any record was originated yet.
    pub(crate) fn has_spoken(&self) -> bool {
        self.spoke_at.is_some()
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Takes new capabilities. Says whether they fit.
    pub(crate) fn set_capabilities(&mut self, capabilities: Bytes) -> bool {
        let fits = capabilities.len() <= self.limits.capabilities;
        self.capabilities = if fits { capabilities } else { Bytes::new() };
        fits
    }

    /// Sets the neighbours known from the manifest. Returns whether they are others than before.
    pub(crate) fn set_dormant(&mut self, dormant: Vec<NodeId>) -> bool {
        let dormant = dormant.into_iter().filter(|id| *id != self.id).collect();
        let changed = self.dormant != dormant;
        self.dormant = dormant;
        changed
    }

    pub(crate) fn set_transit(&mut self, transit: bool) {
        self.transit = transit;
    }

    /// The last record waits for nothing.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.leaving = true;
        self.due = Some(now);
    }

    /// Something that the record says has changed. The first of several news goes out at once, what
    /// follows closely goes together.
    pub(crate) fn on_change(&mut self, urgency: Urgency, now: Instant) {
        let at = match (urgency, self.spoke_at) {
            (Urgency::Now, Some(last)) => now.max(last + self.timers.coalesce),
            (Urgency::Now, None) => now,
            (Urgency::Coalesce, _) => now + self.timers.coalesce,
        };
        self.due = earlier(self.due, at);
    }

    /// A stub has come or gone. Many come and go faster than the mesh needs to know, since the
    /// replies to what they ask need no route: their news waits for more of its kind, and has a
    /// pace of its own, which delays no other news.
    pub(crate) fn on_stubs_changed(&mut self, now: Instant) {
        let at = (now + self.timers.stub_delay).max(self.stubs_ready_at);
        self.stubs_due = earlier(self.stubs_due, at);
    }

    /// Whether a record is to be made yet that will stand above this version.
    pub(crate) fn overtakes(&self, seen: Version) -> bool {
        let pending = self.forced || !self.has_spoken();
        pending && (seen.epoch, seen.sequence) <= (self.version.epoch, self.version.sequence)
    }

    /// A newer record of this node's own id was seen: overtake it.
    pub(crate) fn overtake(&mut self, seen: Version, now: Instant) {
        self.version = Version { instance: self.version.instance, ..seen };
        if self.has_spoken() {
            self.forced = true;
            self.on_change(Urgency::Now, now);
        }
    }

    /// Speaks once more, whether or not there is news.
    pub(crate) fn speak_again(&mut self, now: Instant) {
        self.forced = true;
        self.on_change(Urgency::Now, now);
    }

    /// Another record is to be made, not before `at`, even if it says the same as the last one.
    pub(crate) fn again(&mut self, at: Instant) {
        self.forced = true;
        self.due = earlier(self.due, at);
    }

    pub(crate) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        // The record of a node that leaves is not held back: it is the last one.
        let due =
            self.due.map(|at| if self.leaving { at } else { at.max(self.pace.ready_at(now)) });
        [due, self.stubs_due].into_iter().flatten().min()
    }

    /// The next record, if it is due. `links` are active links and stubs.
    pub(crate) fn poll(&mut self, links: impl FnOnce() -> Vec<Link>, now: Instant) -> Option<Next> {
        if self.next_timeout(now).is_none_or(|at| now < at) {
            return None;
        }
        // What is due but has to wait for its pace goes along with news of stubs.
        let paced = self.leaving || self.pace.ready_at(now) <= now;
        self.for_stubs = !paced || self.due.is_none_or(|at| now < at);
        self.due = None;
        self.stubs_due = None;
        let (links, cut) =
            if self.leaving { (Vec::new(), false) } else { self.cut(self.with_dormant(links())) };
        let draft = Draft {
            origin: self.id.clone(),
            version: self.version,
            transit: self.transit,
            leaving: self.leaving,
            echo: false,
            links,
            capabilities: self.capabilities.clone(),
            over: None,
        };
        Some(Next { draft, cut, forced: self.forced })
    }

    /// The draft is to be spoken: gives it its version.
    pub(crate) fn speak(&mut self, draft: &mut Draft, now: Instant) {
        if self.for_stubs {
            self.stubs_ready_at = now + self.timers.stub_interval;
        } else {
            self.pace.take(now);
        }
        self.spoke_at = Some(now);
        self.forced = false;
        self.version = match self.version.sequence.checked_add(1) {
            Some(sequence) => Version { sequence, ..self.version },
            None => {
                Version { epoch: self.version.epoch.saturating_add(1), sequence: 0, ..self.version }
            }
        };
        draft.version = self.version;
    }

    fn with_dormant(&self, mut links: Vec<Link>) -> Vec<Link> {
        let live: BTreeSet<&NodeId> = links.iter().map(|link| &link.peer).collect();
        let dormant: Vec<Link> = self
            .dormant
            .iter()
            .filter(|id| !live.contains(id))
            .map(|id| Link { peer: id.clone(), class: LinkClass::Dormant, cost: Cost::DEFAULT })
            .collect();
        links.extend(dormant);
        links
    }

    /// Leaves out what makes the record too large, the least needed first, and puts the links in
    /// order.
    fn cut(&self, mut links: Vec<Link>) -> (Vec<Link>, bool) {
        links.sort_by(|a, b| (a.class, &a.peer).cmp(&(b.class, &b.peer)));
        let mut room = self
            .limits
            .record
            .min(Limits::MAX_RECORD)
            .saturating_sub(BASE_SIZE + self.capabilities.len());
        let before = links.len();
        let fits = links.iter().take_while(|link| match room.checked_sub(link.size()) {
            Some(rest) => {
                room = rest;
                true
            }
            None => false,
        });
        let fits = fits.count();
        links.truncate(fits);
        links.sort_by(|a, b| a.peer.cmp(&b.peer));
        (links, fits < before)
    }
}
