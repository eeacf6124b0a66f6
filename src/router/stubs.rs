//! What stubs prove: those that are attached to this node.

use std::time::{Duration, Instant};

use super::Router;
use super::attachment::Attachment;
use super::event::Event;

impl Router {
    /// A stub that is attached to this node has proven it. `attachment` was verified, and is valid for `remaining`.
    ///
    /// Returns `false`, and changes nothing, if it names another neighbour than this node, if no session with the process
    /// of its instance is up, or if a newer one is held.
    pub fn set_attachment(&mut self, attachment: Attachment, remaining: Duration, now: Instant) -> bool {
        let stub = attachment.stub().clone();
        let first = self.own_stubs.get(&stub).is_none();
        if attachment.neighbour() != self.id() || !self.own_stubs.prove(attachment, now + remaining) {
            return false;
        }
        if first {
            self.origin.on_stubs_changed(now);
        }
        self.settle(now);
        true
    }

    pub(super) fn next_proof(&self) -> Option<Instant> {
        // Where nothing is signed, nothing has to be proven.
        self.own_stubs.next_timeout().filter(|_| self.config.notary.is_some())
    }

    pub(super) fn poll_stubs(&mut self, now: Instant) {
        if self.config.notary.is_none() {
            return;
        }
        for stub in self.own_stubs.poll(now) {
            self.origin.on_stubs_changed(now);
            self.event(Event::StubUnproven(stub));
        }
    }
}
