//! Looks at a NAT from both sides, with bare UDP.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::clock::LIMIT;
use crate::lab::{Host, Namespace};

/// What a NAT does with ports on the way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mapping {
    /// The same one for every destination, which is that inside.
    Preserved,
    /// The same one for every destination.
    EndpointIndependent,
    /// Another one for each destination.
    EndpointDependent,
}

/// Whom it lets in, once something went out by a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Filtering {
    Everybody,
    /// Every port of an address that something was sent to.
    ByAddress,
    /// Only a port that something was sent to.
    ByPort,
}

/// A socket in a namespace.
#[derive(Debug)]
pub(crate) struct Probe {
    socket: UdpSocket,
    pub(crate) addr: SocketAddr,
}

impl Probe {
    pub(crate) fn new(namespace: &Namespace, ip: IpAddr) -> Self {
        let socket = namespace.enter(|| UdpSocket::bind((ip, 0))).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let addr = socket.local_addr().unwrap();
        Self { socket, addr }
    }

    pub(crate) fn on(host: &Host, v6: bool) -> Self {
        Self::new(&host.namespace, host.ip(v6))
    }

    pub(crate) fn send(&self, text: &str, to: SocketAddr) {
        self.socket.send_to(text.as_bytes(), to).unwrap();
    }

    /// The next that comes, and where from.
    #[track_caller]
    pub(crate) fn receive(&self) -> (String, SocketAddr) {
        let mut buffer = [0; 64];
        let (len, from) = self.socket.recv_from(&mut buffer).expect("something comes");
        (String::from_utf8_lossy(&buffer[..len]).into_owned(), from)
    }

    /// All that comes up to this text, which comes last.
    #[track_caller]
    pub(crate) fn receive_up_to(&self, last: &str) -> Vec<String> {
        let mut came = Vec::new();
        loop {
            let (text, _) = self.receive();
            if text == last {
                return came;
            }
            came.push(text);
        }
    }
}

/// How the way of `inside` to the internet maps and filters, as three hosts out there see it.
#[track_caller]
pub(crate) fn observe(inside: &Host, outside: [&Host; 3], v6: bool) -> (Mapping, Filtering) {
    let me = Probe::on(inside, v6);
    let [first, second, stranger] = outside.map(|host| Probe::on(host, v6));
    let other_port = Probe::on(outside[0], v6);

    me.send("hello", first.addr);
    me.send("hello", second.addr);
    let mapped = first.receive().1;
    let mapping = match second.receive().1 == mapped {
        true if mapped.port() == me.addr.port() => Mapping::Preserved,
        true => Mapping::EndpointIndependent,
        false => Mapping::EndpointDependent,
    };

    // All ways are as long, and no packet overtakes another: what was let in is there before the
    // last one.
    stranger.send("stranger", mapped);
    other_port.send("other port", mapped);
    first.send("last", mapped);
    let came = me.receive_up_to("last");
    let filtering = match came.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["stranger", "other port"] => Filtering::Everybody,
        ["other port"] => Filtering::ByAddress,
        [] => Filtering::ByPort,
        _ => panic!("came in: {came:?}"),
    };
    (mapping, filtering)
}
