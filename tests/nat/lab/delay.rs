//! A line with delay. Not every kernel has netem, so packets travel by VXLAN, and a thread of the
//! test keeps each of them for a while: it needs no more than UDP sockets.
//!
//! ```text
//!   namespace            "delay"               the segment's router
//!   wan (VXLAN) ── 4789 ─▶ thread ─ 4790 ──▶ VXLAN ── bridge
//! ```

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::namespace::Namespace;
use super::run::ip;

/// How often a thread looks whether the line has ended.
const POLL: Duration = Duration::from_millis(100);
/// A VXLAN frame with its headers.
const FRAME: usize = 2_048;

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Delay {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _namespace: Namespace,
}

impl Delay {
    /// Joins an interface of one namespace, `near`, with a port of the bridge in another.
    pub(super) fn new(
        near: (&Namespace, &str),
        far: (&Rc<Namespace>, &str, &str),
        one_way: Duration,
    ) -> Self {
        static LINES: AtomicU8 = AtomicU8::new(1);
        let line = LINES.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace::new("delay");
        let (near, interface) = near;
        let (router, port, bridge) = far;
        // The far VXLAN listens at its port in the router's namespace, where another line may be.
        let ports = [4_789, 4_900 + u16::from(line)];
        let address = |side: u8, end: u8| Ipv4Addr::new(10, 97 + side, line, end);
        let ends: [(&Namespace, &str); 2] = [(near, interface), (&**router, port)];
        for (side, (end, device)) in ends.into_iter().enumerate() {
            let (side, udp) = (side as u8, ports[side]);
            let (outer, inner) = (format!("u{line}s{side}"), format!("d{line}s{side}"));
            ip(&format!(
                "link add {outer} netns {end} type veth peer name {inner} netns {namespace}"
            ));
            for (netns, link, host) in [(end, &outer, 1), (&namespace, &inner, 2)] {
                netns.ip(&format!("addr add {}/30 dev {link}", address(side, host)));
                netns.ip(&format!("link set {link} up"));
            }
            let remote = address(side, 2);
            let tunnel = format!("vxlan id {line} remote {remote} dstport {udp} dev {outer}");
            end.ip(&format!("link add {device} type {tunnel}"));
        }
        router.ip(&format!("link set {port} master {bridge} up"));
        let sockets = [0, 1].map(|side| {
            let at = SocketAddr::from((address(side, 2), ports[usize::from(side)]));
            let socket = namespace.enter(|| UdpSocket::bind(at)).unwrap();
            socket.set_read_timeout(Some(POLL)).unwrap();
            socket
        });
        let ended = Arc::new(AtomicBool::new(false));
        let to = [0, 1].map(|side| SocketAddr::from((address(side, 1), ports[usize::from(side)])));
        let [near, far] = sockets.each_ref().map(|socket| socket.try_clone().unwrap());
        let mut threads = Vec::new();
        for (from, into, to) in [(near, &sockets[1], to[1]), (far, &sockets[0], to[0])] {
            threads.extend(carry(from, into.try_clone().unwrap(), to, one_way, &ended));
        }
        Self { ended, threads, _namespace: namespace }
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One direction: one thread receives, another one sends when the time has come.
fn carry(
    from: UdpSocket,
    into: UdpSocket,
    to: SocketAddr,
    one_way: Duration,
    ended: &Arc<AtomicBool>,
) -> [JoinHandle<()>; 2] {
    let (queue, due) = channel::<(Instant, Vec<u8>)>();
    let ended = ended.clone();
    let receive = move || {
        let mut frame = [0; FRAME];
        while !ended.load(Ordering::Relaxed) {
            if let Ok(len) = from.recv(&mut frame) {
                clear_checksum(&mut frame[..len]);
                let _ = queue.send((crate::clock::now() + one_way, frame[..len].to_vec()));
            }
        }
    };
    let send = move || {
        for (at, frame) in due {
            thread::sleep(at.saturating_duration_since(crate::clock::now()));
            let _ = into.send_to(&frame, to);
        }
    };
    [thread::spawn(receive), thread::spawn(send)]
}

/// Takes the checksum out of a UDP packet over IPv4, which may be without one (RFC 768). The kernel
/// leaves checksums to the network card, and a tunnel that ends in a socket has none.
fn clear_checksum(frame: &mut [u8]) {
    const ETHERNET: usize = 8;
    const IP: usize = ETHERNET + 14;
    let is_udp = frame.get(IP - 2..IP) == Some(&[0x08, 0x00][..]) && frame.get(IP + 9) == Some(&17);
    let Some(first) = frame.get(IP).filter(|_| is_udp) else { return };
    let udp = IP + usize::from(first & 0x0f) * 4;
    if let Some(checksum) = frame.get_mut(udp + 6..udp + 8) {
        checksum.fill(0);
    }
}
