//! The driver's part in waits for convergence.

use std::time::{Duration, Instant};

use super::{Asker, Waiter};
use crate::mesh::driver::{Driver, Role};
use crate::mesh::links::id::LinkId;
use crate::mesh::report::convergence::Convergence;
use crate::router::{self, ConvergeRequest, Limits};
use crate::transport::frame::Frame;

/// Maximum wait; a longer one is cut to it.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

impl Driver {
    /// A request from this process.
    pub(crate) fn converge(&mut self, within: Duration, asker: Asker, now: Instant) {
        self.forget_gone_waiters(now);
        let deadline = now + within.min(MAX_WAIT);
        let max = Limits::MAX_CONVERGE_REQUESTS;
        let refused = match &mut self.role {
            _ if self.leaving => router::ConvergeError::Leaving,
            Role::Stub(stub) if stub.waiting.len() >= max => router::ConvergeError::TooMany { max },
            Role::Stub(stub) => {
                stub.waiting.add(deadline, asker);
                return self.ask_neighbour_to_converge(now);
            }
            Role::Full(router) => match router.converge(deadline, now) {
                Ok(request) => {
                    self.waiting.by_request.insert(request, Waiter::Here(asker));
                    return;
                }
                Err(error) => error,
            },
        };
        let _ = asker.send(Err(refused.into()));
    }

    /// A stub has its neighbour ask, if it has one and somebody waits.
    pub(crate) fn ask_neighbour_to_converge(&self, now: Instant) {
        let Role::Stub(stub) = &self.role else { return };
        let Some(deadline) = stub.waiting.earliest() else { return };
        let active = self.neighbours.active().values().find_map(|id| self.neighbours.link(*id));
        if let Some(link) = active.filter(|_| stub.attached) {
            link.send(&Frame::Converge(whole_millis(deadline.saturating_duration_since(now))));
        }
    }

    /// A stub asks. While a request of its is open, that one's verdict answers this one, too.
    pub(crate) fn converge_for_stub(&mut self, id: LinkId, millis: u64, now: Instant) {
        let Role::Full(router) = &mut self.role else { return };
        let Some(link) = self.neighbours.if_active(id).filter(|link| link.stub) else {
            return;
        };
        if self
            .waiting
            .by_request
            .values()
            .any(|waiter| matches!(waiter, Waiter::Stub(link) if *link == id))
        {
            return;
        }
        match router.converge(now + Duration::from_millis(millis).min(MAX_WAIT), now) {
            Ok(request) => drop(self.waiting.by_request.insert(request, Waiter::Stub(id))),
            Err(_) => {
                let expected = router.table().len() as u64 + 1;
                link.send(&Frame::Converged(false, 0, expected));
            }
        }
    }

    /// The router's verdict.
    pub(crate) fn on_verdict(
        &mut self,
        request: ConvergeRequest,
        verdict: Convergence,
        now: Instant,
    ) {
        match self.waiting.by_request.remove(&request) {
            Some(Waiter::Here(asker)) => {
                // A node that learns that others have routes to it knows that its own routes are in
                // use.
                self.publish_now(now);
                let _ = asker.send(Ok(verdict));
            }
            Some(Waiter::Stub(id)) => {
                if let Some(link) = self.neighbours.link(id) {
                    let (converged, count, expected) = match verdict {
                        Convergence::Converged { count } => (true, count, count),
                        Convergence::Partial { count, expected } => (false, count, expected),
                    };
                    link.send(&Frame::Converged(converged, count, expected));
                }
            }
            None => {}
        }
    }

    /// The neighbour's verdict. A partial one answers only those at the stub whose time is over.
    pub(crate) fn on_neighbours_verdict(&mut self, verdict: Convergence, now: Instant) {
        if let Role::Stub(stub) = &mut self.role
            && stub.waiting.answer(verdict, now)
        {
            self.ask_neighbour_to_converge(now);
        }
    }

    /// A stub's link has ended, and its request with it.
    pub(crate) fn forget_stub_waiter(&mut self, id: LinkId, now: Instant) {
        self.cancel_waiters(|waiter| matches!(waiter, Waiter::Stub(link) if *link == id), now);
    }

    /// Drops requests whose callers are gone, and ends the waits of a stub whose neighbour does
    /// not answer.
    pub(crate) fn forget_gone_waiters(&mut self, now: Instant) {
        self.cancel_waiters(
            |waiter| matches!(waiter, Waiter::Here(asker) if asker.is_closed()),
            now,
        );
        if let Role::Stub(stub) = &mut self.role
            && stub.waiting.expire(stub.nodes, now)
        {
            self.ask_neighbour_to_converge(now);
        }
    }

    fn cancel_waiters(&mut self, which: impl Fn(&Waiter) -> bool, now: Instant) {
        let Role::Full(router) = &mut self.role else { return };
        self.waiting.by_request.retain(|request, waiter| {
            let gone = which(waiter);
            if gone {
                router.cancel_converge(*request, now);
            }
            !gone
        });
    }
}

/// Rounded up, so that the neighbour does not end before the stub does.
fn whole_millis(duration: Duration) -> u64 {
    duration.as_micros().div_ceil(1_000).try_into().unwrap_or(u64::MAX)
}
