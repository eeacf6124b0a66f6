//! The fresh local ports of one peer, and how long each stays open.

use std::time::{Duration, Instant};

/// How long a port stays open after the peer's last probe to it: the peer may use a path that this
/// end does not.
const LINGER: Duration = Duration::from_secs(15);

/// The fresh ports that are open for one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports(Vec<Port>);

#[derive(Clone, Copy, Debug)]
struct Port {
    number: u16,
    /// When an authentic probe last arrived at it.
    heard: Option<Instant>,
}

impl Ports {
    pub(crate) fn opened(&mut self, ports: &[u16]) {
        self.0.extend(ports.iter().map(|number| Port { number: *number, heard: None }));
    }

    /// Records an authentic probe. Returns whether it arrived at the node's own socket or at one of
    /// these ports.
    pub(crate) fn heard(&mut self, local_port: Option<u16>, now: Instant) -> bool {
        let Some(number) = local_port else { return true };
        let port = self.0.iter_mut().find(|port| port.number == number);
        port.map(|port| port.heard = Some(now)).is_some()
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = u16> {
        self.0.iter().map(|port| port.number)
    }

    /// Takes out the ports that are not needed, unless the peer was heard there recently.
    pub(crate) fn release(&mut self, needed: impl Fn(u16) -> bool, now: Instant) -> Vec<u16> {
        let unused = |port: &mut Port| {
            !needed(port.number) && port.heard.is_none_or(|heard| heard + LINGER <= now)
        };
        self.0.extract_if(.., unused).map(|port| port.number).collect()
    }

    /// When a port may be released next though nothing happens.
    pub(crate) fn due_at(&self, now: Instant) -> Option<Instant> {
        let lingers = self.0.iter().filter_map(|port| port.heard).map(|heard| heard + LINGER);
        lingers.filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::punch::testing::start;

    #[test]
    fn a_port_is_open_while_it_is_needed_or_the_peer_is_heard() {
        let now = start();
        let mut ports = Ports::default();
        ports.opened(&[1, 2, 3]);
        assert!(ports.heard(Some(3), now));
        assert!(ports.heard(None, now), "the node's own socket");
        assert!(!ports.heard(Some(4), now), "another peer's");
        assert_eq!(ports.release(|port| port == 1, now), [2]);
        assert_eq!(ports.due_at(now), Some(now + LINGER));
        assert_eq!(ports.release(|port| port == 1, now + LINGER), [3]);
        assert_eq!(ports.list().collect::<Vec<_>>(), [1]);
        assert_eq!(ports.due_at(now + LINGER), None);
    }
}
