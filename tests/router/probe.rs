//! One router, and neighbours played by hand.

use std::time::{Duration, Instant};

use bytes::Bytes;
use receptor_quic::NodeId;
use receptor_quic::id::Cost;
use receptor_quic::id::Version;
use receptor_quic::router::{
    Advertisement, Config, Digest, Draft, Entry, Event, Link, LinkClass, Message, NeighbourKind,
    PeerError, Record, Router, SessionError, SessionUp, Transmit,
};

use crate::sim::id;

pub(crate) struct Probe {
    pub(crate) router: Router,
    pub(crate) now: Instant,
    pub(crate) sent: Vec<Transmit>,
    pub(crate) events: Vec<Event>,
}

impl Probe {
    /// The router of a node named `me`.
    pub(crate) fn new() -> Self {
        Self::tuned(|_| {})
    }

    pub(crate) fn tuned(tune: impl FnOnce(&mut Config)) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs some first instant")]
        let now = Instant::now();
        let mut config = Config::new(id("me"), 1_000, 42, 7);
        tune(&mut config);
        Self { router: Router::new(config, now), now, sent: Vec::new(), events: Vec::new() }
    }

    pub(crate) fn up(&mut self, name: &str, kind: NeighbourKind) -> Result<(), SessionError> {
        let up = SessionUp { neighbour: id(name), instance: 1, cost: Cost::DEFAULT, kind };
        let result = self.router.handle_session_up(up, self.now);
        self.drain();
        result
    }

    pub(crate) fn down(&mut self, name: &str) {
        self.router.handle_session_down(&id(name), self.now);
        self.drain();
    }

    /// A session with a router of an empty database, synced.
    pub(crate) fn sync(&mut self, name: &str) {
        self.up(name, NeighbourKind::Full).unwrap();
        self.tell(name, Message::Digest { digest: Digest(1), count: 0 }).unwrap();
        self.tell(
            name,
            Message::Summary { after: None, entries: vec![], last: true, buckets: None },
        )
        .unwrap();
        self.tell(name, Message::SyncEnd).unwrap();
        self.wait(20);
        self.sent.clear();
    }

    pub(crate) fn tell(&mut self, from: &str, message: Message) -> Result<(), PeerError> {
        let result = self.router.handle_message(&id(from), message, self.now);
        self.drain();
        result
    }

    pub(crate) fn update(&mut self, from: &str, record: &Record) {
        self.tell(from, Message::Update(record.advertisement().clone())).unwrap();
        self.wait(1);
    }

    /// Lets milliseconds pass, with every timeout at its time.
    pub(crate) fn wait(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(deadline) = self.router.poll_timeout().filter(|deadline| deadline.at <= end)
        {
            self.now = self.now.max(deadline.at);
            self.router.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    pub(crate) fn held(&self, origin: &str) -> Option<&Record> {
        self.router.database().find(|record| record.origin == id(origin))
    }

    /// What `to` was sent since it was last asked.
    pub(crate) fn sent_to(&mut self, to: &str) -> Vec<Message> {
        let mut sent = Vec::new();
        self.sent.retain(|transmit| {
            let to = transmit.to == id(to);
            if to {
                sent.push(transmit.message.clone());
            }
            !to
        });
        sent
    }

    pub(crate) fn cost(&self, to: &str) -> Option<u64> {
        self.router.table().route(&id(to)).map(|route| route.cost)
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.router.poll_transmit() {
            self.router.handle_writable(&transmit.to.clone(), self.now);
            self.sent.push(transmit);
        }
        while let Some(event) = self.router.poll_event() {
            self.events.push(event);
        }
    }
}

/// A record with active links.
pub(crate) fn record(origin: &str, version: (u64, u64), links: &[(&str, u32)]) -> Record {
    let links = links.iter().map(|&(peer, cost)| link(peer, LinkClass::Active, cost)).collect();
    draft(origin, version, links).seal().unwrap()
}

pub(crate) fn draft(origin: &str, (epoch, sequence): (u64, u64), mut links: Vec<Link>) -> Draft {
    links.sort_by(|a, b| a.peer.cmp(&b.peer));
    let version = Version { epoch, sequence, instance: 1 };
    Draft { links, ..Draft::new(id(origin), version) }
}

pub(crate) fn link(peer: &str, class: LinkClass, cost: u32) -> Link {
    Link { peer: id(peer), class, cost: Cost::try_from(cost).unwrap() }
}

pub(crate) fn entry(record: &Record) -> Entry {
    Entry { origin: record.origin.clone(), stamp: record.stamp() }
}

pub(crate) fn garbage(bytes: &'static [u8]) -> Message {
    Message::Update(Advertisement::new(Bytes::from_static(bytes)))
}

pub(crate) fn names(nodes: &[&str]) -> Vec<NodeId> {
    nodes.iter().map(|name| id(name)).collect()
}
