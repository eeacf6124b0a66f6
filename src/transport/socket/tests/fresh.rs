use super::*;
use crate::transport::PortOpener;

fn far() -> SocketAddr {
    addr("198.51.100.7:4000")
}

/// A node whose next fresh port is the given socket.
fn wire(fresh: &Arc<FakeUdp>) -> Wire {
    let fresh = fresh.clone();
    let mut wire = Wire::relay();
    let socket = Socket::new(vec![wire.udp.clone()], ME, Arc::default()).unwrap();
    let opener = PortOpener::new(move || Ok(fresh.clone()));
    wire.socket = Arc::new(socket.with_port_opener(Some(opener)));
    wire
}

fn path(local_port: Option<u16>) -> ForwardingTable {
    let mut table = relay();
    let to = super::super::mapped(far());
    table.direct(NextHop { neighbour: FAR, to, from: None, local_port, cookie: TO_RIGHT });
    table.admit_direct(FROM_RIGHT, FAR);
    table
}

#[test]
fn a_path_from_a_fresh_port_sends_and_receives_there() {
    let fresh = FakeUdp::new("10.0.0.1:5000");
    let wire = wire(&fresh);
    assert_eq!(wire.socket.open_port().unwrap(), 5000);
    wire.socket.publish(path(Some(5000)));
    wire.send(overlay::socket_addr(FAR), b"@hello", None).unwrap();
    assert_eq!((wire.udp.sent().len(), fresh.sent().len()), (0, 1));
    fresh.arrive(far(), &[switched(header(FROM_RIGHT, FAR, ME), b"@back")]);
    assert_eq!(wire.packets().iter().map(|got| got.packet.clone()).collect::<Vec<_>>(), [b"@back"]);
}

#[test]
fn a_fresh_port_takes_probes_and_no_links() {
    let fresh = FakeUdp::new("10.0.0.1:5000");
    let wire = wire(&fresh);
    wire.socket.open_port().unwrap();
    let mut received = wire.socket.probes().receiver().unwrap();
    wire.socket.probes().set_rounds([0x0404_0404_0404_0404].into());
    fresh.arrive(far(), &[vec![4; 64], b"@initial".to_vec()]);
    assert_eq!(wire.packets(), []);
    assert_eq!(received.try_recv().unwrap().local_port, Some(5000));
    assert_eq!(wire.dropped(DropReason::UnknownCookie), 1);
}

#[test]
fn a_closed_port_sends_nothing() {
    let fresh = FakeUdp::new("10.0.0.1:5000");
    let wire = wire(&fresh);
    wire.socket.open_port().unwrap();
    wire.socket.close_port(5000);
    wire.socket.publish(path(Some(5000)));
    wire.send(overlay::socket_addr(FAR), b"@hello", None).unwrap();
    assert_eq!((wire.udp.sent().len(), fresh.sent().len()), (0, 0));
    assert_eq!(wire.dropped(DropReason::SendFailed), 1);
}

#[test]
fn an_open_port_wakes_the_receiver_and_their_number_is_bounded() {
    let fresh = FakeUdp::new("10.0.0.1:5000");
    let wire = wire(&fresh);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    assert!(wire.poll(&mut Context::from_waker(&waker)).is_pending());
    wire.socket.open_port().unwrap();
    assert!(woken.is_set());
    for _ in 1..crate::transport::socket::udp::fresh::FreshPorts::MAX {
        wire.socket.open_port().unwrap();
    }
    wire.socket.open_port().unwrap_err();
}

#[test]
fn room_is_awaited_at_fresh_ports_as_well() {
    let fresh = FakeUdp::new("10.0.0.1:5000");
    let wire = wire(&fresh);
    let mut poller = wire.socket.clone().create_io_poller();
    wire.socket.open_port().unwrap();
    wire.socket.publish(path(Some(5000)));
    fresh.set_room(0);
    assert!(wire.send(overlay::socket_addr(FAR), b"@", None).is_err());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    assert!(poller.as_mut().poll_writable(&mut Context::from_waker(&waker)).is_pending());
    fresh.set_room(1);
    assert!(woken.is_set());
}
