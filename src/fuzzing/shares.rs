//! Any bytes as the history of budgets that several sources share.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::id::NodeId;
use crate::mesh::links::admission::budget::Budget;
use crate::mesh::services::windows::window_budget::{Window, WindowBudget, WindowLimits};
use crate::work::MAX_RESPONSE;
use crate::work::running::backlog::{Backlog, RESPONSE_MEMORY, ResponseBudget, Waiting};

/// Operations of one history. Longer ones say nothing that shorter ones do not.
const MAX_OPS: usize = 400;
/// Names with and without suffixes: three certificates.
const PEERS: [&str; 6] = ["a", "a~1", "a~2", "b", "b~1", "c"];

/// Budgets of places, windows and responses. The first byte says which.
pub(super) fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let ops = bytes.chunks_exact(3).map(|op| [op[0], op[1], op[2]]).take(MAX_OPS);
    match kind % 3 {
        0 => places(ops),
        1 => windows(ops),
        _ => responses(ops),
    }
}

/// A newcomer always gets a place, and displaces only a source that holds as much as any.
fn places(ops: impl Iterator<Item = [u8; 3]>) {
    const PLACES: usize = 9;
    let mut budget = Budget::<2>::new(PLACES);
    let mut held: BTreeMap<u64, [u128; 2]> = BTreeMap::new();
    for [what, broad, narrow] in ops {
        if what % 4 == 0 {
            let Some(number) = held.keys().nth(usize::from(broad) % held.len().max(1)).copied()
            else {
                continue;
            };
            held.remove(&number);
            budget.leave(number);
        } else {
            let source = [broad, narrow].map(|key| u128::from(key % 4));
            let full = held.len() == PLACES;
            let (number, displaced) = budget.enter(source);
            assert_eq!(displaced.is_some(), full, "places are free, or one is made");
            assert_eq!(held.insert(number, source), None, "a number is used once");
            if let Some(displaced) = displaced {
                let count = |key: u128| held.values().filter(|source| source[0] == key).count();
                let loser = held[&displaced][0];
                let most = held.values().map(|source| count(source[0])).max();
                assert_eq!(Some(count(loser)), most, "{loser} holds less than another");
                assert_ne!(displaced, number, "the newcomer stays");
                held.remove(&displaced);
            }
        }
        assert_eq!(budget.taken(), held.len());
        for source in held.values() {
            let [broad, narrow] = budget.held_by(source);
            assert_eq!(broad, held.values().filter(|other| other[0] == source[0]).count());
            assert_eq!(narrow, held.values().filter(|other| *other == source).count());
        }
    }
}

/// Windows never exceed the limits of their peers or of all together.
fn windows(ops: impl Iterator<Item = [u8; 3]>) {
    const KIB: u64 = 1 << 10;
    const LIMITS: WindowLimits =
        WindowLimits { first: 10 * KIB, per_peer: 2_000 * KIB, all: 5_000 * KIB };
    let budget = WindowBudget::new(LIMITS);
    let mut windows: Vec<(NodeId, Window)> = Vec::new();
    for [what, which, how] in ops {
        match what % 3 {
            0 if windows.len() < 40 => {
                let peer = peer(which);
                let window = budget.enter(&peer);
                windows.push((peer.base(), window));
            }
            1 if !windows.is_empty() => {
                drop(windows.swap_remove(usize::from(which) % windows.len()))
            }
            _ if !windows.is_empty() => {
                let at = usize::from(which) % windows.len();
                let (before, wanted) = (windows[at].1.bytes(), u64::from(how) * 20 * KIB);
                let reached = windows[at].1.grow(wanted);
                let after = windows[at].1.bytes();
                assert!(
                    before <= after && after <= before.max(wanted),
                    "{before} to {after} of {wanted}"
                );
                assert_eq!(reached, after >= wanted);
            }
            _ => {}
        }
        let total: u64 = windows.iter().map(|(_, window)| window.bytes()).sum();
        assert_eq!(budget.status().bytes, total);
        assert!(total <= LIMITS.all + windows.len() as u64 * LIMITS.first, "{total}");
        for name in ["a", "b", "c"] {
            let own: Vec<u64> = windows
                .iter()
                .filter(|(peer, _)| peer.as_str() == name)
                .map(|(_, window)| window.bytes())
                .collect();
            let most = LIMITS.per_peer + own.len() as u64 * LIMITS.first;
            assert!(own.iter().sum::<u64>() <= most, "{own:?}");
        }
    }
    drop(windows);
    assert_eq!(budget.status().bytes, 0);
}

/// A call, and the responses that wait for its caller.
struct Call {
    caller: NodeId,
    backlog: Backlog,
    queue: mpsc::Receiver<Waiting>,
    waiting: Vec<usize>,
}

/// Responses that wait count until they are taken, and a caller that stores none has room.
fn responses(ops: impl Iterator<Item = [u8; 3]>) {
    let budget = ResponseBudget::new();
    let mut calls: Vec<Call> = Vec::new();
    for [what, which, how] in ops {
        let at = usize::from(which) % calls.len().max(1);
        match what % 4 {
            0 => {
                // So many that one caller can use up its share.
                for _ in 0..=how {
                    let caller = peer(which);
                    let (backlog, queue) = budget.backlog(&caller);
                    calls.push(Call { caller: caller.base(), backlog, queue, waiting: Vec::new() });
                    calls.last_mut().expect("a call was added").fill(MAX_RESPONSE);
                }
            }
            1 if !calls.is_empty() => calls[at].fill(usize::from(how) * 257),
            2 if !calls.is_empty() => {
                if let Ok(taken) = calls[at].queue.try_recv() {
                    assert_eq!(taken.body.len(), calls[at].waiting.remove(0));
                }
            }
            3 if !calls.is_empty() => drop(calls.swap_remove(at)),
            _ => {}
        }
        let total: usize = calls.iter().flat_map(|call| &call.waiting).sum();
        assert_eq!(budget.held().0, total);
        assert!(total <= RESPONSE_MEMORY, "{total} bytes");
        let stores = |name: &str| {
            calls.iter().any(|call| call.caller.as_str() == name && !call.waiting.is_empty())
        };
        for idle in ["a", "b", "c", "d"].into_iter().filter(|name| !stores(name)) {
            let (backlog, _queue) = budget.backlog(&idle.parse().expect("a node id"));
            assert_eq!(backlog.piece(), MAX_RESPONSE, "{idle} has no room");
        }
        calls.truncate(2_000);
    }
    drop(calls);
    assert_eq!(budget.held().0, 0);
}

impl Call {
    /// Puts in responses until one would have to wait.
    fn fill(&mut self, len: usize) {
        while let Ok(Some(place)) = self.backlog.try_reserve(len) {
            assert_eq!(place.bytes(), len);
            place.send(Bytes::from_static(&[0; MAX_RESPONSE]).slice(..len));
            self.waiting.push(len);
        }
    }
}

fn peer(which: u8) -> NodeId {
    PEERS[usize::from(which) % PEERS.len()].parse().expect("a node id")
}
