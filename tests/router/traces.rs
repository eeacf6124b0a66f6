//! Step files: what happens to a mesh, and what must be seen, readable without Rust.
//! `traces/README.md` has the format.

use std::fmt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use receptor_quic::NodeId;
use receptor_quic::id::Cost;
use receptor_quic::router::{FloodMode, LinkClass, Message, Record, Route};

use crate::probe;
use crate::reference::assert_converged;
use crate::sim::{Epoch, Seen, Sent, Sim, id};

#[test]
fn every_step_file_comes_true() {
    let files = files();
    assert!(files.len() > 20, "the step files are missing: {files:?}");
    let runs =
        files.iter().flat_map(|file| [FloodMode::Tree, FloodMode::Full].map(|flood| (file, flood)));
    let failed = runs.filter(|(file, flood)| catch_unwind(|| play(file, *flood)).is_err());
    assert_eq!(failed.count(), 0, "step files that did not come true; see above");
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/router/traces");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

fn play(file: &Path, flood: FloodMode) {
    let text = std::fs::read_to_string(file).unwrap();
    let mut stage = Stage::new(flood);
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        let _place = Place { file, line: number + 1, text: line, flood };
        stage.step(&words);
    }
}

/// Tells which step failed.
struct Place<'a> {
    file: &'a Path,
    line: usize,
    text: &'a str,
    flood: FloodMode,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{self}");
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        write!(
            f,
            "tests/router/traces/{name}:{}: {} (flooding {:?})",
            self.line,
            self.text.trim(),
            self.flood
        )
    }
}

struct Stage {
    sim: Sim,
    flood: FloodMode,
    /// What was sent before counting began.
    before: Sent,
    healing: Vec<([NodeId; 2], [u32; 2])>,
}

impl Stage {
    fn new(flood: FloodMode) -> Self {
        let mut sim = Sim::flooding(1, flood);
        sim.latency = (5, 5);
        sim.drain = (0, 0);
        Self { sim, flood, before: Sent::default(), healing: Vec::new() }
    }

    fn step(&mut self, words: &[&str]) {
        let now = self.sim.now;
        match *words {
            [] => {}
            ["latency", time] => {
                let millis = duration(time).as_millis() as u64;
                self.sim.latency = (millis, millis);
            }
            ["start", ref names @ ..] => names.iter().for_each(|name| self.start(name)),
            ["link", a, ref others @ ..] if !others.contains(&"cost") => {
                others.iter().for_each(|b| self.link(a, b, 1, 1));
            }
            ["link", a, b, "cost", cost] => self.link(a, b, number(cost), number(cost)),
            ["link", a, b, "cost", there, back] => self.link(a, b, number(there), number(back)),
            ["cut", a, b] => self.sim.cut(&id(a), &id(b), Seen::Now),
            ["cut", a, b, "seen", "within", time] => {
                self.sim.cut(&id(a), &id(b), Seen::Within(millis(time)))
            }
            ["cut", a, b, "one-sided", time] => {
                self.sim.cut(&id(a), &id(b), Seen::OneSided(millis(time)))
            }
            ["stop", name] => self.stop(name, Seen::Now),
            ["stop", name, "seen", "within", time] => self.stop(name, Seen::Within(millis(time))),
            ["restart", name] => self.sim.restart(&id(name), 0, Seen::Now),
            ["restart", name, "clock", "back", time] => {
                self.sim.restart(&id(name), -(millis(time) as i64), Seen::Now);
            }
            ["restart", name, "same", "epoch"] => {
                self.sim.restart_with(&id(name), Epoch::Same, Seen::Now);
            }
            ["leave", name] => self.sim.leave(&id(name)),
            ["part", ref side @ ..] => {
                let cut = self.sim.partition(|node| side.contains(&node.as_str()), Seen::Now);
                self.healing.extend(cut);
            }
            ["heal"] => self.sim.heal(std::mem::take(&mut self.healing)),
            ["attach", stub, "to", name] => self.sim.attach(&id(name), id(stub), Cost::DEFAULT),
            ["attach", stub, "to", name, "cost", cost] => {
                self.sim.attach(&id(name), id(stub), Cost::try_from(number(cost)).unwrap());
            }
            ["detach", stub, "from", name] => self.sim.detach(&id(name), &id(stub)),
            ["transit", name, on @ ("on" | "off")] => {
                self.sim.nodes.get_mut(&id(name)).unwrap().transit = on == "on";
                self.sim.command(&id(name), |router| router.set_transit(on == "on", now));
            }
            ["say", name, text] => {
                self.sim.nodes.get_mut(&id(name)).unwrap().capabilities = text.into();
                let text = text.as_bytes().to_vec();
                self.sim.command(&id(name), |router| router.set_capabilities(text.into(), now));
            }
            ["cost", a, b, cost] => self.cost(a, b, number(cost)),
            ["tell", name, "from", neighbour, "record", ref record @ ..] => {
                self.tell(name, neighbour, record)
            }
            ["run", time] => self.sim.run_for(duration(time)),
            ["settle"] => self.sim.settle(),
            ["count"] => self.before = self.sim.sent,
            ["expect", ref what @ ..] => self.expect(what),
            ["tree", "only", ref step @ ..] => {
                if self.flood == FloodMode::Tree {
                    self.step(step);
                }
            }
            _ => panic!("no such step"),
        }
    }

    fn start(&mut self, name: &str) {
        if self.sim.nodes.get(&id(name)).is_none_or(|node| !node.alive) {
            self.sim.boot(name, 0);
        }
    }

    fn stop(&mut self, name: &str, seen: Seen) {
        self.sim.kill(&id(name), seen);
    }

    fn link(&mut self, a: &str, b: &str, there: u32, back: u32) {
        self.start(a);
        self.start(b);
        self.sim.connect_cost(a, b, there, back);
    }

    fn cost(&mut self, a: &str, b: &str, cost: u32) {
        let (now, from, to) = (self.sim.now, id(a), id(b));
        let connection = self
            .sim
            .connections
            .values_mut()
            .find(|c| !c.broken && c.ends.contains(&from) && c.ends.contains(&to))
            .expect("the nodes are linked");
        let end = usize::from(connection.ends[0] != from);
        connection.costs[end] = cost;
        self.sim.command(&from, |router| router.set_cost(&to, Cost::try_from(cost).unwrap(), now));
    }

    /// A record by hand comes over a live session.
    fn tell(&mut self, name: &str, neighbour: &str, words: &[&str]) {
        let record = written(words);
        let (now, from) = (self.sim.now, id(neighbour));
        self.sim.command(&id(name), |router| {
            router
                .handle_message(&from, Message::Update(record.advertisement().clone()), now)
                .unwrap();
        });
    }

    fn expect(&self, words: &[&str]) {
        let sent = |now: u64, before: u64| now - before;
        match *words {
            ["route", from, to, ref rest @ ..] => self.expect_route(from, to, rest),
            ["path", ref names @ ..] => {
                let path = self.sim.router(names[0]).path(&id(names[names.len() - 1]));
                let path: Vec<String> =
                    path.into_iter().flatten().map(|node| node.to_string()).collect();
                assert_eq!(path, names);
            }
            ["unreachable", from, to] => {
                assert_eq!(self.sim.router(from).table().route(&id(to)), None);
            }
            ["reaches", from, count] => {
                assert_eq!(self.sim.router(from).table().len(), number(count) as usize);
            }
            ["everybody", "reaches", "everybody"] => self.expect_all_reach_all(),
            ["links", name, "at", holder, "are", ref links @ ..] => {
                let held = self.held(holder, name).map(|record| links_of(&record));
                assert_eq!(held.unwrap_or_default(), links);
            }
            ["version", name, "at", holder, "is", version] => {
                let version_held = self.held(holder, name).map(|record| record.version);
                let text = version_held.map(|v| format!("{}.{}", v.epoch, v.sequence));
                assert_eq!(text.as_deref(), Some(version));
            }
            ["record", "of", name, "at", holder] => {
                assert!(self.held(holder, name).is_some(), "{holder} holds no record of {name}");
            }
            ["no", "record", "of", name, "at", holder] => assert_eq!(self.held(holder, name), None),
            ["payloads", count] => {
                assert_eq!(
                    sent(self.sim.sent.payloads, self.before.payloads),
                    u64::from(number(count))
                );
            }
            ["payloads", "at", "most", count] => {
                let payloads = sent(self.sim.sent.payloads, self.before.payloads);
                assert!(payloads <= u64::from(number(count)), "{payloads}");
            }
            ["ids", "at", "most", count] => {
                let ids = sent(self.sim.sent.ids, self.before.ids);
                assert!(ids <= u64::from(number(count)), "{ids}");
            }
            ["pulls", count] => {
                assert_eq!(sent(self.sim.sent.wants, self.before.wants), u64::from(number(count)));
            }
            ["agreement"] => assert_converged(&self.sim),
            _ => panic!("no such expectation"),
        }
    }

    fn expect_route(&self, from: &str, to: &str, rest: &[&str]) {
        let table = self.sim.router(from).table();
        let route: &Route =
            table.route(&id(to)).unwrap_or_else(|| panic!("{from} does not reach {to}"));
        let mut words = rest.iter();
        while let Some(&word) = words.next() {
            let value = *words.next().expect("a value follows");
            match word {
                "via" => {
                    let hops: Vec<&str> = route.next_hops.iter().map(NodeId::as_str).collect();
                    assert_eq!(hops.join(","), value, "next hops from {from} to {to}");
                }
                "cost" => {
                    assert_eq!(route.cost, u64::from(number(value)), "cost from {from} to {to}")
                }
                "hops" => assert_eq!(route.hops, number(value), "hops from {from} to {to}"),
                _ => panic!("no such property of a route: {word}"),
            }
        }
    }

    fn expect_all_reach_all(&self) {
        let living = self.sim.living();
        for from in &living {
            let table = self.sim.nodes[from].router.table();
            for to in living.iter().filter(|to| *to != from) {
                assert!(table.route(to).is_some(), "{from} does not reach {to}");
            }
        }
    }

    fn held(&self, holder: &str, origin: &str) -> Option<Record> {
        self.sim.router(holder).database().find(|record| record.origin == id(origin)).cloned()
    }
}

/// `NAME EPOCH.SEQUENCE PEER:COST …`, with `leaving` in place of links.
fn written(words: &[&str]) -> Record {
    let [name, version, links @ ..] = words else { panic!("NAME EPOCH.SEQUENCE PEER:COST …") };
    let (epoch, sequence) = version.split_once('.').expect("EPOCH.SEQUENCE");
    let leaving = links == ["leaving"];
    let links = links.iter().filter(|_| !leaving).map(|link| {
        let (peer, cost) = link.split_once(':').expect("PEER:COST");
        probe::link(peer, LinkClass::Active, number(cost))
    });
    let mut draft =
        probe::draft(name, (epoch.parse().unwrap(), sequence.parse().unwrap()), links.collect());
    draft.leaving = leaving;
    draft.seal().unwrap()
}

fn links_of(record: &Record) -> Vec<String> {
    let text = |link: &receptor_quic::router::Link| match link.class {
        LinkClass::Stub => format!("({}):{}", link.peer, link.cost.get()),
        LinkClass::Dormant => format!("[{}]", link.peer),
        _ => format!("{}:{}", link.peer, link.cost.get()),
    };
    record.links.iter().map(text).collect()
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn millis(text: &str) -> u64 {
    duration(text).as_millis() as u64
}

/// `20ms`, `3s`, `5m` or `2h`.
fn duration(text: &str) -> Duration {
    let at = text.find(|c: char| !c.is_ascii_digit()).expect("a unit follows");
    let (count, unit) = text.split_at(at);
    let count = u64::from(number(count));
    match unit {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "m" => Duration::from_secs(60 * count),
        "h" => Duration::from_secs(3_600 * count),
        _ => panic!("no such unit: {unit}"),
    }
}
