//! The configuration of a router.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::paths::radix_heap::MAX_NODES;
use super::proof::notary::Notary;
use crate::id::NodeId;

/// The configuration of a [`Router`](super::Router).
///
/// Everything that a program would take from its surroundings (clock, randomness) comes in here or
/// by argument, so the same configuration and the same calls give the same outputs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this node.
    pub id: NodeId,
    /// Greater than the epoch of any earlier start of this node, as far as it knows: best the
    /// larger of the wall clock in milliseconds and a persisted counter plus one. A wrong value
    /// costs one more exchange at the first link, never correctness.
    pub epoch: u64,
    /// Drawn at random at each process start. Two processes must not share it.
    pub instance: u64,
    /// Seeds the jitter of timers, nothing else. Any value will do; draw it at random, so that
    /// nodes do not act in step.
    pub seed: u64,
    /// Whether other nodes may route through this one. Default: true. A node that refuses is still
    /// reached itself, and the stubs attached to it.
    pub transit: bool,
    /// What this node says about itself to all others, opaque to the router. Default: empty. At
    /// most [`Limits::capabilities`] bytes; more are cut to nothing and reported as
    /// [`Event::LimitHit`](super::Event::LimitHit).
    pub capabilities: Bytes,
    /// Neighbours known from the connection manifest, whether connected or not. Those that are not
    /// connected are advertised as dormant: inventory, never a path for traffic. Default: empty.
    pub dormant: Vec<NodeId>,
    /// Signs this node's records and verifies those of others. Default: `None`, for simulators:
    /// nothing is signed, and every record is believed. All nodes of a mesh sign, or none does:
    /// with a notary, a record without a proof costs the neighbour that sent it the session.
    pub notary: Option<Arc<dyn Notary>>,
    /// How updates travel. Default: [`FloodMode::Tree`].
    pub flood: FloodMode,
    /// Bounds of everything that grows.
    pub limits: Limits,
    /// Durations of everything that waits.
    pub timers: Timers,
}

impl Config {
    /// A configuration with default values for all but the identity of the process.
    #[must_use]
    pub fn new(id: NodeId, epoch: u64, instance: u64, seed: u64) -> Self {
        Self {
            id,
            epoch,
            instance,
            seed,
            transit: true,
            capabilities: Bytes::new(),
            dormant: Vec::new(),
            notary: None,
            flood: FloodMode::default(),
            limits: Limits::default(),
            timers: Timers::default(),
        }
    }
}

/// How updates travel. Correctness never depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FloodMode {
    /// Every neighbour but the sender gets every update in full: 2E-n+1 payloads for one update
    /// over E links and n nodes, and the shortest time.
    Full,
    /// Payloads go along the breadth-first tree that the database gives for their origin, ids
    /// (HAVE) over all other links: n-1 payloads and at most 2(E-n+1) ids for one update, in as
    /// many rounds. Where nodes disagree on the tree while the mesh changes, a payload comes twice
    /// or is pulled, [`Timers::pull_delay`] later. Nodes of both modes work together.
    #[default]
    Tree,
}

/// Bounds of everything that grows. Hitting one is counted and reported as
/// [`Event::LimitHit`](super::Event::LimitHit).
#[derive(Clone, Debug)]
pub struct Limits {
    /// Records kept, one per origin. Default: 20,000. When full, the record that was unreachable
    /// for longest makes room; if all are reachable, new origins are refused, and the mesh beyond
    /// the bound stays unknown. All nodes of a mesh should use the same value. At most 16,777,216.
    /// Memory: about 1.5 KB a record of eight links, and 0.4 KB more for its route.
    pub origins: usize,
    /// Neighbours linked at once, each of which is an active link in this node's record. Default
    /// and maximum: 4,096. More are refused with
    /// [`SessionError::TooManyLinks`](super::SessionError::TooManyLinks).
    pub active_links: usize,
    /// Stubs attached at once. Default and maximum: 65,536. More are refused in the same way. The
    /// size of a record is reached before, at some 3,000 to 6,000 links, depending on the lengths
    /// of the names.
    pub stub_links: usize,
    /// Bytes of one encoded record. Default and maximum: 64 KiB. This node's own record is cut to
    /// fit: dormant links go first, then stubs.
    pub record: usize,
    /// Bytes of capabilities. Default and maximum: 4 KiB.
    pub capabilities: usize,
    /// Ids in the cache of seen advertisements. Default: 4,096; 0 turns it off, `usize::MAX` takes
    /// the bound away. The cache saves the decoding of duplicates and changes nothing else.
    pub seen_ids: usize,
    /// How far a record's epoch may be ahead of this node's own, in the units of [`Config::epoch`].
    /// Default: 100 years in milliseconds. Records beyond are ignored, so that no node can drive
    /// the version of a node to its end.
    pub epoch_ahead: u64,
    /// Messages given to [`Router::poll_transmit`](super::Router::poll_transmit) for one neighbour
    /// before [`handle_writable`](super::Router::handle_writable) is called. Default: 32.
    pub window_messages: usize,
    /// Bytes given for one neighbour likewise, estimated. Default: 64 KiB; one message may exceed
    /// it.
    pub window_bytes: usize,
    /// Records up to which two databases are compared by listing all of them; larger ones are
    /// compared in buckets first. Default: 255. Nodes of different values work together, at the
    /// price of longer lists.
    pub whole_summary: usize,
    /// Bytes of a record from which on its update may travel as the change against the version
    /// before. Default: 1,024, some 40 links: below, a change saves little. A node takes changes of
    /// records of any size.
    pub delta_over: usize,
    /// The most that such a change may take, in hundredths of the record. Default: 25. One change
    /// is kept beside each record, so this bounds the memory for them too; above, the whole record
    /// is sent. Both bounds only choose what is sent, each node for itself.
    pub delta_percent: usize,
    /// Events that wait for [`Router::poll_event`](super::Router::poll_event). Default: 65,536.
    /// More are dropped and counted.
    pub events: usize,
    /// Updates accepted at once from one origin. Default: 20. Then [`Timers::accept_interval`]
    /// applies. An update that no longer lists stubs counts as one more for each 250 of them, so
    /// that stubs that come and go delay the records of the node that lists them, and no others.
    pub accept_burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            origins: 20_000,
            active_links: 4_096,
            stub_links: 65_536,
            record: Self::MAX_RECORD,
            capabilities: 4 * 1024,
            seen_ids: 4_096,
            epoch_ahead: 100 * 366 * 24 * 3600 * 1000,
            window_messages: 32,
            window_bytes: 64 * 1024,
            whole_summary: 255,
            delta_over: 1_024,
            delta_percent: 25,
            events: 65_536,
            accept_burst: 20,
        }
    }
}

impl Limits {
    /// The most bytes that an encoded record has on the wire.
    pub const MAX_RECORD: usize = 64 * 1024;

    /// The most requests of [`Router::converge`](super::Router::converge) that are open at a time.
    pub const MAX_CONVERGE_REQUESTS: usize = 1_024;

    /// The same, with nothing above what the format allows.
    pub(crate) fn clamped(mut self) -> Self {
        let most = Self::default();
        self.origins = self.origins.min(MAX_NODES as usize);
        self.active_links = self.active_links.min(most.active_links);
        self.stub_links = self.stub_links.min(most.stub_links);
        self.record = self.record.min(most.record);
        self.capabilities = self.capabilities.min(most.capabilities);
        self
    }
}

/// Durations of everything that waits.
#[derive(Clone, Debug)]
pub struct Timers {
    /// How long news of a lost link waits for more of the kind, and how far apart any two
    /// originations are at least. Default: 10 ms.
    pub coalesce: Duration,
    /// Originations at once. Default: 20, as many as others accept at once
    /// ([`Limits::accept_burst`]): a restart of a neighbour takes two.
    pub originate_burst: u32,
    /// After the burst, one origination per this time. Default: 1 s.
    pub originate_interval: Duration,
    /// How long the arrival or end of a stub waits for more of its kind before this node's record
    /// changes for it. Default: 200 ms: a stub that asks one thing and leaves costs the mesh
    /// nothing.
    pub stub_delay: Duration,
    /// Records that change because of stubs alone are at least this far apart, and are not counted
    /// against [`originate_burst`](Self::originate_burst). Default: 1 s.
    pub stub_interval: Duration,
    /// How long a process that has synced with one neighbour, and has not spoken yet, waits for its
    /// other sessions to sync. Default: 100 ms.
    pub first_word: Duration,
    /// After the burst of [`Limits::accept_burst`], one update of an origin is accepted per this
    /// time; others wait, and only the newest is kept. Default: 500 ms. The record with which an
    /// origin leaves is exempt, once for each other update that was accepted.
    pub accept_interval: Duration,
    /// How long a link that was lost twice within [`flap_memory`](Self::flap_memory) is held back
    /// when it returns; doubles with each further loss. Announced leaves and restarts do not count
    /// as losses, and the link to a router is held back only while another path leads to it.
    /// Default: 1 s.
    ///
    /// A stub that was listed is held back in the same way. Stubs that restart or come back with
    /// another suffix share a budget for each base id: 64 in a row, then one each 4 s.
    pub flap_hold: Duration,
    /// The longest hold. Default: 64 s.
    pub flap_hold_max: Duration,
    /// How long a loss is remembered. Default: 5 min.
    pub flap_memory: Duration,
    /// How long the id of a new record waits for more of its kind before it is announced, where the
    /// record itself takes another way; up to three times as long, by jitter. Default: 10 ms.
    pub announce_delay: Duration,
    /// How long an announced record is awaited before it is asked for. Default: 100 ms.
    pub pull_delay: Duration,
    /// How long an answer is awaited before the next announcer is asked. Default: 1 s.
    pub pull_retry: Duration,
    /// Without a change for this time (and up to a quarter more, by jitter), digests are compared
    /// with the neighbours. Default: 1 s.
    pub quiet: Duration,
    /// Digests are compared at least this often while changes go on. Default: 60 s.
    pub quiet_max: Duration,
    /// How often each end of a link sends a digest that is recomputed from all records, under a
    /// fresh key; the first one within this time of the sync, when exactly depends on the seed.
    /// Default: 1 h.
    pub audit: Duration,
    /// A record whose origin was unreachable for this long is no longer offered to neighbours.
    /// Default: 60 s.
    pub withhold: Duration,
    /// A record whose origin was unreachable for this long is deleted; the clock restarts whenever
    /// a session starts or has synced. Default: 15 min. It must be longer than a record takes
    /// around the mesh, streams that are slow included: what is forgotten at each node before it
    /// comes again goes round for ever.
    pub delete: Duration,
    /// How long the record of a node that left is kept. Default: 60 s. Longer than a record takes
    /// around the mesh, as with [`delete`](Self::delete).
    pub tombstone: Duration,
    /// A session from which nothing came for this long before it had synced is reported as
    /// [`Event::SyncStalled`](super::Event::SyncStalled). Default: 30 s.
    pub sync_stall: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            coalesce: Duration::from_millis(10),
            originate_burst: 20,
            originate_interval: Duration::from_secs(1),
            stub_delay: Duration::from_millis(200),
            stub_interval: Duration::from_secs(1),
            first_word: Duration::from_millis(100),
            accept_interval: Duration::from_millis(500),
            flap_hold: Duration::from_secs(1),
            flap_hold_max: Duration::from_secs(64),
            flap_memory: Duration::from_secs(300),
            announce_delay: Duration::from_millis(10),
            pull_delay: Duration::from_millis(100),
            pull_retry: Duration::from_secs(1),
            quiet: Duration::from_secs(1),
            quiet_max: Duration::from_secs(60),
            audit: Duration::from_secs(3_600),
            withhold: Duration::from_secs(60),
            delete: Duration::from_secs(900),
            tombstone: Duration::from_secs(60),
            sync_stall: Duration::from_secs(30),
        }
    }
}
