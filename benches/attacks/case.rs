//! The attacks, what they may cost, and how one is measured.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::sync::oneshot;

use crate::attack::{self, AttackFn, Ready, Target};
use crate::harness::{LIMIT, finish};
use crate::honest::{self, Pinger};
use crate::options::Options;
use crate::report::Row;
use crate::stage::{Stage, Victim};

/// An attack.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    victim: Victim,
    attack: AttackFn,
    /// The cost of the relay's links.
    relay_cost: u16,
    /// Whether an ephemeral node that is attached to `a` sends the pings, instead of `a` itself.
    from_stub: bool,
    /// Looks for what else must be true at the end.
    check: fn(&Stage) -> Vec<String>,
    pub(crate) bars: Bars,
}

/// What an attack may cost. 20 of 20 new connections and calls succeed in any case.
#[derive(Clone, Copy)]
pub(crate) struct Bars {
    /// Of pings, in milliseconds; `None` if some may be lost.
    pub(crate) p99: Option<f64>,
    /// The longest time without an answered ping, in milliseconds.
    pub(crate) gap: f64,
    /// Cores that the attack may cause the victim to use; `None` if members attack, who are known.
    pub(crate) cpu: Option<f64>,
    /// Of the victim's memory, in MiB.
    pub(crate) growth: f64,
    /// In the log of any node.
    pub(crate) lines: f64,
}

const BARS: Bars = Bars { p99: Some(20.0), gap: 1_000.0, cpu: None, growth: 64.0, lines: 100.0 };
/// For senders that have shown no certificate.
const OUTSIDER: Bars = Bars { cpu: Some(0.25), ..BARS };

const BASE: Case = Case {
    name: "none",
    victim: Victim::Relay,
    attack: |_, ready| Box::pin(attack::nothing(ready)),
    relay_cost: 1,
    from_stub: false,
    check: |_| Vec::new(),
    bars: BARS,
};

/// The load of the honest nodes alone.
pub(crate) const NONE: Case = BASE;

pub(crate) const ATTACKS: &[Case] = &[
    Case {
        name: "F1-outside",
        attack: |target, ready| Box::pin(attack::initials_from_outside(target, ready)),
        bars: OUTSIDER,
        ..BASE
    },
    Case {
        name: "F1-sources",
        attack: |target, ready| Box::pin(attack::initials_from_many_sources(target, ready)),
        bars: OUTSIDER,
        ..BASE
    },
    Case {
        name: "F1-mesh",
        victim: Victim::End,
        attack: |target, ready| Box::pin(attack::initials_through_the_mesh(target, ready)),
        ..BASE
    },
    Case {
        name: "F2-claim",
        attack: |target, ready| Box::pin(attack::stolen_stub(target, ready)),
        from_stub: true,
        check: false_claim_is_seen,
        ..BASE
    },
    Case {
        name: "F3-chains",
        attack: |target, ready| Box::pin(attack::junk_chains(target, ready)),
        bars: OUTSIDER,
        ..BASE
    },
    Case {
        name: "F4-calls",
        victim: Victim::End,
        attack: |target, ready| Box::pin(attack::endless_calls(target, ready)),
        ..BASE
    },
    Case {
        name: "F4-answers",
        victim: Victim::End,
        attack: |target, ready| Box::pin(attack::unread_responses(target, ready)),
        ..BASE
    },
    Case {
        name: "F4-unread",
        victim: Victim::End,
        attack: |target, ready| Box::pin(attack::unread_streams(target, ready)),
        ..BASE
    },
    Case {
        name: "F5-hole",
        attack: |target, ready| Box::pin(attack::black_hole(target, ready)),
        relay_cost: 4,
        bars: Bars { p99: None, gap: 5_000.0, ..BARS },
        ..BASE
    },
    Case {
        name: "F6-stubs",
        attack: |target, ready| Box::pin(attack::stub_churn(target, ready)),
        ..BASE
    },
    Case {
        name: "F6-frames",
        attack: |target, ready| Box::pin(attack::frames_without_end(target, ready)),
        ..BASE
    },
    Case {
        name: "F6-links",
        attack: |target, ready| Box::pin(attack::links_without_end(target, ready)),
        ..BASE
    },
];

/// Measures one attack, against the row without one.
pub(crate) fn run(case: &Case, options: &Options, idle: Option<&Row>) -> Row {
    let stage = Stage::start(case.relay_cost);
    let from = if case.from_stub {
        stage.join("guest~stub", &stage.a).to_vec()
    } else {
        vec!["--control".to_owned(), stage.a.node.control().display().to_string()]
    };
    let pinger = Pinger::start(&stage, &from);
    let victim = stage.victim(case.victim);
    let meter = victim.meter();
    let nodes = [&stage.relay, &stage.a, &stage.b];
    meter.reset_peak();
    let resident = meter.resident();
    let lines_before = nodes.map(|node| node.lines());

    let attack = Running::start(case.attack, Target::new(&stage));
    let (began, since, cpu) = (Instant::now(), SystemTime::now(), meter.cpu());
    let work = honest::work(&stage, options.window);
    let cpu = (meter.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    let pings = pinger.stop(since);
    let growth = meter.peak() as f64 - resident as f64;
    let lines = nodes.iter().zip(lines_before).map(|(node, before)| node.lines() - before);
    let mut wrong = (case.check)(&stage);
    if !attack.stop() {
        wrong.push("the attack ended before the window did".to_owned());
    }
    Row {
        name: case.name,
        newcomers: work.newcomers,
        calls: work.calls,
        pings,
        growth,
        cpu,
        caused: cpu - idle.map_or(cpu, |idle| idle.cpu),
        lines: lines.max().unwrap_or(0),
        wrong,
    }
}

/// An attack under way, on a thread of its own.
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Starts it, and waits until it has effect.
    fn start(attack: AttackFn, target: Target) -> Self {
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                tokio::select! {
                    () = attack(target, Ready(ready)) => {}
                    _ = stopped => {}
                }
            });
            // Connections that are still closing would hold it up.
            runtime.shutdown_timeout(Duration::ZERO);
        });
        is_ready.recv_timeout(LIMIT).expect("the attack begins");
        Self { stop, thread }
    }

    /// Ends it. Whether it had gone on until now.
    fn stop(self) -> bool {
        let went_on = self.stop.send(()).is_ok();
        self.thread.join().is_ok() && went_on
    }
}

/// Packets with a stolen source were dropped and counted, and `explain` names the liar.
fn false_claim_is_seen(stage: &Stage) -> Vec<String> {
    let mut wrong = Vec::new();
    let ask = |args: &[&str], node: &crate::stage::Observed| -> Value {
        let mut command = stage.world.command(args);
        let done = finish(command.arg("--json").arg("--control").arg(node.node.control()));
        serde_json::from_slice(&done.stdout).unwrap_or_default()
    };
    let status = ask(&["status"], &stage.relay);
    if status["switch"]["dropped"]["forged_source"].as_u64().unwrap_or(0) == 0 {
        wrong.push("no packet with a stolen source was counted".to_owned());
    }
    let explained = ask(&["explain", "guest~stub"], &stage.b);
    let claims = explained["claims"].as_array().cloned().unwrap_or_default();
    if !claims.iter().any(|claim| claim["by"] == "mallory") {
        wrong.push("explain does not name the false claim".to_owned());
    }
    wrong
}
