//! The handle to a virtual network: binding, link quality, faults, counters.

use super::{
    counters::NetCounters,
    fabric::Fabric,
    pump,
    quality::LinkQuality,
    spot::{Realm, Spot},
};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::time::Instant;

/// A virtual network, cheap to clone: all clones and all sockets are of the same network.
///
/// An IP address is a host; quality and faults are those between two hosts, whatever the ports, and
/// sockets of one host share a link from the host to itself. IPv4-mapped IPv6 addresses mean the
/// IPv4 ones, everywhere.
///
/// A host is on the Internet, or behind a [`Nat`](super::Nat), where it has an address that holds
/// only there. Addresses in the calls below are those of the Internet: a host behind a NAT stands
/// there with the NAT's.
///
/// Changes of quality apply to what is sent later; faults also to what is on its way. Both may be
/// set before anything is bound there, and stay when the socket is gone, so that a restarted host
/// finds the network as it was.
///
/// Use it from within the tokio runtime whose clock counts. No call blocks or waits.
#[derive(Clone)]
pub struct Network {
    seed: u64,
    fabric: Arc<Mutex<Fabric>>,
}

impl Network {
    /// A network without sockets, all links of [default quality](LinkQuality::default). The seed
    /// decides every random loss and delay, in order of sending.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, fabric: Arc::new(Mutex::new(Fabric::new(seed))) }
    }

    /// The seed it was made from, for a failing test to print.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Sets the quality of all links of the Internet that have none of their own. See
    /// [`Nat::set_lan`](super::Nat::set_lan) for the others.
    pub fn set_default(&self, quality: LinkQuality) {
        self.fabric().wires.set_default(Realm::INTERNET, quality);
    }

    /// Puts an access link between a host and all others: what it sends passes the access link,
    /// then the link to the other host, then the other's access link if that has one. Each
    /// direction has all of the quality to itself, and everything that goes that way shares it.
    pub fn set_access(&self, host: IpAddr, quality: LinkQuality) {
        self.fabric().wires.set_access(internet(host), quality, quality);
    }

    /// Sets the quality between two hosts, each direction having all of it to itself.
    pub fn set_link(&self, a: IpAddr, b: IpAddr, quality: LinkQuality) {
        self.set_link_one_way(a, b, quality);
        self.set_link_one_way(b, a, quality);
    }

    /// Sets the quality from one host to another, and leaves the way back as it is.
    pub fn set_link_one_way(&self, from: IpAddr, to: IpAddr, quality: LinkQuality) {
        self.fabric().wires.set_quality(internet(from), internet(to), quality);
    }

    /// Cuts every host of `a` from every host of `b`, both ways. Within each side nothing changes,
    /// and a host on both sides is cut from itself too.
    pub fn partition(&self, a: &[IpAddr], b: &[IpAddr]) {
        let pairs = a.iter().flat_map(|a| b.iter().flat_map(|b| [(*a, *b), (*b, *a)]));
        self.cut_all(pairs);
    }

    /// Cuts two hosts from each other. Datagrams between them vanish, those on their way included.
    pub fn cut(&self, a: IpAddr, b: IpAddr) {
        self.cut_all([(a, b), (b, a)]);
    }

    /// Lets nothing through from one host to another; the way back stays as it is.
    pub fn cut_one_way(&self, from: IpAddr, to: IpAddr) {
        self.cut_all([(from, to)]);
    }

    /// Loses the datagrams from one host to another for which `loses` returns true: a rule by
    /// contents, such as a relay that forwards nothing while its links are up, or a path that loses
    /// what is long. One rule per direction; a later one replaces it. Counted as
    /// [`NetCounters::lost`].
    pub fn lose_where(
        &self,
        from: IpAddr,
        to: IpAddr,
        loses: impl FnMut(&[u8]) -> bool + Send + 'static,
    ) {
        self.fabric().sieve.set(internet(from), internet(to), Some(Box::new(loses)));
    }

    /// Removes the rule of [`lose_where`](Self::lose_where) between two hosts, in both directions.
    pub fn lose_nothing(&self, a: IpAddr, b: IpAddr) {
        let (a, b) = (internet(a), internet(b));
        let mut fabric = self.fabric();
        fabric.sieve.set(a, b, None);
        fabric.sieve.set(b, a, None);
    }

    /// Isolates a host silently: nothing from it or to it arrives. To its peers this looks like a
    /// crash, a pulled plug or a suspended machine. Its sockets stay bound.
    pub fn isolate(&self, host: IpAddr) {
        let mut fabric = self.fabric();
        fabric.cuts.isolate(internet(host));
        fabric.intercept(Instant::now());
    }

    /// Undoes [`isolate`](Self::isolate). Cuts stay.
    pub fn rejoin(&self, host: IpAddr) {
        self.fabric().cuts.rejoin(internet(host));
    }

    /// Undoes cuts between two hosts, in both directions and however they were made. Isolated hosts
    /// stay so.
    pub fn restore(&self, a: IpAddr, b: IpAddr) {
        let (a, b) = (internet(a), internet(b));
        let mut fabric = self.fabric();
        fabric.cuts.restore(a, b);
        fabric.cuts.restore(b, a);
    }

    /// Undoes every cut, partition and isolation.
    pub fn heal(&self) {
        self.fabric().cuts = crate::testing::delivery::cuts::Cuts::default();
    }

    /// Moves a socket to another address, as a NAT does that forgets its mapping: the socket keeps
    /// working and does not notice; others see its datagrams come from the new address, which is
    /// returned (port 0 takes a free one), and those sent to the old one go nowhere. If the IP
    /// address changes, the links are those of the new host.
    ///
    /// # Errors
    ///
    /// Both are the caller's fault, and nothing has changed:
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) if nothing is bound at `old`, or `new`
    /// is unspecified; [`AddrInUse`](io::ErrorKind::AddrInUse) if `new` is taken.
    pub fn rebind(&self, old: SocketAddr, new: SocketAddr) -> io::Result<SocketAddr> {
        let mut fabric = self.fabric();
        let socket = fabric
            .socket_at(Realm::INTERNET.endpoint(old))
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        fabric.move_to(socket, Realm::INTERNET.endpoint(new), Instant::now())
    }

    /// What became of all datagrams so far.
    #[must_use]
    pub fn counters(&self) -> NetCounters {
        self.fabric().counters(Instant::now())
    }

    /// Starts the task in which NATs decide about datagrams that reach them.
    pub(super) fn start_pump(&self) {
        pump::start(&self.fabric);
    }

    pub(super) fn fabric(&self) -> MutexGuard<'_, Fabric> {
        self.fabric.lock().expect("no holder of this lock panics")
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fabric, &other.fabric)
    }

    fn cut_all(&self, pairs: impl IntoIterator<Item = (IpAddr, IpAddr)>) {
        let mut fabric = self.fabric();
        for (from, to) in pairs {
            fabric.cuts.cut(internet(from), internet(to));
        }
        fabric.intercept(Instant::now());
    }
}

pub(super) fn internet(host: IpAddr) -> Spot {
    Realm::INTERNET.spot(host)
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("seed", &self.seed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::VirtualSocket;
    use crate::testing::socket::HOST_PORT;
    use quinn::{
        AsyncUdpSocket,
        udp::{EcnCodepoint, RecvMeta, Transmit},
    };
    use std::{io::IoSliceMut, time::Duration};

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_datagram_arrives_after_the_latency_with_its_source_and_ecn() {
        let network = Network::new(0);
        let (a, b) = (network.bind_host(), network.bind_host());
        let start = Instant::now();
        send(&a, b.address(), b"hello", None);
        let received = recv(&b).await;
        assert_eq!(start.elapsed(), MS);
        assert_eq!(received, [(a.address(), b"hello".to_vec(), Some(EcnCodepoint::Ect0))]);
        let counters = network.counters();
        assert_eq!((counters.sent, counters.delivered, counters.bytes), (1, 1, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_segmented_transmit_arrives_as_datagrams() {
        let network = Network::new(0);
        let (a, b) = (network.bind_host(), network.bind_host());
        send(&a, b.address(), b"aaabbbc", Some(3));
        let contents: Vec<_> = recv(&b).await.into_iter().map(|received| received.1).collect();
        assert_eq!(contents, [b"aaa".to_vec(), b"bbb".to_vec(), b"c".to_vec()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mapped_destination_reaches_the_ipv4_socket() {
        let network = Network::new(0);
        let (a, b) = (network.bind_host(), network.bind_host());
        let IpAddr::V4(host) = b.address().ip() else { panic!("hosts are IPv4") };
        send(&a, SocketAddr::new(host.to_ipv6_mapped().into(), HOST_PORT), b"hello", None);
        assert_eq!(recv(&b).await[0].0, a.address());
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_arrival_wakes_a_receiver_that_sleeps_for_a_later_one() {
        let network = Network::new(0);
        let (far, near, receiver) = (network.bind_host(), network.bind_host(), network.bind_host());
        let slow = LinkQuality { latency: 100 * MS, ..LinkQuality::default() };
        network.set_link(far.address().ip(), receiver.address().ip(), slow);
        let start = Instant::now();
        let address = receiver.address();
        let receiving =
            tokio::spawn(
                async move { (recv(&receiver).await, Instant::now(), recv(&receiver).await) },
            );
        send(&far, address, b"late", None);
        tokio::time::sleep(10 * MS).await;
        send(&near, address, b"early", None);
        let (early, at, late) = receiving.await.unwrap();
        assert_eq!((early[0].1.as_slice(), late[0].1.as_slice()), (&b"early"[..], &b"late"[..]));
        assert_eq!((at - start, start.elapsed()), (11 * MS, 100 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_can_send_to_itself_without_latency() {
        let network = Network::new(0);
        network.set_default(LinkQuality { latency: Duration::ZERO, ..LinkQuality::default() });
        let socket = network.bind_host();
        let start = Instant::now();
        send(&socket, socket.address(), b"echo", None);
        assert_eq!(recv(&socket).await[0].1, b"echo");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_taken_until_the_socket_is_dropped() {
        let network = Network::new(0);
        let first = network.bind("[::ffff:10.0.0.1]:7400".parse().unwrap()).unwrap();
        assert_eq!(first.address(), "10.0.0.1:7400".parse().unwrap());
        let taken = network.bind(first.address()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let wildcard = network.bind("[::]:1".parse().unwrap()).unwrap_err();
        assert_eq!(wildcard.kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(network.bind_host().address(), "10.0.0.2:7400".parse().unwrap());
        let any_port = "10.0.0.1:0".parse().unwrap();
        let (one, two) = (network.bind(any_port).unwrap(), network.bind(any_port).unwrap());
        assert_eq!((one.address().port(), two.address().port()), (49_152, 49_153));
        let address = first.address();
        drop(first);
        assert_eq!(network.bind(address).unwrap().address(), address);
    }

    #[tokio::test(start_paused = true)]
    async fn every_drop_is_counted_by_its_reason() {
        let network = Network::new(0);
        let (a, b) = (network.bind_host(), network.bind_host());
        let (here, there) = (a.address().ip(), b.address().ip());
        let lossy = LinkQuality { loss: 1.0, ..LinkQuality::default() };

        send(&a, "10.9.9.9:1".parse().unwrap(), b"nobody", None);
        send(&a, b.address(), &[0; LinkQuality::ETHERNET_MTU + 1], None);
        send(&a, b.address(), b"on its way when the cut comes", None);
        network.cut(here, there);
        send(&a, b.address(), b"cut", None);
        network.restore(here, there);
        network.isolate(there);
        send(&a, b.address(), b"isolated", None);
        network.rejoin(there);
        network.set_link_one_way(here, there, lossy);
        send(&a, b.address(), b"lost", None);
        send(&b, a.address(), b"the way back", None);
        let expected = NetCounters {
            sent: 7,
            in_flight: 1,
            unreachable: 1,
            oversized: 1,
            dropped_partitioned: 3,
            lost: 1,
            ..NetCounters::default()
        };
        assert_eq!(network.counters(), expected);

        drop(a);
        let expected = NetCounters { in_flight: 0, unreachable: 2, ..expected };
        assert_eq!(network.counters(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_splits_sides_and_heals() {
        let network = Network::new(0);
        let sockets = [network.bind_host(), network.bind_host(), network.bind_host()];
        let [a, b, c] = sockets.each_ref().map(|socket| socket.address().ip());
        network.partition(&[a, b], &[c]);
        send(&sockets[0], sockets[2].address(), b"across", None);
        send(&sockets[2], sockets[1].address(), b"back", None);
        send(&sockets[0], sockets[1].address(), b"within", None);
        assert_eq!(recv(&sockets[1]).await[0].1, b"within");
        assert_eq!(network.counters().dropped_partitioned, 2);
        network.heal();
        send(&sockets[0], sockets[2].address(), b"again", None);
        assert_eq!(recv(&sockets[2]).await[0].1, b"again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rebound_socket_is_heard_from_and_reached_at_its_new_address() {
        let network = Network::new(0);
        let (a, b) = (network.bind_host(), network.bind_host());
        let old = a.address();
        let new = network.rebind(old, "10.7.7.7:0".parse().unwrap()).unwrap();
        assert_eq!((a.address(), a.local_addr().unwrap()), (new, old));
        send(&a, b.address(), b"hello", None);
        assert_eq!(recv(&b).await[0].0, new);
        send(&b, new, b"answer", None);
        assert_eq!(recv(&a).await[0].1, b"answer");
        send(&b, old, b"too late", None);
        assert_eq!(network.counters().unreachable, 1);
        assert_eq!(network.rebind(old, new).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(network.rebind(new, b.address()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unread_socket_drops_what_its_buffer_cannot_hold() {
        let network = Network::new(0);
        let (a, b) = (network.bind_host(), network.bind_host());
        let (len, extra) = (1_024, 10_u64);
        let fits = (4 << 20) / len as u64;
        for _ in 0..fits + extra {
            send(&a, b.address(), &vec![0; len], None);
        }
        tokio::time::sleep(2 * MS).await;
        let counters = network.counters();
        assert_eq!((counters.delivered, counters.dropped_unread), (fits, extra));
    }

    type Received = (SocketAddr, Vec<u8>, Option<EcnCodepoint>);

    fn send(
        socket: &VirtualSocket,
        destination: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) {
        let ecn = Some(EcnCodepoint::Ect0);
        socket
            .try_send(&Transmit { destination, ecn, contents, segment_size, src_ip: None })
            .unwrap();
    }

    async fn recv(socket: &VirtualSocket) -> Vec<Received> {
        let mut buffers = vec![vec![0; 2_000]; 4];
        let mut meta = [RecvMeta::default(); 4];
        let received = std::future::poll_fn(|cx| {
            let mut slices: Vec<_> =
                buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            socket.poll_recv(cx, &mut slices, &mut meta)
        });
        let received = received.await.unwrap();
        let all = meta.iter().zip(&buffers).take(received);
        all.map(|(meta, buffer)| (meta.addr, buffer[..meta.len].to_vec(), meta.ecn)).collect()
    }
}
