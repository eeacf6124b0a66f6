//! NATs under sockets: what passes them, and when.

use super::{
    Blocked, LinkQuality, Mapping, Nat, NatBehaviour, NatKind, NetCounters, Network, VirtualSocket,
};
use quinn::{
    AsyncUdpSocket,
    udp::{RecvMeta, Transmit},
};
use std::{io::IoSliceMut, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_host_behind_a_nat_reaches_the_internet_and_is_answered() {
    for kind in NatKind::ALL {
        let network = Network::new(1);
        let (relay, nat) = (network.bind_host(), network.nat(kind));
        let host = nat.host();
        let start = Instant::now();
        send(&host, relay.address(), b"hello");
        let (seen, text) = recv(&relay).await;
        assert_eq!(
            (seen.ip(), text.as_slice(), start.elapsed()),
            (nat.address(), &b"hello"[..], 2 * MS)
        );
        assert_eq!(seen.port() == host.address().port(), kind != NatKind::Symmetric, "{kind:?}");
        send(&relay, seen, b"welcome");
        assert_eq!(recv(&host).await, (relay.address(), b"welcome".to_vec()));
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_are_let_in_as_the_filter_says() {
    for (kind, stranger_passes, other_port_passes) in [
        (NatKind::FullCone, true, true),
        (NatKind::AddressRestricted, false, true),
        (NatKind::PortRestricted, false, false),
        (NatKind::Symmetric, false, false),
    ] {
        let network = Network::new(1);
        let (relay, stranger) = (network.bind_host(), network.bind_host());
        let other_port = network.bind(SocketAddr::new(relay.address().ip(), 1)).unwrap();
        let host = network.nat(kind).host();
        send(&host, relay.address(), b"hello");
        let (seen, _) = recv(&relay).await;
        for (socket, passes) in [(&stranger, stranger_passes), (&other_port, other_port_passes)] {
            let before = network.counters();
            send(socket, seen, b"knock");
            tokio::time::sleep(10 * MS).await;
            let after = network.counters();
            assert_eq!(after.delivered > before.delivered, passes, "{kind:?}");
            assert_eq!(after.filtered > before.filtered, !passes, "{kind:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_nat_decides_when_a_datagram_reaches_it() {
    let (network, [a, b]) = two_homes(NatKind::PortRestricted);
    network.set_default(LinkQuality { latency: 50 * MS, ..LinkQuality::default() });
    let (at_a, at_b) = (seen(&network, &a).await, seen(&network, &b).await);
    send(&a, at_b, b"from a");
    tokio::time::sleep(40 * MS).await;
    send(&b, at_a, b"from b");
    assert_eq!(recv(&b).await.1, b"from a", "b has sent before a's datagram came");
    assert_eq!(recv(&a).await.1, b"from b");
}

#[tokio::test(start_paused = true)]
async fn hosts_with_the_same_private_address_are_told_apart() {
    let (network, [a, b]) = two_homes(NatKind::FullCone);
    assert_eq!(a.address(), b.address());
    let at_b = seen(&network, &b).await;
    send(&a, at_b, b"to b");
    assert_eq!(recv(&b).await.1, b"to b");
    // At home, the address is its own.
    send(&a, b.address(), b"to itself");
    assert_eq!(recv(&a).await.1, b"to itself");
}

#[tokio::test(start_paused = true)]
async fn neighbours_behind_a_nat_reach_each_other_at_home_and_by_hairpin_if_there_is_one() {
    for hairpin in [false, true] {
        let network = Network::new(1);
        let nat = network.nat(NatBehaviour { hairpin, ..NatKind::FullCone.into() });
        let (a, b) = (nat.host(), nat.host());
        send(&a, b.address(), b"at home");
        assert_eq!(recv(&b).await, (a.address(), b"at home".to_vec()));
        let at_b = seen(&network, &b).await;
        send(&a, at_b, b"around");
        tokio::time::sleep(10 * MS).await;
        assert_eq!(network.counters().filtered, u64::from(!hairpin));
        if hairpin {
            assert_eq!(recv(&b).await.0.ip(), nat.address());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_nats_in_a_row_translate_twice() {
    let network = Network::new(1);
    let carrier = network.nat(NatKind::PortRestricted);
    let home = carrier.nat(NatKind::PortRestricted);
    assert_eq!(home.address(), "100.64.0.1".parse::<std::net::IpAddr>().unwrap());
    let (relay, host) = (network.bind_host(), home.host());
    send(&host, relay.address(), b"hello");
    let (seen, _) = recv(&relay).await;
    assert_eq!(seen.ip(), carrier.address());
    send(&relay, seen, b"welcome");
    assert_eq!(recv(&host).await.1, b"welcome");
    assert_eq!((carrier.mappings(), home.mappings()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_firewall_lets_answers_in_and_nobody_else() {
    let network = Network::new(1);
    let (here, there) = (network.firewall().host(), network.firewall().host());
    send(&there, here.address(), b"knock");
    tokio::time::sleep(10 * MS).await;
    assert_eq!(network.counters().filtered, 1);
    send(&here, there.address(), b"knock");
    tokio::time::sleep(10 * MS).await;
    assert_eq!(network.counters().filtered, 1, "the other has sent before");
    send(&there, here.address(), b"come in");
    assert_eq!(recv(&here).await, (there.address(), b"come in".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn mappings_end_with_their_lifetime_a_flush_and_a_new_address() {
    let network = Network::new(1);
    let behaviour = NatBehaviour { lifetime: Duration::from_secs(5), ..NatKind::Symmetric.into() };
    let (relay, nat) = (network.bind_host(), network.nat(behaviour));
    let host = nat.host();
    let mut ports = Vec::new();
    let endings: [&dyn Fn(&Nat); 3] = [&|_| {}, &Nat::flush, &|nat| _ = nat.renumber()];
    for end in endings {
        send(&host, relay.address(), b"hello");
        let (seen, _) = recv(&relay).await;
        assert_eq!(seen.ip(), nat.address());
        ports.push(seen.port());
        end(&nat);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = network.counters();
        send(&relay, seen, b"too late");
        tokio::time::sleep(10 * MS).await;
        let after = network.counters();
        assert_eq!(after.delivered, before.delivered);
    }
    ports.dedup();
    assert_eq!(ports.len(), 3, "each time another port");
}

#[tokio::test(start_paused = true)]
async fn a_blocked_direction_lets_nothing_through() {
    let network = Network::new(1);
    let (relay, nat) = (network.bind_host(), network.nat(NatKind::FullCone));
    let host = nat.host();
    nat.block(Blocked::Outbound);
    send(&host, relay.address(), b"out");
    tokio::time::sleep(10 * MS).await;
    nat.block(Blocked::Inbound);
    send(&host, relay.address(), b"hello");
    let (seen, _) = recv(&relay).await;
    send(&relay, seen, b"in");
    tokio::time::sleep(10 * MS).await;
    nat.block(None);
    send(&relay, seen, b"again");
    assert_eq!(recv(&host).await.1, b"again");
    assert_eq!(network.counters().filtered, 2);
}

#[tokio::test(start_paused = true)]
async fn access_links_add_up_and_follow_a_new_address() {
    let (network, [a, b]) = two_homes(NatKind::FullCone);
    let (at_a, at_b) = (seen(&network, &a).await, seen(&network, &b).await);
    network.set_access(at_a.ip(), LinkQuality { latency: 20 * MS, ..LinkQuality::default() });
    network.set_access(at_b.ip(), LinkQuality { latency: 30 * MS, ..LinkQuality::default() });
    let start = Instant::now();
    send(&a, at_b, b"hello");
    recv(&b).await;
    assert_eq!(start.elapsed(), 53 * MS);

    let nat = network.nat(NatKind::FullCone);
    nat.set_access(LinkQuality { loss: 1.0, ..LinkQuality::default() });
    let lossy = nat.host();
    nat.renumber();
    send(&lossy, at_b, b"lost");
    tokio::time::sleep(10 * MS).await;
    assert_eq!(network.counters().lost, 1);
}

#[tokio::test(start_paused = true)]
async fn a_roaming_host_has_its_new_address_and_knows() {
    let network = Network::new(1);
    let (relay, wifi, mobile) =
        (network.bind_host(), network.nat(NatKind::FullCone), network.nat(NatKind::Symmetric));
    let phone = wifi.host();
    let mut interface = phone.interface();
    let at_wifi = seen(&network, &phone).await;
    phone.unplug();
    assert_eq!(*interface.borrow_and_update(), None);
    send(&phone, relay.address(), b"nobody hears");
    phone.plug();
    let new = phone.roam(&mobile).unwrap();
    assert!(interface.has_changed().unwrap());
    assert_eq!(*interface.borrow_and_update(), Some(new));
    send(&relay, at_wifi, b"too late");
    send(&phone, relay.address(), b"here");
    assert_eq!(recv(&relay).await.0.ip(), mobile.address());
    let new = phone.roam(SocketAddr::new("203.0.113.9".parse().unwrap(), 0)).unwrap();
    assert_eq!((phone.address(), new.port()), (new, 7400));
    send(&phone, relay.address(), b"and here");
    assert_eq!(recv(&relay).await.0, new);
    let expected = NetCounters {
        sent: 5,
        delivered: 3,
        dropped_partitioned: 1,
        unreachable: 1,
        bytes: network.counters().bytes,
        ..NetCounters::default()
    };
    tokio::time::sleep(10 * MS).await;
    assert_eq!(network.counters(), expected);
}

#[tokio::test(start_paused = true)]
async fn every_datagram_is_accounted_for_behind_lossy_nats() {
    let network = Network::new(3);
    let behaviour = NatBehaviour { mapping: Mapping::AddressDependent, ..NatBehaviour::default() };
    let (relay, nat) = (network.bind_host(), network.nat(behaviour));
    nat.set_access(LinkQuality {
        loss: 0.3,
        jitter: 20 * MS,
        reorder: true,
        ..LinkQuality::default()
    });
    let host = nat.host();
    for _ in 0..100 {
        send(&host, relay.address(), b"x");
        send(&relay, SocketAddr::new(nat.address(), 7400), b"y");
        tokio::time::sleep(MS).await;
    }
    let c = network.counters();
    assert!(c.in_flight > 0 && c.lost > 0 && c.delivered > 0, "{c:?}");
    assert_eq!(c.sent, c.delivered + c.in_flight + c.lost + c.filtered + c.unreachable, "{c:?}");
}

#[tokio::test(start_paused = true)]
async fn the_task_of_the_nats_ends_with_the_network() {
    let network = Network::new(1);
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let host = network.nat(NatKind::FullCone).host();
    let _second = network.nat(NatKind::FullCone);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks(), before + 1);
    tokio::time::sleep(MS).await;
    drop((network, host, _second));
    tokio::time::sleep(MS).await;
    assert_eq!(tasks(), before);
}

/// Two homes with one host each.
fn two_homes(kind: NatKind) -> (Network, [Arc<VirtualSocket>; 2]) {
    let network = Network::new(1);
    let hosts = [network.nat(kind).host(), network.nat(kind).host()];
    (network, hosts)
}

/// Where somebody on the Internet sees this host.
async fn seen(network: &Network, host: &VirtualSocket) -> SocketAddr {
    let observer = network.bind_host();
    send(host, observer.address(), b"who am I");
    recv(&observer).await.0
}

fn send(socket: &VirtualSocket, destination: SocketAddr, contents: &[u8]) {
    let transmit = Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
    socket.try_send(&transmit).unwrap();
}

async fn recv(socket: &VirtualSocket) -> (SocketAddr, Vec<u8>) {
    let mut buffer = vec![0; 2_000];
    let mut meta = [RecvMeta::default()];
    let receiving = std::future::poll_fn(|cx| {
        socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta)
    });
    receiving.await.unwrap();
    (meta[0].addr, buffer[..meta[0].len].to_vec())
}
