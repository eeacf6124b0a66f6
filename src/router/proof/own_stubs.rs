//! The stubs that are attached to this node, and whether they have proven it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::id::NodeId;
use crate::router::proof::attachment::Attachment;

/// The stubs that are attached to this node, each with its newest [`Attachment`].
///
/// The session with a stub is authenticated, so this node needs no further proof to send it
/// packets. Other nodes do: a stub is listed in this node's record only once it has proven its
/// attachment, and as long as the proof is valid.
#[derive(Debug, Default)]
pub(crate) struct OwnStubs {
    stubs: BTreeMap<NodeId, OwnStub>,
    due: BTreeSet<(Instant, NodeId)>,
}

#[derive(Debug)]
struct OwnStub {
    instance: u64,
    attachment: Option<Attachment>,
    /// When the attachment expires, or when a missing one is overdue.
    due: Instant,
}

impl OwnStubs {
    /// How long a stub may take to prove its attachment. It sends the proof right behind its HELLO.
    pub(crate) const PROOF_WAIT: Duration = Duration::from_secs(10);

    /// A session came up. One that replaces a session with the same process keeps the proof.
    pub(crate) fn on_session_up(&mut self, stub: &NodeId, instance: u64, now: Instant) {
        if self
            .stubs
            .get(stub)
            .is_some_and(|own| own.instance == instance && own.attachment.is_some())
        {
            return;
        }
        self.put(stub, OwnStub { instance, attachment: None, due: now + Self::PROOF_WAIT });
    }

    pub(crate) fn on_session_down(&mut self, stub: &NodeId) {
        if let Some(own) = self.stubs.remove(stub) {
            self.due.remove(&(own.due, stub.clone()));
        }
    }

    /// Takes a verified attachment. `false` if it is of no process that is attached, or older than
    /// the one held.
    pub(crate) fn prove(&mut self, attachment: Attachment, until: Instant) -> bool {
        let stub = attachment.stub().clone();
        let Some(own) = self.stubs.get(&stub) else { return false };
        let newest =
            own.attachment.as_ref().is_none_or(|held| held.version() <= attachment.version());
        if own.instance != attachment.version().instance || !newest {
            return false;
        }
        let instance = own.instance;
        self.put(&stub, OwnStub { instance, attachment: Some(attachment), due: until });
        true
    }

    /// The proof of a stub that is attached.
    pub(crate) fn get(&self, stub: &NodeId) -> Option<&Attachment> {
        self.stubs.get(stub)?.attachment.as_ref()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The stubs whose proofs are overdue or have expired.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<NodeId> {
        let mut overdue = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, stub)) = self.due.pop_first()
        {
            if let Some(own) = self.stubs.get_mut(&stub) {
                own.attachment = None;
            }
            overdue.push(stub);
        }
        overdue
    }

    fn put(&mut self, stub: &NodeId, own: OwnStub) {
        self.due.insert((own.due, stub.clone()));
        let due = own.due;
        if let Some(old) = self.stubs.insert(stub.clone(), own).filter(|old| old.due != due) {
            self.due.remove(&(old.due, stub.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::Version;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_stub_has_ten_seconds_to_prove_its_attachment() {
        let (mut stubs, now) = stubs();
        assert!(stubs.poll(now + Duration::from_millis(9_999)).is_empty());
        assert_eq!(stubs.poll(now + OwnStubs::PROOF_WAIT), [id("s")]);
        assert_eq!(stubs.next_timeout(), None, "once");
    }

    #[test]
    fn a_proof_is_renewed_or_expires() {
        let (mut stubs, now) = stubs();
        assert!(stubs.prove(attachment(7, 0), now + HOUR));
        assert!(stubs.prove(attachment(7, 0), now + 2 * HOUR));
        assert!(stubs.poll(now + HOUR).is_empty());
        assert_eq!(stubs.poll(now + 2 * HOUR), [id("s")]);
        assert_eq!(stubs.get(&id("s")), None);
    }

    #[test]
    fn only_the_process_that_is_attached_proves_anything() {
        let (mut stubs, now) = stubs();
        assert!(!stubs.prove(attachment(8, 0), now + HOUR), "another process");
        assert!(stubs.prove(attachment(7, 1), now + HOUR));
        assert!(!stubs.prove(attachment(7, 0), now + HOUR), "an older one");
        stubs.on_session_up(&id("s"), 7, now);
        assert!(stubs.get(&id("s")).is_some(), "another link to the same process");
        stubs.on_session_up(&id("s"), 8, now);
        assert!(stubs.get(&id("s")).is_none(), "a restart");
        stubs.on_session_down(&id("s"));
        assert_eq!(stubs.next_timeout(), None);
    }

    fn attachment(instance: u64, sequence: u64) -> Attachment {
        let body =
            Attachment::body(&id("s"), &id("n"), Version { epoch: 1, sequence, instance }, 1);
        Attachment::decode(body, Bytes::new(), Bytes::new()).expect("a body of its own")
    }

    fn id(text: &str) -> NodeId {
        text.parse().expect("an id")
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
    fn stubs() -> (OwnStubs, Instant) {
        let (mut stubs, now) = (OwnStubs::default(), Instant::now());
        stubs.on_session_up(&id("s"), 7, now);
        (stubs, now)
    }
}
