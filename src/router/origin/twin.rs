//! Two live processes with one id: proven by what each has seen of the other, and one of them
//! yields.
//!
//! A process that overtakes another one's record of its own id says so in its next record: `over`
//! is the instance that it overtook. A node that reads a record of its id by another process with
//! its *own* instance in `over` knows that the other one was alive after it had spoken itself: no
//! process that ended before could name it. So a restart is never taken for a twin, however fast it
//! is and whatever the clocks say.
//!
//! ```text
//!   a, alive for long                      b, the newcomer
//!     │ ── record of a ───────────────────▶ │ syncs, has seen a before it speaks: late
//!     │ ◀───────── record of b, over a, late│
//!     │ proven: b is late, a stays          │
//!     │ ── record of a, over b ───────────▶ │ proven: yields
//! ```
//!
//! Of two, the late one yields; if neither is late, since they met only when a partition healed,
//! the one with the larger instance. Both decide on the same facts. One that yields and has not
//! told the other yet that it lives does so with its last record, so that the one that stays can
//! report it too; that one then overtakes it. No clock is asked.
//!
//! The verdict is on pairs. Of three that meet at once, two by two in a circle, all may yield;
//! only an operator can notice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::id::Version;
use crate::router::record::Record;
use crate::router::record::process::{Duplicate, Override, Process};

/// How long records name the process that they override. A twin that is cut off for longer is
/// proven with one record more.
const OVER_FOR: Duration = Duration::from_secs(60);

/// Processes that are remembered to have spoken before this one: one alive, and its predecessors'
/// remains.
const MAX_EARLIER: usize = 16;

/// What this process knows about others of its id.
#[derive(Debug)]
pub(crate) struct Twins {
    own: Process,
    /// Instances whose records were seen before this process first spoke.
    earlier: BTreeSet<u64>,
    /// The newest version that was seen by then.
    newest: Version,
    /// The instance that was overtaken last, and when.
    over: Option<(u64, Instant)>,
    /// The instance that was overridden last in a record, and the newest such record.
    told: Option<(u64, Version)>,
    /// To be yielded to when the next record has reached the other one.
    pending: Option<Duplicate>,
    duplicate: Option<Duplicate>,
}

impl Twins {
    pub(crate) fn new(instance: u64) -> Self {
        Self {
            own: Process { instance, place: String::new() },
            earlier: BTreeSet::new(),
            newest: Version::default(),
            over: None,
            told: None,
            pending: None,
            duplicate: None,
        }
    }

    pub(crate) fn set_place(&mut self, place: &str) {
        let cut =
            (0..=Override::MAX_PLACE.min(place.len())).rev().find(|&at| place.is_char_boundary(at));
        self.own.place = place[..cut.unwrap_or_default()].to_owned();
    }

    /// Another process's record, or its stamp, was seen before this process has spoken.
    pub(crate) fn on_seen_first(&mut self, seen: Version, now: Instant) {
        if self.earlier.len() < MAX_EARLIER {
            self.earlier.insert(seen.instance);
        }
        if seen >= self.newest {
            self.newest = seen;
            self.over = Some((seen.instance, now));
        }
    }

    /// A record of another process was overtaken: the next records override it.
    pub(crate) fn on_overtaken(&mut self, instance: u64, now: Instant) {
        self.over = Some((instance, now));
    }

    /// What the next record overrides.
    pub(crate) fn over(&self, now: Instant) -> Option<Override> {
        let (instance, since) = self.over?;
        let fresh = now.saturating_duration_since(since) < OVER_FOR;
        let late = self.earlier.contains(&instance);
        fresh.then(|| Override { instance, late, place: self.own.place.clone() })
    }

    /// A record was made. Gives what it was the last word on, if this process yields now.
    pub(crate) fn on_spoken(&mut self, record: &Record) -> Option<Duplicate> {
        if let Some(over) = &record.over {
            self.told = Some((over.instance, record.version));
        }
        let told = |pending: &mut Duplicate| {
            record.over.as_ref().is_some_and(|over| over.instance == pending.other.instance)
        };
        self.duplicate = Some(self.pending.take_if(told)?);
        self.duplicate.clone()
    }

    /// Whether the record, one of this id, could be made only by a process that is alive beside
    /// this one.
    pub(crate) fn is_proof(&self, record: &Record) -> bool {
        let other = record.version.instance != self.own.instance;
        other && record.over.as_ref().is_some_and(|over| over.instance == self.own.instance)
    }

    /// Whether a record of this instance was seen before this process first spoke.
    pub(crate) fn was_seen_first(&self, instance: u64) -> bool {
        self.earlier.contains(&instance)
    }

    /// Whether this process was proven to be alive before.
    pub(crate) fn knows(&self, instance: u64) -> bool {
        self.duplicate.as_ref().is_some_and(|duplicate| duplicate.other.instance == instance)
    }

    pub(crate) fn has_yielded(&self) -> bool {
        self.duplicate.as_ref().is_some_and(|duplicate| duplicate.yields)
    }

    pub(crate) fn duplicate(&self) -> Option<&Duplicate> {
        self.duplicate.as_ref()
    }

    /// The record proves that its process is alive beside this one. Returns the duplicate to
    /// report, if it is new; a verdict that this process yields waits until the other one can know
    /// of it.
    pub(crate) fn on_proof(&mut self, twin: &Record) -> Option<Duplicate> {
        let duplicate = self.judge(twin);
        if duplicate.yields && !self.has_told(twin) {
            self.pending = Some(duplicate);
            return None;
        }
        if !duplicate.yields && self.knows(twin.version.instance) {
            return None;
        }
        self.duplicate = Some(duplicate.clone());
        Some(duplicate)
    }

    /// What a proof says. The other one comes to the same verdict.
    fn judge(&self, twin: &Record) -> Duplicate {
        let (own, other) = (self.own.instance, twin.version.instance);
        let over = twin.over.as_ref();
        let late = [self.earlier.contains(&other), over.is_some_and(|over| over.late)];
        let yields = if late[0] == late[1] { own > other } else { late[0] };
        let place = over.map(|over| over.place.clone()).unwrap_or_default();
        Duplicate { own: self.own.clone(), other: Process { instance: other, place }, yields }
    }

    /// Whether the twin has seen a record that overrides it: its own stands above such a one.
    fn has_told(&self, twin: &Record) -> bool {
        self.told.is_some_and(|(other, version)| {
            other == twin.version.instance && version < twin.version
        })
    }
}
