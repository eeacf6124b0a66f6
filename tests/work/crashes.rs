//! Histories in which nodes, supervisors, or all at once are killed, at points that a seed chooses.
//!
//! Of each history it must hold that no command starts twice, that every unit has a final state
//! 10 s after everything is up again, and that each output arrives once, in order and whole: up to
//! its end if the unit ended by itself, and as a prefix if its supervisor was killed.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::harness::{LIMIT, finish};
use crate::jobs::{Kind, mix};
use crate::lab::{Lab, Role};
use crate::processes::{runs, signal, supervisors};

/// Units of one history.
const UNITS: u64 = 4;
/// Faults of one history.
const FAULTS: u64 = 3;
/// The longest time from one fault to the next, in milliseconds.
const SPAN_MS: u64 = 700;
/// The longest time for which a killed node stays away, in milliseconds.
const AWAY_MS: u64 = 400;
/// How long after everything is up again a unit may take to end, the time that jobs take included.
const FINAL_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn nothing_runs_twice_and_no_byte_is_lost_whoever_is_killed() {
    let mut slowest = Duration::ZERO;
    for seed in seeds() {
        let took = History::new(seed).play();
        slowest = slowest.max(took);
    }
    println!("all final {slowest:?} after everything was up, at most");
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("RECEPTOR_CRASH_SEEDS") else { return 0..3 };
    let (from, to) = text.split_once("..").expect("RECEPTOR_CRASH_SEEDS=A..B");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Numbers that a seed chooses.
struct Dice(u64);

impl Dice {
    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % bound
    }
}

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Node(Role),
    Supervisor,
    All,
}

/// One of the units, as its client sees it.
#[derive(Clone, Copy, Debug)]
struct Unit {
    key: Uuid,
    kind: Kind,
}

/// What a client has learnt.
struct Learnt {
    unit: Unit,
    status: Value,
    followed: Vec<u8>,
}

struct History {
    seed: u64,
    dice: Dice,
    lab: Lab,
    /// Units whose supervisors were killed.
    bereft: BTreeSet<Uuid>,
    /// What was killed, in that order.
    struck: Vec<Victim>,
}

impl History {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            dice: Dice(mix(seed)),
            lab: Lab::running(),
            bereft: BTreeSet::new(),
            struck: Vec::new(),
        }
    }

    /// Plays and checks it. Returns how long after the last restart all units had ended.
    fn play(mut self) -> Duration {
        let clients: Vec<Receiver<Learnt>> = (0..UNITS).map(|number| self.client(number)).collect();
        for _ in 0..FAULTS {
            pause(self.dice.below(SPAN_MS));
            let victim = self.victim();
            self.strike(victim);
            pause(self.dice.below(AWAY_MS));
            Role::ALL.into_iter().for_each(|role| self.lab.start(role));
        }
        let up = now();
        let learnt: Vec<Learnt> = clients
            .iter()
            .map(|client| {
                let left = (FINAL_WITHIN + LIMIT / 2).saturating_sub(up.elapsed());
                client
                    .recv_timeout(left)
                    .unwrap_or_else(|_| panic!("seed {}: a unit has no final state", self.seed))
            })
            .collect();
        let took = up.elapsed();
        let ends: Vec<_> =
            learnt.iter().filter_map(|learnt| learnt.status["state"].as_str()).collect();
        println!("seed {}: all final after {took:?}: {}", self.seed, ends.join(" "));
        assert!(took <= FINAL_WITHIN, "seed {}: all final only after {took:?}", self.seed);
        learnt.iter().for_each(|learnt| self.check(learnt));
        self.check_starts();
        self.lab.work(&["release", "--all"]).ok();
        took
    }

    fn victim(&mut self) -> Victim {
        match self.dice.below(8) {
            0 | 1 => Victim::Node(Role::Ctl),
            2 | 3 => Victim::Node(Role::Edge),
            4 => Victim::Node(Role::Relay),
            5 | 6 => Victim::Supervisor,
            _ => Victim::All,
        }
    }

    fn strike(&mut self, victim: Victim) {
        self.struck.push(victim);
        let supervisors = supervisors(&self.lab.edge_units());
        let chosen = match victim {
            Victim::Node(role) => {
                self.lab.kill(role);
                return;
            }
            Victim::All => {
                Role::ALL.into_iter().for_each(|role| self.lab.kill(role));
                supervisors
            }
            Victim::Supervisor if supervisors.is_empty() => return,
            Victim::Supervisor => {
                let one = self.dice.below(supervisors.len() as u64) as usize;
                vec![supervisors[one]]
            }
        };
        for supervisor in chosen {
            signal(supervisor.pid, Signal::KILL);
            self.bereft.insert(supervisor.unit);
        }
    }

    /// Submits a unit, follows its output and waits for its end, whatever is killed meanwhile.
    fn client(&mut self, number: u64) -> Receiver<Learnt> {
        let key = Uuid::from_u128(
            (u128::from(self.seed) << 80) | u128::from(number + 1) | (7 << 76) | (8 << 60),
        );
        let kind = Kind::ALL[self.dice.below(Kind::ALL.len() as u64) as usize];
        let unit = Unit { key, kind };
        let payload = format!("payload-{number}");
        fs::write(self.lab.world.path(&payload), kind.payload(key)).expect("room for a payload");
        let (key, payload) = (key.to_string(), format!("@{payload}"));
        let delay = self.dice.below(SPAN_MS);
        let submit = self.lab.work_command(&[
            "submit",
            "edge",
            kind.directive(),
            &payload,
            "--key",
            &key,
            "-q",
        ]);
        let follow = self.lab.work_command(&["results", &key, "--follow"]);
        let wait = self.lab.work_command(&["wait", &key, "--json", "-q"]);
        let (done, learnt) = channel();
        thread::spawn(move || {
            pause(delay);
            // Submitting it again is harmless, and the only thing to do while the node is away.
            until_ok(submit);
            let followed = until_ok(follow);
            let status = serde_json::from_slice(&ended(wait)).expect("a status");
            done.send(Learnt { unit, status, followed })
        });
        learnt
    }

    fn check(&self, learnt: &Learnt) {
        let Learnt { unit: Unit { key, kind }, status, followed } = learnt;
        let context = format!("seed {}, {:?}, {kind:?} {key}: {status}", self.seed, self.struck);
        let whole = kind.stdout(*key);
        let key = &key.to_string();
        match status["state"].as_str() {
            Some("lost") => {
                assert!(
                    self.bereft.contains(&learnt.unit.key),
                    "{context}: nobody killed its supervisor"
                );
                assert!(whole.starts_with(followed), "{context}: output differs");
                return;
            }
            // Its supervisor was killed before it began: nothing was executed.
            Some("failed") if status["started"] == false => {
                assert!(
                    self.bereft.contains(&learnt.unit.key),
                    "{context}: nobody killed its supervisor"
                );
                assert!(followed.is_empty(), "{context}: output of nothing");
                return;
            }
            Some("succeeded" | "failed") => assert_eq!(status["exit"], kind.status(), "{context}"),
            _ => panic!("{context}: unexpected end"),
        }
        assert_eq!(
            sha256(followed),
            sha256(&whole),
            "{context}: {} of {} bytes",
            followed.len(),
            whole.len()
        );
        // Following waits for an executor that the submitter has yet to find again.
        let again = self.lab.work(&["results", key, "--follow"]);
        assert_eq!(sha256(&again.stdout), sha256(&whole), "{context}: {}", again.stderr);
        let half = (whole.len() / 2).to_string();
        let rest = self.lab.work(&["results", key, "--from", &half, "--follow"]);
        assert!(rest.stdout == whole[whole.len() / 2..], "{context}: from {half}: {}", rest.stderr);
        let stderr = self.lab.work(&["results", key, "--stderr", "--follow"]);
        assert!(stderr.stdout == kind.stderr(learnt.unit.key), "{context}: {}", stderr.stderr);
    }

    fn check_starts(&self) {
        let starts = self.lab.starts();
        let tags: BTreeSet<&String> = starts.iter().map(|(tag, _)| tag).collect();
        assert_eq!(tags.len(), starts.len(), "seed {}: started twice: {starts:?}", self.seed);
        let left: Vec<_> = starts.iter().filter(|(_, pid)| runs(*pid)).collect();
        assert!(left.is_empty(), "seed {}: left behind: {left:?}", self.seed);
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Runs a command until it succeeds. Returns its output.
fn until_ok(mut command: Command) -> Vec<u8> {
    let end = now() + LIMIT;
    loop {
        let done = finish(&mut command);
        if done.code == Some(0) || now() >= end {
            assert_eq!(done.code, Some(0), "{command:?}: {}", done.stderr);
            return done.stdout;
        }
        // It gives up only if there is no node, or no such unit yet.
        pause(20);
    }
}

/// Runs a command that ends as its unit does. Returns its output.
fn ended(mut command: Command) -> Vec<u8> {
    let end = now() + LIMIT;
    loop {
        let done = finish(&mut command);
        if !done.stdout.is_empty() || now() >= end {
            return done.stdout;
        }
        pause(20);
    }
}

/// Lets the processes run for so long: the points of the faults are points in time.
fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

#[expect(clippy::disallowed_methods, reason = "other processes do not run on a clock of ours")]
fn now() -> Instant {
    Instant::now()
}
