//! Records that neighbours announced and this node does not hold yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::id::NodeId;
use crate::router::record::Stamp;

/// How often one announcer is asked for one announcement, with twice the time between from one
/// round to the next: what is announced may not exist.
const MAX_ASKS: u32 = 8;
/// Full tables that the pulls of all neighbours together may fill. One neighbour that fills its own
/// table, which every origin of the mesh would, leaves the others as much; more of them share what
/// is there.
const FULL_TABLES: usize = 4;

/// Records that neighbours announced and this node does not hold yet: who announced which copy, and
/// who was asked.
///
/// A pull ends when the record is held, or when every announcer has refused, was asked [`MAX_ASKS`]
/// times, or its session has ended. What is given up so is looked for again by a comparison of
/// digests with all neighbours.
///
/// Each neighbour has a table of its own for what it announces, so a neighbour that announces
/// without end drops only its own announcements. The records awaited from all of them are bounded
/// too ([`FULL_TABLES`]); at that bound the neighbour with the fullest table makes room for those
/// that announced less.
#[derive(Debug)]
pub(crate) struct Pulls {
    pulls: BTreeMap<NodeId, Pull>,
    due: BTreeSet<(Instant, NodeId)>,
    /// The origins that each neighbour has announced; no table is empty.
    tables: BTreeMap<NodeId, BTreeSet<NodeId>>,
    delay: Duration,
    retry: Duration,
    /// Bound of one table.
    max: usize,
    /// Whether anything was given up since it was last asked.
    given_up: bool,
}

#[derive(Debug)]
struct Pull {
    announcers: BTreeMap<NodeId, Announced>,
    /// Who was asked last.
    asked: Option<NodeId>,
    due: Instant,
}

#[derive(Debug)]
struct Announced {
    stamp: Stamp,
    asks: u32,
}

/// To be asked of a neighbour.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) neighbour: NodeId,
    pub(crate) origin: NodeId,
}

/// What came of the wish to ask at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The neighbour is to be asked now.
    Now,
    /// It was asked before, and has not answered yet.
    Before,
    /// Too many records are awaited from this neighbour.
    NoRoom,
}

impl Pulls {
    /// Waits `delay` for an announced record to come by itself, `retry` for an answer; at most
    /// `max` records at a time for each neighbour.
    pub(crate) fn new(delay: Duration, retry: Duration, max: usize) -> Self {
        let (pulls, due, tables) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { pulls, due, tables, delay, retry, max, given_up: false }
    }

    /// A neighbour announced a copy newer than what is held. Returns whether there was room to
    /// remember it.
    pub(crate) fn on_announced(
        &mut self,
        from: &NodeId,
        origin: &NodeId,
        stamp: Stamp,
        now: Instant,
    ) -> bool {
        if !self.has_room(from, origin) {
            return false;
        }
        if !self.pulls.contains_key(origin) {
            let due = now + self.delay;
            self.pulls
                .insert(origin.clone(), Pull { announcers: BTreeMap::new(), asked: None, due });
            self.due.insert((due, origin.clone()));
        }
        if let Some(pull) = self.pulls.get_mut(origin)
            && pull.announcers.insert(from.clone(), Announced { stamp, asks: 0 }).is_none()
        {
            self.tables.entry(from.clone()).or_default().insert(origin.clone());
        }
        true
    }

    /// Who has announced this copy or a newer one.
    pub(crate) fn announcers(
        &self,
        origin: &NodeId,
        stamp: Stamp,
    ) -> impl Iterator<Item = &NodeId> {
        let announcers = self.pulls.get(origin).into_iter().flat_map(|pull| &pull.announcers);
        announcers
            .filter(move |(_, announced)| announced.stamp >= stamp)
            .map(|(announcer, _)| announcer)
    }

    /// What was announced does not come by itself: it is to be asked for at once, unless it was.
    pub(crate) fn hurry(&mut self, origin: &NodeId, now: Instant) {
        if self.pulls.get(origin).is_some_and(|pull| pull.asked.is_none() && pull.due > now) {
            self.reschedule(origin, now);
        }
    }

    /// A neighbour holds this copy, which will not come by itself: it is to be asked for at once.
    pub(crate) fn ask(
        &mut self,
        from: &NodeId,
        origin: &NodeId,
        stamp: Stamp,
        now: Instant,
    ) -> Asked {
        let before = self.is_asking(from, origin);
        if !self.on_announced(from, origin, stamp, now) {
            return Asked::NoRoom;
        }
        if before {
            return Asked::Before;
        }
        if let Some(pull) = self.pulls.get_mut(origin) {
            pull.asked = Some(from.clone());
        }
        self.reschedule(origin, now + self.retry);
        Asked::Now
    }

    /// Whether this neighbour was asked last, and has not answered yet.
    pub(crate) fn is_asking(&self, from: &NodeId, origin: &NodeId) -> bool {
        let pull = self.pulls.get(origin);
        pull.is_some_and(|pull| {
            pull.asked.as_ref() == Some(from) && pull.announcers.contains_key(from)
        })
    }

    /// A copy was taken or refused: announcements of it and of older ones are done with, and `from`
    /// holds no newer one.
    pub(crate) fn on_copy(&mut self, from: Option<&NodeId>, origin: &NodeId, stamp: Stamp) {
        self.retain(origin, |announcer, announced| {
            Some(announcer) != from && announced.stamp > stamp
        });
    }

    /// What this neighbour holds is of no use, or not yet: others that announced may do.
    pub(crate) fn on_not_taken(&mut self, from: &NodeId, origin: &NodeId) {
        self.retain(origin, |announcer, _| announcer != from);
    }

    /// The record is to be asked for at once.
    pub(crate) fn hasten(&mut self, origin: &NodeId, now: Instant) {
        if self.pulls.get(origin).is_some_and(|pull| pull.asked.is_none()) {
            self.reschedule(origin, now);
        }
    }

    /// The neighbour has no record of this origin.
    pub(crate) fn on_refused(&mut self, from: &NodeId, origin: &NodeId, now: Instant) {
        let asked = self.pulls.get(origin).is_some_and(|pull| pull.asked.as_ref() == Some(from));
        self.retain(origin, |announcer, _| announcer != from);
        if asked {
            self.reschedule(origin, now);
        }
    }

    /// The session with the neighbour ended.
    pub(crate) fn on_session_down(&mut self, neighbour: &NodeId, now: Instant) {
        for origin in self.tables.get(neighbour).cloned().unwrap_or_default() {
            self.on_refused(neighbour, &origin, now);
        }
    }

    /// How many records are awaited.
    pub(crate) fn len(&self) -> usize {
        self.pulls.len()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Who is to be asked now.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Ask> {
        let mut asks = Vec::new();
        while let Some((at, origin)) = self.due.first().cloned()
            && at <= now
        {
            self.retain(&origin, |_, announced| announced.asks < MAX_ASKS);
            let Some(pull) = self.pulls.get_mut(&origin) else {
                self.given_up = true;
                continue;
            };
            let Some(neighbour) = pull.next_announcer() else { continue };
            pull.asked = Some(neighbour.clone());
            let Some(announced) = pull.announcers.get_mut(&neighbour) else { continue };
            let wait = self.retry * (1 << announced.asks);
            announced.asks += 1;
            self.reschedule(&origin, now + wait);
            asks.push(Ask { neighbour, origin });
        }
        asks
    }

    /// Whether a record that a neighbour holds was given up since this was last asked.
    pub(crate) fn take_given_up(&mut self) -> bool {
        std::mem::take(&mut self.given_up)
    }

    /// Whether the neighbour may announce a record of this origin; makes room for it where others
    /// hold too much.
    fn has_room(&mut self, from: &NodeId, origin: &NodeId) -> bool {
        let (held, known) =
            self.tables.get(from).map_or((0, false), |table| (table.len(), table.contains(origin)));
        if known {
            return true;
        }
        if held >= self.max {
            return false;
        }
        while !self.pulls.contains_key(origin)
            && self.pulls.len() >= self.max.saturating_mul(FULL_TABLES)
        {
            // The difference of two keeps neighbours with equal tables from displacing each other
            // for ever.
            let fullest = self.tables.iter().max_by_key(|(_, table)| table.len());
            let Some((name, table)) = fullest.filter(|(_, table)| table.len() >= held + 2) else {
                return false;
            };
            let (Some(last), name) = (table.last().cloned(), name.clone()) else { return false };
            self.given_up = true;
            self.retain(&last, |announcer, _| *announcer != name);
        }
        true
    }

    fn retain(&mut self, origin: &NodeId, keep: impl Fn(&NodeId, &Announced) -> bool) {
        let Some(pull) = self.pulls.get_mut(origin) else { return };
        let tables = &mut self.tables;
        pull.announcers.retain(|announcer, announced| {
            let kept = keep(announcer, announced);
            if !kept && let Some(table) = tables.get_mut(announcer) {
                table.remove(origin);
                if table.is_empty() {
                    tables.remove(announcer);
                }
            }
            kept
        });
        if pull.announcers.is_empty() {
            self.due.remove(&(pull.due, origin.clone()));
            self.pulls.remove(origin);
        }
    }

    fn reschedule(&mut self, origin: &NodeId, at: Instant) {
        if let Some(pull) = self.pulls.get_mut(origin) {
            self.due.remove(&(pull.due, origin.clone()));
            pull.due = at;
            self.due.insert((at, origin.clone()));
        }
    }
}

impl Pull {
    /// The next announcer after the one asked last, round the names.
    fn next_announcer(&self) -> Option<NodeId> {
        let after = self
            .announcers
            .keys()
            .find(|name| self.asked.as_ref().is_some_and(|asked| *name > asked));
        after.or_else(|| self.announcers.keys().next()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Version;

    #[test]
    fn announcers_are_asked_in_turn_until_the_record_comes() {
        let (mut pulls, now) = pulls();
        assert!(pulls.on_announced(&id("n1"), &id("o"), stamp(2), now));
        assert!(pulls.on_announced(&id("n2"), &id("o"), stamp(3), now));
        assert_eq!(pulls.poll(now), []);
        let mut at = pulls.next_timeout().unwrap();
        for neighbour in ["n1", "n2", "n1"] {
            assert_eq!(pulls.poll(at), [Ask { neighbour: id(neighbour), origin: id("o") }]);
            at = pulls.next_timeout().unwrap();
        }
        pulls.on_copy(Some(&id("n1")), &id("o"), stamp(2));
        assert_eq!(pulls.poll(at), [Ask { neighbour: id("n2"), origin: id("o") }]);
        pulls.on_copy(Some(&id("n2")), &id("o"), stamp(3));
        assert_eq!((pulls.pulls.len(), pulls.next_timeout()), (0, None));
    }

    #[test]
    fn a_refusal_or_the_end_of_a_session_turns_to_the_next_at_once() {
        let (mut pulls, now) = pulls();
        for neighbour in ["n1", "n2", "n3"] {
            pulls.on_announced(&id(neighbour), &id("o"), stamp(2), now);
        }
        let at = pulls.next_timeout().unwrap();
        assert_eq!(pulls.poll(at)[0].neighbour, id("n1"));
        pulls.on_refused(&id("n1"), &id("o"), at);
        assert_eq!(pulls.poll(at)[0].neighbour, id("n2"));
        pulls.on_session_down(&id("n2"), at);
        assert_eq!(pulls.poll(at)[0].neighbour, id("n3"));
        pulls.on_session_down(&id("n3"), at);
        assert_eq!(pulls.pulls.len(), 0);
    }

    #[test]
    fn an_announcement_of_what_never_comes_is_given_up() {
        let (mut pulls, now) = pulls();
        pulls.on_announced(&id("liar"), &id("o"), stamp(2), now);
        let mut asked = Vec::new();
        while let Some(at) = pulls.next_timeout() {
            asked.extend(pulls.poll(at).iter().map(|_| (at - now).as_millis()));
        }
        assert_eq!(asked, [100, 1_100, 3_100, 7_100, 15_100, 31_100, 63_100, 127_100]);
        assert_eq!(pulls.pulls.len(), 0);
    }

    #[test]
    fn a_neighbour_cannot_announce_without_bound() {
        let (mut pulls, now) = pulls();
        assert_eq!(announce(&mut pulls, "n", 100, now), 10);
        // What it announced already can be announced again, in a newer version.
        assert!(pulls.on_announced(&id("n"), &id("n-o3"), stamp(2), now));
        assert_eq!(pulls.len(), 10);
    }

    #[test]
    fn a_flood_of_one_neighbour_takes_no_room_from_others() {
        let (mut pulls, now) = pulls();
        announce(&mut pulls, "flood", 1_000, now);
        assert_eq!(announce(&mut pulls, "n", 10, now), 10);
        // Once records have come or were refused, there is room for others.
        pulls.on_refused(&id("flood"), &id("flood-o0"), now);
        assert!(pulls.on_announced(&id("flood"), &id("o"), stamp(1), now));
        assert!(!pulls.on_announced(&id("flood"), &id("p"), stamp(1), now));
    }

    #[test]
    fn many_floods_share_a_bound_and_make_room_for_the_modest() {
        let (mut pulls, now) = pulls();
        for nth in 0..12 {
            announce(&mut pulls, &format!("flood{nth}"), 1_000, now);
        }
        assert_eq!(pulls.len(), 10 * FULL_TABLES);
        assert_eq!(announce(&mut pulls, "n", 1, now), 1);
        assert!(pulls.pulls.contains_key(&id("n-o0")) && pulls.len() == 10 * FULL_TABLES);
        assert!(pulls.take_given_up(), "what made room is looked for later");
        // Equals do not displace each other.
        let floods = pulls.tables.iter().filter(|(name, _)| **name != id("n"));
        let held: BTreeSet<_> = floods.map(|(_, table)| table.len()).collect();
        assert!(held.last().unwrap() - held.first().unwrap() <= 1, "{held:?}");
    }

    #[test]
    fn tables_forget_what_has_come_or_was_given_up() {
        let (mut pulls, now) = pulls();
        for neighbour in ["n1", "n2"] {
            for origin in ["o", "p", "q"] {
                pulls.on_announced(&id(neighbour), &id(origin), stamp(2), now);
            }
        }
        pulls.on_copy(None, &id("o"), stamp(2));
        pulls.on_not_taken(&id("n1"), &id("p"));
        assert_eq!((pulls.tables[&id("n1")].len(), pulls.tables[&id("n2")].len()), (1, 2));
        pulls.on_session_down(&id("n2"), now);
        assert_eq!(pulls.tables.keys().collect::<Vec<_>>(), [&id("n1")]);
        while let Some(at) = pulls.next_timeout() {
            pulls.poll(at);
        }
        assert!(pulls.tables.is_empty() && pulls.len() == 0);
    }

    /// Announces so many origins of the neighbour's own; returns how many were taken.
    fn announce(pulls: &mut Pulls, neighbour: &str, count: usize, now: Instant) -> usize {
        let origin = |nth: &usize| id(&format!("{neighbour}-o{nth}"));
        (0..count)
            .filter(|nth| pulls.on_announced(&id(neighbour), &origin(nth), stamp(1), now))
            .count()
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
    fn pulls() -> (Pulls, Instant) {
        (Pulls::new(Duration::from_millis(100), Duration::from_secs(1), 10), Instant::now())
    }

    fn id(text: &str) -> NodeId {
        text.try_into().unwrap()
    }

    fn stamp(sequence: u64) -> Stamp {
        Stamp { version: Version { epoch: 1, sequence, instance: 1 }, check: 0 }
    }
}
