//! A mesh of regular random links, and one router in it whose neighbours are played by hand.

use std::time::{Duration, Instant};

use receptor_quic::id::Version;
use receptor_quic::router::{
    Config, Digest, Draft, Link, LinkClass, Message, NeighbourKind, Record, Router, SessionUp,
};
use receptor_quic::{Cost, NodeId};

/// Links of each node.
pub(crate) const DEGREE: usize = 8;

/// The name of a node: twenty bytes, as a host name has.
pub(crate) fn id(n: usize) -> NodeId {
    NodeId::try_from(format!("node-{n:06}.mesh.test")).expect("it is a name")
}

/// What the links of a mesh cost.
#[derive(Clone, Copy)]
pub(crate) enum Costs {
    /// All the same, so that many paths are of equal cost.
    Default,
    /// Drawn between 1 and 1,000, so that hardly any are.
    Drawn,
}

/// Who is linked to whom: the union of random rings through all nodes, so all have [`DEGREE`] links
/// but for the few that two rings share.
pub(crate) struct Mesh {
    /// Peers and costs, ascending by peer.
    links: Vec<Vec<(usize, u32)>>,
}

impl Mesh {
    pub(crate) fn new(nodes: usize, costs: Costs) -> Self {
        let mut random = Random(nodes as u64);
        let mut links = vec![Vec::new(); nodes];
        for _ in 0..DEGREE / 2 {
            let mut ring: Vec<usize> = (0..nodes).collect();
            for at in (1..nodes).rev() {
                ring.swap(at, random.below(at + 1));
            }
            for (at, &from) in ring.iter().enumerate() {
                let to = ring[(at + 1) % nodes];
                let cost = match costs {
                    Costs::Default => Cost::DEFAULT.get(),
                    Costs::Drawn => random.below(1_000) as u32 + 1,
                };
                links[from].push((to, cost));
                links[to].push((from, cost));
            }
        }
        for links in &mut links {
            links.sort_unstable();
            links.dedup_by_key(|link| link.0);
        }
        Self { links }
    }

    pub(crate) fn nodes(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn neighbours(&self, of: usize) -> impl Iterator<Item = usize> {
        self.links[of].iter().map(|link| link.0)
    }

    /// What a node says of itself under this sequence, at `dearer` for its first link than
    /// otherwise.
    pub(crate) fn draft(&self, of: usize, sequence: u64, dearer: u32) -> Draft {
        let mut draft = Draft::new(id(of), Version { epoch: 1, sequence, instance: of as u64 });
        let links = self.links[of].iter().enumerate().map(|(at, &(to, cost))| Link {
            peer: id(to),
            class: LinkClass::Active,
            cost: Cost::try_from(cost + if at == 0 { dearer } else { 0 }).expect("it is not 0"),
        });
        draft.links = links.collect();
        draft
    }

    /// The same as it comes over a link: the frame of an UPDATE.
    pub(crate) fn frame(&self, of: usize, sequence: u64) -> Vec<u8> {
        update(self.draft(of, sequence, 0))
    }

    /// A record that differs from others of its node in the capabilities alone, which costs no
    /// paths.
    pub(crate) fn changed(&self, of: usize, sequence: u64) -> Vec<u8> {
        let mut draft = self.draft(of, sequence, 0);
        draft.capabilities = sequence.to_be_bytes().to_vec().into();
        update(draft)
    }
}

/// The frame of an UPDATE.
pub(crate) fn update(draft: Draft) -> Vec<u8> {
    Message::Update(sealed(draft).advertisement().clone()).encode()
}

pub(crate) fn sealed(draft: Draft) -> Record {
    draft.seal().expect("it keeps the rules of the format")
}

/// Node 0 of a mesh, at a virtual time. Its neighbours take all that it says, and answer nothing.
pub(crate) struct Bench {
    pub(crate) router: Router,
    pub(crate) now: Instant,
    neighbours: Vec<NodeId>,
}

impl Bench {
    /// Without sessions and records. Comparisons at rest are put off for good, so that they do not
    /// fall into a measure.
    pub(crate) fn alone(node: usize) -> Self {
        const NEVER: Duration = Duration::from_secs(1 << 30);
        let mut config = Config::new(id(node), 1, node as u64, node as u64);
        config.limits.origins = 200_000;
        config.timers.quiet = NEVER;
        config.timers.quiet_max = NEVER;
        config.timers.audit = NEVER;
        #[expect(clippy::disallowed_methods, reason = "virtual time needs some first instant")]
        let now = Instant::now();
        Self { router: Router::new(config, now), now, neighbours: Vec::new() }
    }

    /// Linked to all its neighbours, with the records of all nodes, and with a table.
    pub(crate) fn linked(mesh: &Mesh) -> Self {
        let mut bench = Self::alone(0);
        let neighbours: Vec<usize> = mesh.neighbours(0).collect();
        bench.fill(neighbours[0], (1..mesh.nodes()).map(|n| mesh.frame(n, 1)));
        bench.hear(neighbours[0], Message::SyncEnd);
        for &neighbour in &neighbours[1..] {
            bench.session(neighbour);
            bench.hear(neighbour, Message::SyncEnd);
        }
        bench.neighbours = neighbours.into_iter().map(id).collect();
        bench.rest();
        assert_eq!(bench.router.table().len(), mesh.nodes() - 1, "all nodes are reached");
        bench
    }

    /// Takes these records from a neighbour with which the sync has only begun.
    pub(crate) fn fill(&mut self, from: usize, records: impl Iterator<Item = Vec<u8>>) {
        self.session(from);
        for frame in records {
            self.hear(from, decode(&frame));
        }
    }

    /// A session whose databases are equal.
    fn session(&mut self, with: usize) {
        let (neighbour, kind) = (id(with), NeighbourKind::Full);
        let up = SessionUp {
            neighbour: neighbour.clone(),
            instance: with as u64,
            cost: Cost::DEFAULT,
            kind,
        };
        self.router.handle_session_up(up, self.now).expect("there is room");
        let mut digest = Message::Digest { digest: Digest::default(), count: 0 };
        while let Some(transmit) = self.router.poll_transmit() {
            if transmit.to == neighbour && matches!(transmit.message, Message::Digest { .. }) {
                digest = transmit.message;
            }
        }
        self.hear(with, digest);
    }

    fn hear(&mut self, from: usize, message: Message) {
        let from = id(from);
        self.router.handle_message(&from, message, self.now).expect("it keeps the protocol");
        while self.router.poll_transmit().is_some() {}
        while self.router.poll_event().is_some() {}
        self.router.handle_writable(&from, self.now);
    }

    /// Does all that is due, until nothing is for a second.
    fn rest(&mut self) {
        for _ in 0..1_000_000 {
            let Some(due) = self.router.poll_timeout() else { break };
            if due.at > self.now + Duration::from_secs(60) {
                break;
            }
            self.now = self.now.max(due.at);
            self.router.handle_timeout(self.now);
            self.drain(|_| {});
        }
    }

    /// Gives all that the router says to `sent`.
    fn drain(&mut self, mut sent: impl FnMut(Message)) {
        loop {
            let mut any = false;
            while let Some(transmit) = self.router.poll_transmit() {
                any = true;
                sent(transmit.message);
            }
            while self.router.poll_event().is_some() {}
            if !any {
                return;
            }
            for neighbour in &self.neighbours {
                self.router.handle_writable(neighbour, self.now);
            }
        }
    }

    /// Takes a frame from the first neighbour, as a program does with the bytes from its stream:
    /// decodes it, handles it, and encodes what goes to the others, the ids that are announced a
    /// moment later among it. Returns the bytes sent.
    pub(crate) fn take(&mut self, frame: &[u8]) -> usize {
        let mut bytes = 0;
        let message = decode(frame);
        self.router
            .handle_message(&self.neighbours[0], message, self.now)
            .expect("it keeps the protocol");
        self.drain(|message| bytes += message.encode().len());
        self.now += Duration::from_millis(50);
        self.router.handle_timeout(self.now);
        self.drain(|message| bytes += message.encode().len());
        bytes
    }

    /// The same for a frame to which nothing is to be said.
    pub(crate) fn take_duplicate(&mut self, frame: &[u8]) {
        let message = decode(frame);
        self.router
            .handle_message(&self.neighbours[0], message, self.now)
            .expect("it keeps the protocol");
        self.drain(|_| {});
    }

    /// Makes paths wanted, by a link that becomes dearer and cheaper again by turns;
    /// [`find`](Self::find) computes them.
    pub(crate) fn change_cost(&mut self, mesh: &Mesh, sequence: u64) {
        let of = mesh.nodes() / 2;
        self.now += Duration::from_secs(10);
        // The first change is computed at once, the second one has to wait.
        for (sequence, dearer) in [(2 * sequence, 1), (2 * sequence + 1, 2)] {
            let frame = update(mesh.draft(of, sequence, dearer));
            self.router
                .handle_message(&self.neighbours[0], decode(&frame), self.now)
                .expect("it keeps the protocol");
            self.drain(|_| {});
        }
    }

    /// Computes the paths and the table, and nothing else.
    pub(crate) fn find(&mut self) {
        self.now += Duration::from_secs(1);
        self.router.handle_timeout(self.now);
    }
}

pub(crate) fn decode(frame: &[u8]) -> Message {
    Message::decode(frame).expect("it was encoded").expect("its type is known")
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
