//! Verifies what takes long, certificate chains, on blocking threads instead of the driver's and
//! the reader's task.
//!
//! ```text
//!   CREDENTIAL ──▶ link's reader ──▶ pool: path to a root, remembered by the notary ──▶ driver: one signature
//! ```
//!
//! Every connection waits for its own job before it hands in the next one, and permits are granted
//! in order: a peer that causes much verification delays its own connection and no other.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use lru::LruCache;
use tokio::sync::Semaphore;

use super::notary::CertificateNotary;
use crate::id::NodeId;
use crate::router::{CredentialName, Message};

/// Maximum number of chains that are verified at the same time, each on a thread of its own. More
/// would take cores from the connections that are up already.
const MAX_PARALLEL: usize = 2;

/// Credentials asked of one neighbour that are remembered: as many as records of one neighbour may
/// wait for one.
const MAX_ASKED: usize = 4_096;

/// Runs verification on blocking threads; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct VerificationPool(Arc<Semaphore>);

impl VerificationPool {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_PARALLEL)))
    }

    /// Runs `work` once a permit is free. `None` if the runtime shuts down meanwhile, or `work`
    /// panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let job = tokio::task::spawn_blocking(move || {
            // The permit lasts as long as the thread is busy, even if nobody waits for the result.
            let _permit = permit;
            work()
        });
        job.await.ok()
    }
}

/// The notary in use, and the pool that finds verdicts for it ahead of the driver; clones share
/// them.
#[derive(Clone, Debug)]
pub(crate) struct CredentialChecks {
    pool: VerificationPool,
    notary: Arc<ArcSwap<CertificateNotary>>,
}

impl CredentialChecks {
    pub(crate) fn new(pool: VerificationPool, notary: Arc<CertificateNotary>) -> Self {
        Self { pool, notary: Arc::new(ArcSwap::new(notary)) }
    }

    /// Verdicts are found for another notary from now on: for the credentials that are in use at
    /// once, since the records that come next need them.
    pub(super) fn renew(&self, notary: &Arc<CertificateNotary>, in_use: Vec<Bytes>) {
        self.notary.store(Arc::clone(notary));
        let (pool, notary) = (self.pool.clone(), Arc::clone(notary));
        tokio::spawn(async move {
            for credential in in_use {
                let notary = Arc::clone(&notary);
                pool.run(move || notary.prepare(&credential)).await;
            }
        });
    }

    /// Finds the verdict on a credential that this node has asked for, so that the driver need not.
    pub(super) async fn prepare(&self, asked: &Asked, message: &Message) {
        let (question, credential) = match message {
            Message::Credential { name, credential: Some(credential), .. } => (*name, credential),
            Message::Attachment { stub, neighbour, attachment: Some(attachment) } => {
                (Asked::attachment(stub, neighbour), attachment.credential())
            }
            _ => return,
        };
        let notary = self.notary.load_full();
        if !asked.take(question) || notary.knows(CredentialName::of(credential)) {
            return;
        }
        let credential = credential.clone();
        self.pool.run(move || notary.prepare(&credential)).await;
    }
}

/// The credentials and attachments that a neighbour was asked for. Others are dropped by the router
/// and must not cost a verification.
#[derive(Clone, Debug)]
pub(crate) struct Asked(Arc<Mutex<LruCache<CredentialName, ()>>>);

impl Asked {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(LruCache::unbounded())))
    }

    /// Notes what goes to the neighbour.
    pub(super) fn note(&self, message: &Message) {
        match message {
            Message::CredentialWant(wanted) => self.put(wanted.iter().map(|(_, name)| *name)),
            Message::AttachmentWant(wanted) => {
                self.put(wanted.iter().map(|(stub, neighbour)| Self::attachment(stub, neighbour)));
            }
            _ => {}
        }
    }

    /// What an attachment is remembered by: a hash, as credentials are.
    fn attachment(stub: &NodeId, neighbour: &NodeId) -> CredentialName {
        CredentialName::of(&[stub.as_str(), neighbour.as_str()].join("\0").into_bytes())
    }

    fn put(&self, questions: impl Iterator<Item = CredentialName>) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for question in questions {
            asked.put(question, ());
            if asked.len() > MAX_ASKED {
                asked.pop_lru();
            }
        }
    }

    fn take(&self, name: CredentialName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop(&name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Authority;
    use crate::router::Notary as _;
    use crate::transport::clock;

    #[tokio::test]
    async fn no_more_than_the_permitted_number_runs_at_a_time() {
        let (pool, running) = (VerificationPool::new(), Arc::new(AtomicUsize::new(0)));
        let jobs = (0..64).map(|_| {
            let (pool, running) = (pool.clone(), Arc::clone(&running));
            tokio::spawn(async move {
                let work = move || {
                    let at_once = running.fetch_add(1, Ordering::SeqCst) + 1;
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    at_once
                };
                pool.run(work).await.expect("it runs")
            })
        });
        for job in jobs.collect::<Vec<_>>() {
            assert!(job.await.unwrap() <= MAX_PARALLEL);
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_job_gives_its_permit_back() {
        let pool = VerificationPool::new();
        for _ in 0..2 * MAX_PARALLEL {
            assert_eq!(pool.run(|| assert!(std::hint::black_box(false))).await, None);
        }
        assert_eq!(pool.run(|| 7).await, Some(7));
    }

    #[tokio::test]
    async fn only_credentials_that_were_asked_for_are_verified_once() {
        let authority = Authority::new("test", 1).unwrap();
        let notary_of = |name: &str| {
            let identity = authority.issue(&name.parse().unwrap(), 1).unwrap();
            Arc::new(CertificateNotary::new(&identity, clock::system))
        };
        let own = notary_of("own");
        let checks = CredentialChecks::new(VerificationPool::new(), Arc::clone(&own));
        let (origin, credential) = ("other".parse::<NodeId>().unwrap(), notary_of("other").credential());
        let name = CredentialName::of(&credential);
        let asked = Asked::new();
        let message = Message::Credential { origin: origin.clone(), name, credential: Some(credential) };
        checks.prepare(&asked, &message).await;
        assert!(!own.knows(name));
        asked.note(&Message::CredentialWant(vec![(origin, name)]));
        checks.prepare(&asked, &message).await;
        assert!(own.knows(name) && !asked.take(name));
    }

    #[test]
    fn what_was_asked_is_bounded() {
        let asked = Asked::new();
        for nth in 0..2 * MAX_ASKED as u128 {
            let wanted = vec![("n".parse().unwrap(), CredentialName(nth.to_be_bytes()))];
            asked.note(&Message::CredentialWant(wanted));
        }
        assert_eq!(asked.0.lock().unwrap().len(), MAX_ASKED);
    }
}
