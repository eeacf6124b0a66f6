//! What it takes to find the differences of two databases.

use std::time::Duration;

use receptor_quic::id::Version;
use receptor_quic::router::{
    BucketSet, Buckets, Config, Digest, Draft, Event, LinkClass, Message, NeighbourKind, Record,
};

use crate::probe::{Probe, draft, entry, link, record};
use crate::sim::id;

const RECORDS: usize = 10_000;

#[test]
fn equal_databases_take_a_digest_each_way_and_one_round_trip() {
    let mut pair = Pair::new(RECORDS, |_| {});
    let spent = pair.sync();
    println!("{spent:?}");
    assert_eq!(spent.crossings, 2);
    assert!(spent.bytes <= 128, "{spent:?}");
    assert_eq!((spent.summary_entries, spent.updates), (0, 0));
}

#[test]
fn ten_differences_of_ten_thousand_take_sixteen_kilobytes_and_two_round_trips() {
    let mut pair = Pair::new(RECORDS, |_| {});
    for n in 0..10 {
        let side = n % 2;
        let changed = match n {
            // Both have it, one has it newer.
            0..6 => tree(n * 997 + 1, 2),
            // One alone has it.
            _ => record(&format!("only{n}"), (5, 1), &[("node-00000", 1)]),
        };
        pair.ends[side]
            .tell("node-00000", Message::Update(changed.advertisement().clone()))
            .unwrap();
    }
    pair.clear();
    let spent = pair.sync();
    println!("{spent:?}");
    assert_eq!((spent.crossings, spent.updates), (4, 10));
    assert!(spent.bytes <= 16 * 1024, "{spent:?}");
    // Their own records speak of the new link by now.
    let others =
        |end: usize| pair.held(end).filter(|record| ![id("a"), id("b")].contains(&record.origin));
    assert!(others(0).eq(others(1)));
}

#[test]
fn a_node_that_has_nothing_gets_everything_and_no_list_of_it() {
    let mut pair = Pair::new(300, |_| {});
    pair.ends[1] = Probe::tuned(|config| config.id = id("b"));
    pair.ends[1].now = pair.ends[0].now;
    let spent = pair.sync();
    assert_eq!((spent.crossings, spent.summary_entries), (3, 0), "{spent:?}");
    assert_eq!(spent.updates, 302, "of 300 nodes, of a, and of what b was before");
}

#[test]
fn a_difference_that_is_found_after_a_quiet_time_is_compared_in_buckets() {
    let mut pair = Pair::new(400, |_| {});
    pair.sync();
    pair.run(Duration::from_secs(5));
    let lost = tree(77, 2);
    let root = "node-00000";
    pair.ends[0].tell(root, Message::Update(lost.advertisement().clone())).unwrap();
    // What goes to the other end is lost: as if it had forgotten the record.
    pair.ends[0].wait(100);
    pair.clear();
    let before: u64 = pair.ends.iter().map(|end| end.router.counters().summary_entries_sent).sum();
    pair.run(Duration::from_secs(5));
    assert!(pair.held(0).eq(pair.held(1)));
    let counters = pair.ends.each_ref().map(|end| end.router.counters());
    assert_eq!(counters[0].buckets_sent + counters[1].buckets_sent, 1);
    let listed = counters[0].summary_entries_sent + counters[1].summary_entries_sent - before;
    assert!((1..40).contains(&listed), "{listed}");
}

#[test]
fn differences_that_hide_in_a_bucket_are_found_after_a_quiet_time() {
    let mut probe = Probe::tuned(|config| config.limits.whole_summary = 2);
    probe.sync("n");
    probe.update("n", &record("n", (5, 1), &[("me", 1)]));
    probe.update("n", &record("x", (5, 1), &[("n", 1)]));
    probe.wait(5_000);
    probe.sent.clear();
    let other = Message::Digest { digest: Digest(1), count: 3 };
    probe.tell("n", other).unwrap();
    let [Message::Buckets(mine)] = &probe.sent_to("n")[..] else { panic!("no buckets") };
    // The neighbour finds no difference in them, and asks the same in return.
    probe.tell("n", Message::Buckets(mine.clone())).unwrap();
    let sent = probe.sent_to("n");
    let [Message::Summary { entries, last: true, buckets: None, .. }] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!(entries.len(), 3);
}

#[test]
fn buckets_at_any_time_are_answered_with_a_summary_of_what_differs() {
    let mut probe = Probe::new();
    probe.up("n", NeighbourKind::Full).unwrap();
    let empty = Buckets::of(&[], 4);
    assert!(
        probe.tell("n", Message::Buckets(empty.clone())).is_err(),
        "a session begins with a digest"
    );
    probe.sync("n");
    let known = record("n", (5, 1), &[("me", 1)]);
    probe.update("n", &known);
    probe.sent.clear();
    for bits in [0, 3, 9, 12, 40] {
        probe.tell("n", Message::Buckets(Buckets::of(&[], bits))).unwrap();
        let sent = probe.sent_to("n");
        let [Message::Summary { entries, last: true, buckets: Some(buckets), .. }] = &sent[..]
        else {
            panic!("{sent:?}")
        };
        assert_eq!(entries.len(), 2, "its own and the neighbour's");
        assert!(entries.iter().all(|entry| buckets.contains(entry.origin.addr())));
    }
}

#[test]
fn what_is_not_listed_is_lacking_in_the_listed_buckets_alone() {
    let mut probe = Probe::new();
    probe.sync("n");
    let records: Vec<Record> =
        (0..40).map(|n| record(&format!("x{n}"), (5, 1), &[("n", 1)])).collect();
    records.iter().for_each(|record| probe.update("n", record));
    probe.wait(100);
    probe.sent.clear();
    let some = Buckets::of(&records[..1], 3).differing(&Buckets::of(&[], 3));
    let summary = |buckets| Message::Summary { after: None, entries: vec![], last: true, buckets };
    probe.tell("n", summary(Some(some.clone()))).unwrap();
    let sent = probe.sent_to("n").len();
    let lacking = records.iter().filter(|record| some.contains(record.addr())).count();
    let own = usize::from(some.contains(id("me").addr()));
    assert_eq!(sent, lacking + own);
    probe.tell("n", summary(Some(BucketSet::none()))).unwrap();
    assert_eq!(probe.sent_to("n"), []);
}

#[test]
fn who_lists_everything_gets_everything_listed() {
    let mut probe = Probe::tuned(|config| config.limits.whole_summary = 1);
    probe.sync("first");
    let known = record("x", (5, 1), &[("first", 1)]);
    probe.update("first", &known);
    probe.up("n", NeighbourKind::Full).unwrap();
    probe.tell("n", Message::Digest { digest: Digest(1), count: 1 }).unwrap();
    assert!(matches!(
        &probe.sent_to("n")[..],
        [Message::Digest { count: 2, .. }, Message::Buckets(_)]
    ));
    let listed = record("y", (5, 1), &[]);
    let summary =
        Message::Summary { after: None, entries: vec![entry(&listed)], last: true, buckets: None };
    probe.tell("n", summary).unwrap();
    let sent = probe.sent_to("n");
    assert!(matches!(&sent[0], Message::Summary { last: true, buckets: None, .. }), "{sent:?}");
    assert_eq!(sent.last(), Some(&Message::SyncEnd));
}

/// Two routers that hold the same records, and are linked to the same third node but not to each
/// other.
struct Pair {
    ends: [Probe; 2],
}

#[derive(Debug, Default)]
struct Spent {
    /// Bytes of all messages but records.
    bytes: usize,
    updates: usize,
    summary_entries: usize,
    /// How often messages crossed from one end to the other, until both had synced: two are a round
    /// trip.
    crossings: usize,
}

impl Pair {
    fn new(records: usize, tune: fn(&mut Config)) -> Self {
        let mut ends = ["a", "b"].map(|name| {
            let mut end = Probe::tuned(|config| {
                config.id = id(name);
                tune(config);
            });
            load(&mut end, name, records);
            end
        });
        let now = ends.iter().map(|end| end.now).max().unwrap();
        ends.iter_mut().for_each(|end| end.now = now);
        let mut pair = Self { ends };
        for (from, name) in [(0, "a"), (1, "b")] {
            let own = pair.ends[from].held(name).unwrap().clone();
            pair.ends[1 - from].update("node-00000", &own);
        }
        pair.clear();
        pair
    }

    /// Brings up the session, and carries messages until both ends have synced.
    fn sync(&mut self) -> Spent {
        self.ends[0].up("b", NeighbourKind::Full).unwrap();
        self.ends[1].up("a", NeighbourKind::Full).unwrap();
        let mut spent = Spent::default();
        while !self
            .ends
            .iter()
            .all(|end| end.events.iter().any(|event| matches!(event, Event::Synced(_))))
        {
            spent.crossings += 1;
            assert!(spent.crossings < 10, "no end: {spent:?}");
            self.cross(&mut spent);
        }
        spent
    }

    /// Carries what waits at both ends over, at once.
    fn cross(&mut self, spent: &mut Spent) -> bool {
        let crossing = [self.ends[0].sent_to("b"), self.ends[1].sent_to("a")];
        let any = crossing.iter().any(|messages| !messages.is_empty());
        for (from, messages) in crossing.into_iter().enumerate() {
            for message in messages {
                match &message {
                    Message::Update(_) => spent.updates += 1,
                    other => spent.bytes += other.encode().len(),
                }
                if let Message::Summary { entries, .. } = &message {
                    spent.summary_entries += entries.len();
                }
                let message = Message::decode(&message.encode()).unwrap().unwrap();
                self.ends[1 - from].tell(["a", "b"][from], message).unwrap();
            }
        }
        any
    }

    /// Lets time pass at both ends, and carries what they say.
    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 10 {
            self.ends.iter_mut().for_each(|end| end.wait(10));
            while self.cross(&mut Spent::default()) {}
        }
    }

    fn held(&self, end: usize) -> impl Iterator<Item = &Record> {
        self.ends[end].router.database()
    }

    fn clear(&mut self) {
        for end in &mut self.ends {
            end.sent.clear();
            end.events.clear();
        }
    }
}

/// Links to the root of a tree, and learns the record of each of its nodes.
fn load(end: &mut Probe, name: &str, records: usize) {
    end.sync("node-00000");
    let root = (1..9).filter(|n| *n < records).map(node).chain(["a".into(), "b".into()]);
    let links = root.map(|peer| link(&peer, LinkClass::Active, 1)).collect();
    end.update("node-00000", &draft("node-00000", (5, 1), links).seal().unwrap());
    for n in 1..records.max(1) {
        end.tell("node-00000", Message::Update(tree(n, 1).advertisement().clone())).unwrap();
    }
    end.wait(3_000);
    assert!(end.held(name).is_some());
    assert_eq!(end.router.table().len(), records.max(1), "all are reachable");
}

/// The record of a node in a tree of eight children each, in some version.
fn tree(n: usize, sequence: u64) -> Record {
    let version =
        Version { epoch: 1_767_225_600_000, sequence, instance: 0xfedc_ba98_7654_0000 + n as u64 };
    let children = (8 * n + 1..8 * n + 9).filter(|child| *child < RECORDS);
    let peers: Vec<String> = children.chain([(n - 1) / 8]).map(node).collect();
    let links = peers.iter().map(|peer| link(peer, LinkClass::Active, 1)).collect();
    Draft { version, ..draft(&node(n), (0, 0), links) }.seal().unwrap()
}

fn node(n: usize) -> String {
    format!("node-{n:05}")
}
