//! The addresses of one configured peer: looked up beside the dialling, never as a part of it.
//!
//! A look-up has a limit of its own. One that exceeds it goes on, and the next attempt takes its
//! answer: a resolver whose first server is dead may need longer than any single attempt. What the
//! last successful look-up found is kept and dialled meanwhile.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::peer_addr::PeerAddr;

/// How long an attempt waits for a look-up.
pub(crate) const LOOK_UP_WITHIN: Duration = Duration::from_secs(5);
/// The maximum number of addresses of one name that are used.
const MAX_ADDRS: usize = 8;

/// What finds the addresses of a name.
pub(crate) trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of a host, best first.
    fn resolve(&self, host: String, port: u16) -> Resolving;
}

/// A look-up under way.
pub(crate) type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system's resolver. It blocks a thread, and cannot be cancelled.
#[derive(Debug)]
pub(crate) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: String, port: u16) -> Resolving {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// The addresses of one peer.
pub(crate) struct Names {
    host: String,
    port: u16,
    resolver: Arc<dyn Resolve>,
    /// The host is an address.
    literal: Option<SocketAddr>,
    /// What the last successful look-up found.
    known: Vec<SocketAddr>,
    /// The look-up under way: at most one.
    pending: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

/// Why a name has no address. The next attempt looks it up again, or waits for the same answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum LookUpError {
    /// The resolver takes its time. That says nothing about the peer.
    #[error("cannot resolve {0}: the resolver did not answer within {LOOK_UP_WITHIN:?}")]
    Slow(String),
    /// The resolver failed.
    #[error("cannot resolve {0}: {1}")]
    Failed(String, String),
    /// The name exists, without an address.
    #[error("cannot resolve {0}: the name has no address")]
    NoAddress(String),
}

impl Names {
    pub(crate) fn new(peer: &PeerAddr, resolver: Arc<dyn Resolve>) -> Self {
        let literal = peer.host.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, peer.port));
        Self {
            host: peer.host.clone(),
            port: peer.port,
            resolver,
            literal,
            known: Vec::new(),
            pending: None,
        }
    }

    /// What can be dialled before the look-up has an answer.
    pub(crate) fn known(&self) -> Vec<SocketAddr> {
        self.literal.map_or_else(|| self.known.clone(), |addr| vec![addr])
    }

    /// Whether there is nothing to look up.
    pub(crate) fn is_literal(&self) -> bool {
        self.literal.is_some()
    }

    /// Looks the name up. Cancel safe: a look-up whose caller is gone goes on, and the next call
    /// takes its answer.
    pub(crate) async fn look_up(&mut self) -> Result<Vec<SocketAddr>, LookUpError> {
        let pending = self.pending.get_or_insert_with(|| {
            tokio::spawn(self.resolver.resolve(self.host.clone(), self.port))
        });
        let Ok(found) = tokio::time::timeout(LOOK_UP_WITHIN, pending).await else {
            return Err(LookUpError::Slow(self.host.clone()));
        };
        self.pending = None;
        let found = found.unwrap_or_else(|gone| Err(io::Error::other(gone)));
        match found {
            Ok(addrs) if addrs.is_empty() => Err(LookUpError::NoAddress(self.host.clone())),
            Ok(addrs) => {
                self.known = addrs.into_iter().take(MAX_ADDRS).collect();
                Ok(self.known.clone())
            }
            Err(error) => Err(LookUpError::Failed(self.host.clone(), error.to_string())),
        }
    }

    /// The network is another one: what is asked for now is asked there.
    pub(crate) fn network_moved(&mut self) {
        if let Some(pending) = self.pending.take() {
            pending.abort();
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.network_moved();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    /// What a look-up answers, and how long that takes.
    type Answer = (Duration, Result<Vec<SocketAddr>, &'static str>);

    /// Answers look-ups one after the other; after the last one, as that.
    #[derive(Debug)]
    pub(crate) struct Scripted(Mutex<VecDeque<Answer>>);

    impl Scripted {
        pub(crate) fn new<const N: usize>(script: [Answer; N]) -> Arc<Self> {
            Arc::new(Self(Mutex::new(script.into())))
        }
    }

    impl Resolve for Scripted {
        fn resolve(&self, host: String, _port: u16) -> Resolving {
            assert_eq!(host, "relay.example");
            let mut script = self.0.lock().unwrap();
            let next = script.front().cloned().expect("an answer");
            if script.len() > 1 {
                script.pop_front();
            }
            let (after, answer) = next;
            Box::pin(async move {
                tokio::time::sleep(after).await;
                answer.map_err(io::Error::other)
            })
        }
    }

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 7_400))
    }

    fn names(resolver: &Arc<Scripted>) -> Names {
        Names::new(&"relay.example:7400".parse().unwrap(), resolver.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_for_the_next_call() {
        let resolver = Scripted::new([
            (Duration::from_secs(8), Ok(vec![addr(1)])),
            (Duration::ZERO, Err("asked twice")),
        ]);
        let mut names = names(&resolver);
        assert_eq!(names.look_up().await, Err(LookUpError::Slow("relay.example".to_owned())));
        assert_eq!(names.look_up().await, Ok(vec![addr(1)]));
        assert_eq!(names.known(), vec![addr(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_is_kept_when_the_resolver_fails() {
        let resolver = Scripted::new([
            (Duration::ZERO, Ok(vec![addr(1), addr(2)])),
            (Duration::ZERO, Err("no such name")),
            (Duration::ZERO, Ok(vec![])),
        ]);
        let mut names = names(&resolver);
        names.look_up().await.unwrap();
        let error = names.look_up().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot resolve relay.example: no such name");
        assert_eq!(names.look_up().await, Err(LookUpError::NoAddress("relay.example".to_owned())));
        assert_eq!(names.known(), [addr(1), addr(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn another_network_is_asked_anew() {
        let resolver = Scripted::new([
            (Duration::from_secs(60), Ok(vec![addr(1)])),
            (Duration::ZERO, Ok(vec![addr(2)])),
        ]);
        let mut names = names(&resolver);
        names.look_up().await.unwrap_err();
        names.network_moved();
        assert_eq!(names.look_up().await, Ok(vec![addr(2)]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_needs_no_resolver() {
        let names = Names::new(&"[2001:db8::1]:9".parse().unwrap(), Scripted::new([]));
        assert!(names.is_literal());
        assert_eq!(names.known(), ["[2001:db8::1]:9".parse().unwrap()]);
    }
}
