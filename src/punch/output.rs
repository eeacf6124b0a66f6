//! What waits to be polled.

use std::collections::VecDeque;

use super::counters::Counters;
use super::event::Event;
use super::wire::message::Message;
use super::wire::probe::Probe;
use crate::id::NodeId;

/// Queued output, and the counters.
///
/// The queues stay short under the drain rule: a call yields at most one message, one probe per
/// candidate and a few events per peer. Without draining the oldest probes are dropped, which are
/// only useful when fresh.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) messages: VecDeque<(NodeId, Message)>,
    probes: VecDeque<Probe>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) counters: Counters,
}

/// Maximum number of queued probes.
const MAX_PROBES: usize = 4_096;

impl Output {
    pub(crate) fn message(&mut self, peer: &NodeId, message: Message) {
        self.counters.messages_sent += 1;
        self.messages.push_back((peer.clone(), message));
    }

    pub(crate) fn probe(&mut self, probe: Probe) {
        if self.probes.len() == MAX_PROBES {
            self.probes.pop_front();
        }
        self.probes.push_back(probe);
    }

    pub(crate) fn next_probe(&mut self) -> Option<Probe> {
        self.probes.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.probes.is_empty() && self.events.is_empty()
    }
}
