//! The steps of a history.

use std::sync::Arc;
use std::time::Duration;

use receptor_quic::NodeId;
use receptor_quic::id::Cost;

use super::ways::Ways;
use crate::notary::Plain;
use crate::rng::Rng;
use crate::sim::{Epoch, Seen, Sim, id};

/// One thing that happens, some time after the one before.
///
/// What a step needs to choose, it draws from its own seed and from what lives when its turn comes:
/// so steps can be left out without changing the choices of the others much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) pause: Duration,
    pub(super) what: What,
    pub(super) draw: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Whatever session two nodes have ends.
    Cut,
    /// A session ends at one end, long before the other end sees it.
    OneSided,
    /// A link swallows everything, one way or both, and ends only when that is noticed.
    Gray,
    /// A link lets nothing through for a while, and then all that waited.
    Stall,
    /// A neighbour reads slowly, or at its usual pace again.
    Slow,
    /// Two nodes connect. On top of a session, it is another path to the same process.
    Connect,
    /// A link goes and comes several times.
    FlapStorm,
    Restart,
    /// The node with the most links restarts.
    HubRestart,
    Kill,
    /// A node that was killed or has left comes back.
    Revive,
    /// A node that never was here comes.
    Join,
    Leave,
    Partition,
    Heal,
    Stub,
    /// A stub goes from one node to another, in either order.
    MoveStub,
    Transit,
    Capabilities,
    Cost,
    Dormant,
    /// A node gets another credential, where records are signed.
    Renew,
    /// A node asks whether all others have its route. Every yes is checked against what all have.
    Converge,
}

/// How often each happens, of about a hundred.
const MENU: [(What, u64); 23] = [
    (What::Cut, 10),
    (What::OneSided, 6),
    (What::Gray, 6),
    (What::Stall, 4),
    (What::Slow, 3),
    (What::Connect, 14),
    (What::FlapStorm, 3),
    (What::Restart, 10),
    (What::HubRestart, 4),
    (What::Kill, 3),
    (What::Revive, 4),
    (What::Join, 2),
    (What::Leave, 3),
    (What::Partition, 6),
    (What::Heal, 8),
    (What::Stub, 4),
    (What::MoveStub, 2),
    (What::Transit, 3),
    (What::Capabilities, 4),
    (What::Cost, 4),
    (What::Dormant, 1),
    (What::Renew, 2),
    (What::Converge, 8),
];

type Cut = ([NodeId; 2], [u32; 2]);

impl Step {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let most = [0, 5, 50, 500, 5_000][rng.below(5) as usize];
        // Now and then so long that everything was forgotten by default.
        let pause = match rng.below(50) {
            0 => Duration::from_secs(70),
            1 => Duration::from_secs(1_000),
            _ => rng.millis(0, most),
        };
        Self { pause, what: What::draw(rng), draw: rng.next() }
    }

    pub(super) fn play(self, sim: &mut Sim, ways: &Ways, healing: &mut Vec<Cut>) {
        sim.run_for(self.pause);
        sim.note(|| format!("{:?}", self.what));
        let rng = &mut Rng::new(self.draw);
        let living = sim.living();
        let (Some(a), Some(b)) = (rng.pick(&living).cloned(), rng.pick(&living).cloned()) else {
            return;
        };
        let seen = seen(rng);
        match self.what {
            What::Cut => cut(sim, rng, seen),
            What::OneSided => {
                let late = rng.below(10_000);
                cut(sim, rng, Seen::OneSided(late));
            }
            What::Gray => gray(sim, rng),
            What::Stall => {
                let time = rng.millis(10, 5_000);
                with_link(sim, rng, |sim, number| sim.stall(number, time));
            }
            What::Slow => {
                let drain = [None, Some((100, 300)), Some((500, 2_000))][rng.below(3) as usize];
                with_link(sim, rng, |sim, number| sim.slow_down(number, drain));
            }
            What::Connect if a != b => connect(sim, rng, &a, &b),
            What::Connect => {}
            What::FlapStorm => flap(sim, rng),
            What::Restart => restart(sim, rng, &a, seen),
            What::HubRestart => restart(sim, rng, &hub(sim), seen),
            What::Kill if living.len() > 2 => sim.kill(&a, seen),
            What::Leave if living.len() > 2 => sim.leave(&a),
            What::Kill | What::Leave => {}
            What::Revive => revive(sim, rng),
            What::Join => join(sim, rng),
            What::Partition => {
                let far: Vec<_> = living.iter().filter(|_| rng.chance(50)).cloned().collect();
                healing.extend(sim.partition(|node| far.contains(node), seen));
            }
            What::Heal => sim.heal(std::mem::take(healing)),
            What::Stub => stub(sim, rng, &a),
            What::MoveStub => move_stub(sim, rng, &a, &b),
            What::Transit => {
                let (now, transit) = (sim.now, rng.chance(50));
                sim.nodes.get_mut(&a).unwrap().transit = transit;
                sim.command(&a, |router| router.set_transit(transit, now));
            }
            What::Capabilities => {
                let (now, length) = (sim.now, rng.below(20) as usize);
                let text: Vec<u8> = (0..length).map(|_| rng.next() as u8).collect();
                sim.nodes.get_mut(&a).unwrap().capabilities = text.clone();
                sim.command(&a, |router| router.set_capabilities(text.into(), now));
            }
            What::Cost => change_cost(sim, rng),
            What::Dormant => {
                let (now, known) =
                    (sim.now, living.iter().filter(|_| rng.chance(30)).cloned().collect());
                sim.command(&a, |router| router.set_dormant(known, now));
            }
            What::Renew => {
                let (now, notary) = (sim.now, Plain::renewed(&a, rng.below(4) as u32));
                if ways.signed {
                    sim.command(&a, |router| router.set_notary(Arc::new(notary), now));
                }
            }
            What::Converge => {
                // The bound on requests that are open at once is met now and then.
                let _ = sim.converge(&a, [200, 2_000, 20_000][rng.below(3) as usize]);
            }
        }
    }
}

impl What {
    /// Whether messages take longer than usual from now on, without being lost.
    pub(super) fn delays(self) -> bool {
        matches!(self, Self::Stall | Self::Slow)
    }

    fn draw(rng: &mut Rng) -> Self {
        let mut rest = rng.below(MENU.iter().map(|(_, share)| share).sum());
        for (what, share) in MENU {
            match rest.checked_sub(share) {
                Some(left) => rest = left,
                None => return what,
            }
        }
        Self::Cut
    }
}

fn seen(rng: &mut Rng) -> Seen {
    match rng.below(4) {
        0 | 1 => Seen::Now,
        2 => Seen::Within(300),
        _ => Seen::Within(5_000),
    }
}

fn with_link(sim: &mut Sim, rng: &mut Rng, then: impl FnOnce(&mut Sim, u64)) {
    if let Some(&number) = rng.pick(&sim.live()) {
        then(sim, number);
    }
}

fn cut(sim: &mut Sim, rng: &mut Rng, seen: Seen) {
    with_link(sim, rng, |sim, number| {
        let [a, b] = sim.connections[&number].ends.clone();
        sim.cut(&a, &b, seen);
    });
}

fn gray(sim: &mut Sim, rng: &mut Rng) {
    let ends = [[true, true], [true, false], [false, true]][rng.below(3) as usize];
    let (after, seen) = (rng.millis(0, 5_000), seen(rng));
    with_link(sim, rng, |sim, number| sim.swallow(number, ends, after, seen));
}

fn cost(rng: &mut Rng) -> u32 {
    1 + rng.below(4) as u32
}

fn connect(sim: &mut Sim, rng: &mut Rng, a: &NodeId, b: &NodeId) {
    sim.connect_cost(a.as_str(), b.as_str(), cost(rng), cost(rng));
}

fn flap(sim: &mut Sim, rng: &mut Rng) {
    let Some(&number) = rng.pick(&sim.live()) else { return };
    let ([a, b], costs) = (sim.connections[&number].ends.clone(), sim.connections[&number].costs);
    for _ in 0..2 + rng.below(8) {
        let seen = seen(rng);
        sim.cut(&a, &b, seen);
        sim.run_for(rng.millis(0, 200));
        sim.connect_cost(a.as_str(), b.as_str(), costs[0], costs[1]);
        sim.run_for(rng.millis(0, 200));
    }
}

fn restart(sim: &mut Sim, rng: &mut Rng, node: &NodeId, seen: Seen) {
    let epoch = epoch(rng);
    sim.restart_with(node, epoch, seen);
}

fn epoch(rng: &mut Rng) -> Epoch {
    const YEAR: i64 = 365 * 24 * 3_600_000;
    match rng.below(8) {
        0 => Epoch::Same,
        1 => Epoch::Persisted(0),
        2 => Epoch::Persisted(-3_600_000),
        3 => Epoch::Clock(-3_600_000),
        4 => Epoch::Clock([-10, 10][rng.below(2) as usize] * YEAR),
        5 => Epoch::Clock(0),
        _ => Epoch::Clock(rng.below(120_001) as i64 - 60_000),
    }
}

fn hub(sim: &Sim) -> NodeId {
    let links = |node: &NodeId| {
        sim.live().iter().filter(|n| sim.connections[n].ends.contains(node)).count()
    };
    sim.living().into_iter().max_by_key(links).unwrap()
}

fn revive(sim: &mut Sim, rng: &mut Rng) {
    let dead: Vec<NodeId> =
        sim.nodes.iter().filter(|(_, node)| !node.alive).map(|(id, _)| id.clone()).collect();
    let Some(name) = rng.pick(&dead).cloned() else { return };
    let living = sim.living();
    sim.boot_with(name.as_str(), epoch(rng));
    for _ in 0..1 + rng.below(3) {
        let other = rng.pick(&living).cloned().unwrap();
        connect(sim, rng, &name, &other);
    }
}

fn join(sim: &mut Sim, rng: &mut Rng) {
    let living = sim.living();
    let name = format!("j{:02}", sim.nodes.len());
    sim.boot_with(&name, epoch(rng));
    for _ in 0..1 + rng.below(3) {
        let other = rng.pick(&living).cloned().unwrap();
        connect(sim, rng, &id(&name), &other);
    }
}

fn some_stub(rng: &mut Rng) -> NodeId {
    id(&format!("s{}", rng.below(4)))
}

fn stub(sim: &mut Sim, rng: &mut Rng, a: &NodeId) {
    let stub = some_stub(rng);
    match sim.nodes[a].stubs.contains_key(&stub) {
        true => sim.detach(a, &stub),
        false => sim.attach(a, stub, Cost::try_from(cost(rng)).unwrap()),
    }
}

fn move_stub(sim: &mut Sim, rng: &mut Rng, a: &NodeId, b: &NodeId) {
    let (stub, cost) = (some_stub(rng), Cost::try_from(cost(rng)).unwrap());
    if rng.chance(50) {
        sim.detach(a, &stub);
        sim.attach(b, stub, cost);
    } else {
        sim.attach(b, stub.clone(), cost);
        if a != b {
            sim.detach(a, &stub);
        }
    }
}

fn change_cost(sim: &mut Sim, rng: &mut Rng) {
    let (end, cost) = (rng.below(2) as usize, 1 + rng.below(9) as u32);
    with_link(sim, rng, |sim, number| {
        let now = sim.now;
        let connection = sim.connections.get_mut(&number).unwrap();
        connection.costs[end] = cost;
        let ends = connection.ends.clone();
        sim.command(&ends[end], |router| {
            router.set_cost(&ends[1 - end], Cost::try_from(cost).unwrap(), now);
        });
    });
}
