//! Transfers whose path changes under them.

use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::clock::{LIMIT, now, runs, until};
use crate::lab::{Family, Gateway, Internet, Nat, Segment, skipped};
use crate::mesh::{Edge, Mesh};

pub(crate) const MIB: u64 = 1024 * 1024;
/// What the lines of the edges carry, in Mbit/s, and those of the relays.
const EDGES: u32 = 200;
const RELAYS: u32 = 20;
/// From the end of a path until data flows by another one.
pub(crate) const GOES_ON_WITHIN: Duration = Duration::from_secs(7);

/// Bytes that one edge sends to another, which sends them back.
pub(crate) struct Transfer {
    child: Child,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    pauses: Arc<Mutex<Pauses>>,
    enough: Arc<AtomicBool>,
    quiet: Arc<AtomicBool>,
    sent_all: Receiver<[u8; 32]>,
    received_all: Receiver<[u8; 32]>,
}

/// How long nothing came.
struct Pauses {
    last: Instant,
    longest: Duration,
}

impl Transfer {
    /// Sends without end, until it is [finished](Self::finish).
    pub(crate) fn start(mesh: &Mesh, from: &Edge, to: &Edge) -> Self {
        let mut command = mesh.command(&[
            "send",
            &to.id,
            "echo:bytes",
            "-",
            "--control",
            &mesh.control(&from.id),
        ]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (enough, quiet) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (hashed, sent_all) = channel();
        let (counter, stop, pause) = (sent.clone(), enough.clone(), quiet.clone());
        thread::spawn(move || {
            let mut sum = Sha256::new();
            let mut block = [0; 16 * 1024];
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                if pause.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                    continue;
                }
                // No two blocks are alike.
                for word in block.chunks_exact_mut(8) {
                    number += 1;
                    word.copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
                }
                if stdin.write_all(&block).is_err() {
                    return;
                }
                sum.update(block);
                counter.fetch_add(block.len() as u64, Ordering::Relaxed);
            }
            let _ = hashed.send(sum.finalize().into());
        });
        let (hashed, received_all) = channel();
        let pauses = Arc::new(Mutex::new(Pauses { last: now(), longest: Duration::ZERO }));
        let (counter, came) = (received.clone(), pauses.clone());
        thread::spawn(move || {
            let mut sum = Sha256::new();
            let mut block = [0; 16 * 1024];
            loop {
                match stdout.read(&mut block) {
                    Ok(0) => break,
                    Ok(len) => {
                        sum.update(&block[..len]);
                        let mut came = came.lock().unwrap();
                        came.longest = came.longest.max(came.last.elapsed());
                        came.last = now();
                        counter.fetch_add(len as u64, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
            let _ = hashed.send(sum.finalize().into());
        });
        Self { child, sent, received, pauses, enough, quiet, sent_all, received_all }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until so many bytes more have come back, and says at what rate they did, in bytes a
    /// second.
    #[track_caller]
    pub(crate) fn advance(&self, bytes: u64) -> f64 {
        let (begin, goal) = (now(), self.received() + bytes);
        until("the transfer goes on", || (self.received() >= goal).then_some(()));
        bytes as f64 / begin.elapsed().as_secs_f64()
    }

    /// Waits until bytes come back that were not sent before now; says how long at a time nothing
    /// came until then.
    #[track_caller]
    pub(crate) fn goes_on(&self) -> Duration {
        let mark = self.sent();
        self.pauses.lock().unwrap().longest = Duration::ZERO;
        until("the transfer goes on", || (self.received() > mark).then_some(()));
        self.pauses.lock().unwrap().longest
    }

    /// Sends nothing for so long, once all that was sent is back; says how long nothing came after
    /// that.
    #[track_caller]
    fn rest(&self, time: Duration) -> Duration {
        self.quiet.store(true, Ordering::Relaxed);
        let mut before = self.sent();
        until("all is back", || {
            let sent = std::mem::replace(&mut before, self.sent());
            (sent == self.sent() && sent == self.received()).then_some(())
        });
        thread::sleep(time);
        let (mark, begin) = (self.received(), now());
        self.quiet.store(false, Ordering::Relaxed);
        until("the transfer goes on", || (self.received() > mark).then_some(()));
        begin.elapsed()
    }

    /// Sends the end, and checks that everything came back as it was sent.
    #[track_caller]
    pub(crate) fn finish(mut self) -> u64 {
        self.enough.store(true, Ordering::Relaxed);
        let sent = self.sent_all.recv_timeout(LIMIT).expect("all is sent");
        let received = self.received_all.recv_timeout(LIMIT).expect("all comes back");
        assert!(self.child.wait().unwrap().success());
        assert_eq!(self.sent(), self.received());
        assert_eq!(sent, received, "the checksums differ");
        self.received()
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two edges behind NATs, on lines that are ten times as fast as the relays'.
struct Lines {
    mesh: Mesh,
    a: Edge,
    b: Edge,
    gateways: [Gateway; 2],
    internet: Segment,
}

impl Lines {
    fn new(nats: [Nat; 2]) -> Self {
        let internet = Internet::new(Family::V4);
        let mesh = Mesh::new(&internet);
        let gateways = nats.map(|nat| internet.gateway("gw", nat));
        let [a, b] = [("a", &gateways[0]), ("b", &gateways[1])].map(|(id, gateway)| {
            let host = gateway.host(id);
            host.namespace.limit("eth0", EDGES);
            mesh.edge(id, host, &[])
        });
        mesh.settle(&[&a, &b]);
        (0..2).for_each(|number| mesh.relay(number).namespace.limit("eth0", RELAYS));
        Self { mesh, a, b, gateways, internet }
    }

    fn start(&self) -> Transfer {
        Transfer::start(&self.mesh, &self.a, &self.b)
    }

    #[track_caller]
    fn until_direct(&self) {
        let both = || {
            self.mesh.direct(&self.a, &self.b).is_some()
                && self.mesh.direct(&self.b, &self.a).is_some()
        };
        until("both send directly", || both().then_some(()));
    }
}

/// Sends until `bytes` are through: by relays, directly, and by relays again.
fn goes_direct_and_back(bytes: u64) {
    let lines = Lines::new([Nat::PortRestricted; 2]);
    let transfer = lines.start();
    until("the first bytes come back", || (transfer.received() > 0).then_some(()));
    let carried = lines.mesh.forwarded();
    assert!(carried > 0, "relays carry the beginning");

    lines.until_direct();
    // What was under way by relays arrives first.
    transfer.advance(8 * MIB);
    let carried = lines.mesh.forwarded();
    let direct = transfer.advance(bytes.saturating_sub(transfer.received()).max(16 * MIB));
    let carried_since = lines.mesh.forwarded() - carried;
    assert!(carried_since < 1_000, "relays carried {carried_since} packets of a direct transfer");

    lines.gateways[0].block(lines.gateways[1].public);
    let stood_still = transfer.goes_on();
    assert!(stood_still <= GOES_ON_WITHIN, "after the cut it stood still for {stood_still:?}");
    let relayed = transfer.advance(2 * MIB);
    assert!(lines.mesh.direct(&lines.a, &lines.b).is_none());
    assert!(direct > 2.0 * relayed, "direct {direct:.0} B/s, relayed {relayed:.0} B/s");
    let bytes = transfer.finish();
    eprintln!(
        "{} MiB there and back: direct at {:.0} Mbit/s; relayed after {} ms of standstill, at {:.0} Mbit/s",
        bytes / MIB,
        direct * 8e-6,
        stood_still.as_millis(),
        relayed * 8e-6
    );
}

#[test]
fn a_transfer_goes_direct_in_the_middle_and_back_to_relays_when_the_path_is_cut() {
    if skipped("a_transfer_goes_direct_in_the_middle_and_back_to_relays_when_the_path_is_cut") {
        return;
    }
    for _ in 0..runs() {
        goes_direct_and_back(32 * MIB);
    }
}

#[test]
#[ignore = "takes minutes"]
fn a_gibibyte_goes_direct_in_the_middle_and_back_to_relays_when_the_path_is_cut() {
    if skipped("a_gibibyte_goes_direct_in_the_middle_and_back_to_relays_when_the_path_is_cut") {
        return;
    }
    goes_direct_and_back(1024 * MIB);
}

/// Something happens to a gateway in the middle of a direct transfer.
#[track_caller]
fn survives(nats: [Nat; 2], what: &str, happens: impl Fn(&Gateway, &Segment)) {
    for run in 1..=runs() {
        let lines = Lines::new(nats);
        let transfer = lines.start();
        lines.until_direct();
        transfer.advance(4 * MIB);
        happens(&lines.gateways[0], &lines.internet);
        let stood_still = transfer.goes_on();
        assert!(stood_still <= GOES_ON_WITHIN, "{what}: it stood still for {stood_still:?}");
        lines.until_direct();
        transfer.advance(4 * MIB);
        transfer.finish();
        eprintln!("run {run}: {what}: it stood still for {} ms", stood_still.as_millis());
    }
}

#[test]
fn a_transfer_survives_a_nat_that_forgets_its_mappings() {
    if skipped("a_transfer_survives_a_nat_that_forgets_its_mappings") {
        return;
    }
    // The port that a symmetric one gives next is another one.
    survives([Nat::Symmetric, Nat::FullCone], "mappings forgotten", Gateway::restart);
}

#[test]
fn a_transfer_survives_a_nat_whose_public_address_changes() {
    if skipped("a_transfer_survives_a_nat_whose_public_address_changes") {
        return;
    }
    survives([Nat::PortRestricted; 2], "public address changed", Gateway::readdress);
}

/// A transfer that rests for longer than its NATs remember it goes on.
#[track_caller]
fn survives_a_rest(nats: [Nat; 2], remembered: u32, rest: Duration) -> Duration {
    let lines = Lines::new(nats);
    lines.gateways.iter().for_each(|gateway| gateway.forget_after(remembered));
    let transfer = lines.start();
    lines.until_direct();
    transfer.advance(4 * MIB);
    let stood_still = transfer.rest(rest);
    assert!(stood_still <= GOES_ON_WITHIN, "{nats:?}: it stood still for {stood_still:?}");
    lines.until_direct();
    transfer.advance(4 * MIB);
    transfer.finish();
    stood_still
}

#[test]
fn a_transfer_that_rests_goes_on_at_once_where_nats_forget_in_10_s_since_its_path_is_kept() {
    if skipped(
        "a_transfer_that_rests_goes_on_at_once_where_nats_forget_in_10_s_since_its_path_is_kept",
    ) {
        return;
    }
    for nats in [[Nat::PortRestricted; 2], [Nat::Symmetric, Nat::FullCone]] {
        let stood_still = survives_a_rest(nats, 10, Duration::from_secs(20));
        eprintln!(
            "{nats:?}, mappings kept for 10 s: it went on after {} ms",
            stood_still.as_millis()
        );
        assert!(
            stood_still < Duration::from_secs(1),
            "{nats:?}: it stood still for {stood_still:?}"
        );
    }
}

#[test]
fn a_transfer_that_rests_goes_on_where_nats_forget_sooner_than_paths_are_probed() {
    if skipped("a_transfer_that_rests_goes_on_where_nats_forget_sooner_than_paths_are_probed") {
        return;
    }
    for nats in [[Nat::PortRestricted; 2], [Nat::Symmetric, Nat::FullCone]] {
        // Links are kept alive every second, paths without packets every 5 s.
        let stood_still = survives_a_rest(nats, 3, Duration::from_secs(9));
        eprintln!(
            "{nats:?}, mappings kept for 3 s: it went on after {} ms",
            stood_still.as_millis()
        );
    }
}
