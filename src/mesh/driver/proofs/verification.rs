//! Verifies signatures and certificate chains ahead of the driver, on blocking threads instead of
//! the driver's and the reader's task.
//!
//! ```text
//!   UPDATE ─────▶ link's reader ──▶ pool: signature ─────────────────▶ remembered by the notary ──▶ driver
//!     │ credential not known yet
//!     ▼
//!   waits ──▶ CREDENTIAL ──▶ pool: path to a root, then signature ──▶ remembered by the notary ──▶ driver
//! ```
//!
//! Each reader waits for its own job before it hands in the next frame: frames stay in order, one
//! job per connection is queued, and permits are granted in order. A peer that causes much
//! verification delays its own connection and no other. What is not found ahead, such as the
//! signature of a record that travels as a delta, is verified by the driver: the result is the
//! same.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use lru::LruCache;
use tokio::sync::Semaphore;

use crate::id::NodeId;
use crate::mesh::links::trust::notary::CertificateNotary;
use crate::router::{Advertisement, CredentialName, Message, Proof};
use crate::sync::lock;

/// Maximum number of chains that are verified at the same time, each on a thread of its own. More
/// would take cores from the connections that are up already.
const MAX_PARALLEL: usize = 2;

/// Credentials asked of one neighbour that are remembered: as many as records of one neighbour may
/// wait for one.
const MAX_ASKED: usize = 4_096;

/// Records of one neighbour whose signatures are verified ahead in a row, and the interval after
/// which one more is: a hundred a second are about 2 % of a core. Those above that are left to the
/// driver, which drops most records that a neighbour sends without need before it verifies them.
const AHEAD_BURST: u32 = 1_024;
const AHEAD_EVERY: Duration = Duration::from_millis(10);

/// Maximum number of records of one neighbour that wait for a credential to be verified ahead, and
/// of their bytes.
const MAX_WAITING: usize = 1_024;
const MAX_WAITING_BYTES: usize = 1 << 20;

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
            // The permit lasts as long as the thread is busy, even if the result is no longer
            // awaited.
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
    pub(crate) fn renew(&self, notary: &Arc<CertificateNotary>, in_use: Vec<Bytes>) {
        self.notary.store(Arc::clone(notary));
        let (pool, notary) = (self.pool.clone(), Arc::clone(notary));
        tokio::spawn(async move {
            for credential in in_use {
                let notary = Arc::clone(&notary);
                pool.run(move || notary.prepare(&credential)).await;
            }
        });
    }

    /// Verifies what a message from a neighbour brings, so that the driver need not.
    pub(crate) async fn prepare(
        &self,
        ahead: &mut Ahead,
        asked: &Asked,
        message: &Message,
        now: Instant,
    ) {
        let notary = self.notary.load_full();
        match message {
            Message::Update(record) => {
                let Some(proof) = Proof::decode(record.proof()) else { return };
                if !notary.knows(proof.credential) {
                    ahead.wait(proof.credential, record.clone());
                } else if !notary.was_verified(record) && ahead.take(now) {
                    let record = record.clone();
                    self.pool.run(move || notary.verify_ahead(&record)).await;
                }
            }
            Message::Credential { name, credential: Some(credential), .. } => {
                // What was not asked for is dropped by the router.
                if !asked.take(*name) {
                    return;
                }
                let waiting = ahead.take_waiting(*name);
                let known = notary.knows(CredentialName::of(credential));
                if known && waiting.is_none() {
                    return;
                }
                let credential = credential.clone();
                let job = move || {
                    notary.prepare(&credential);
                    waiting.iter().for_each(|record| notary.verify_ahead(record));
                };
                self.pool.run(job).await;
            }
            Message::Attachment { stub, neighbour, attachment: Some(attachment) } => {
                if !asked.take(Asked::attachment(stub, neighbour)) {
                    return;
                }
                let attachment = attachment.clone();
                let job = move || {
                    notary.prepare(attachment.credential());
                    notary.verify_attachment_ahead(&attachment);
                };
                self.pool.run(job).await;
            }
            _ => {}
        }
    }
}

/// What is verified ahead for one neighbour; owned by the link's reader.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// When as many records as may come in a row can be verified ahead again.
    full_at: Option<Instant>,
    /// Records whose credential is not known yet, the newest of each credential.
    waiting: LruCache<CredentialName, Advertisement>,
    bytes: usize,
}

impl Ahead {
    pub(crate) fn new() -> Self {
        Self { full_at: None, waiting: LruCache::unbounded(), bytes: 0 }
    }

    fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + AHEAD_EVERY;
        let may = full_at <= now + AHEAD_BURST * AHEAD_EVERY;
        if may {
            self.full_at = Some(full_at);
        }
        may
    }

    fn wait(&mut self, name: CredentialName, record: Advertisement) {
        self.bytes += record.bytes().len();
        let old = self.waiting.put(name, record);
        self.bytes -= old.map_or(0, |old| old.bytes().len());
        while self.waiting.len() > MAX_WAITING || self.bytes > MAX_WAITING_BYTES {
            let Some((_, oldest)) = self.waiting.pop_lru() else { return };
            self.bytes -= oldest.bytes().len();
        }
    }

    fn take_waiting(&mut self, name: CredentialName) -> Option<Advertisement> {
        let record = self.waiting.pop(&name)?;
        self.bytes -= record.bytes().len();
        Some(record)
    }
}

/// The credentials and attachments that a neighbour was asked for. Others are dropped by the router
/// and must not cost a verification.
#[derive(Clone, Debug)]
pub(crate) struct Asked(Arc<Mutex<LruCache<CredentialName, ()>>>);

impl Asked {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(LruCache::unbounded())))
    }

    /// Notes what goes to the neighbour.
    pub(crate) fn note(&self, message: &Message) {
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
        let mut asked = lock(&self.0);
        for question in questions {
            asked.put(question, ());
            if asked.len() > MAX_ASKED {
                asked.pop_lru();
            }
        }
    }

    fn take(&self, name: CredentialName) -> bool {
        lock(&self.0).pop(&name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Authority;
    use crate::id::Version;
    use crate::router::{AttachmentVerdict, Draft, Notary as _, Verdict};
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
        let scene = Scene::new();
        let (name, asked) = (CredentialName::of(&scene.other.credential()), Asked::new());
        scene.prepare(&asked, &scene.credential()).await;
        assert!(!scene.own.knows(name));
        asked.note(&Message::CredentialWant(vec![(id("other"), name)]));
        scene.prepare(&asked, &scene.credential()).await;
        assert!(scene.own.knows(name) && !asked.take(name));
    }

    #[tokio::test]
    async fn the_driver_checks_no_signature_of_what_came_as_a_record() {
        let (scene, mut ahead, asked) = (Scene::new(), Ahead::new(), Asked::new());
        let name = CredentialName::of(&scene.other.credential());
        // The first one waits for the credential, as the router has it wait.
        let records = [1, 2, 3].map(|sequence| scene.record(sequence));
        let update = |at: usize| Message::Update(records[at].clone());
        scene.checks.prepare(&mut ahead, &asked, &update(0), now()).await;
        assert!(!scene.own.was_verified(&records[0]));
        asked.note(&Message::CredentialWant(vec![(id("other"), name)]));
        scene.checks.prepare(&mut ahead, &asked, &scene.credential(), now()).await;
        for at in [1, 2] {
            scene.checks.prepare(&mut ahead, &asked, &update(at), now()).await;
        }
        for record in &records {
            assert_eq!(scene.verdict(record), Verdict::Valid);
        }
        assert_eq!((scene.own.checked(), ahead.waiting.len(), ahead.bytes), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_forged_record_is_rejected_by_the_driver_after_any_look_ahead() {
        let (scene, mut ahead, asked) = (Scene::new(), Ahead::new(), Asked::new());
        scene.own.prepare(&scene.other.credential());
        let record = scene.record(1);
        let forged =
            Advertisement::new(scene.record(2).bytes().clone()).with_proof(record.proof().clone());
        for record in [&record, &forged] {
            scene.checks.prepare(&mut ahead, &asked, &Message::Update(record.clone()), now()).await;
        }
        assert_eq!(
            [scene.verdict(&record), scene.verdict(&forged)],
            [Verdict::Valid, Verdict::Forged]
        );
        assert_eq!(scene.own.checked(), 1, "only of the forged one");
    }

    #[tokio::test]
    async fn an_attachment_that_was_asked_for_is_verified_ahead() {
        let (scene, asked) = (Scene::new(), Asked::new());
        let key = (id("other"), id("own"));
        let version = Version { epoch: 1, sequence: 0, instance: 1 };
        let attachment =
            scene.other.attach(&key.0, &key.1, version, Duration::from_secs(60)).unwrap();
        asked.note(&Message::AttachmentWant(vec![key.clone()]));
        let (stub, neighbour, attachment) = (key.0, key.1, Box::new(attachment));
        scene
            .prepare(
                &asked,
                &Message::Attachment { stub, neighbour, attachment: Some(attachment.clone()) },
            )
            .await;
        assert!(matches!(
            scene.own.verify_attachment(&attachment),
            AttachmentVerdict::Valid { .. }
        ));
        assert_eq!(scene.own.checked(), 0);
    }

    #[test]
    fn what_one_neighbour_has_verified_ahead_is_bounded() {
        let (mut ahead, now) = (Ahead::new(), now());
        assert_eq!((0..9_999).filter(|_| ahead.take(now)).count(), AHEAD_BURST as usize);
        assert!(ahead.take(now + AHEAD_EVERY) && !ahead.take(now + AHEAD_EVERY));
        let record = |len: usize| Advertisement::new(vec![0; len].into());
        let name = |nth: u128| CredentialName(nth.to_be_bytes());
        (0..9_999).for_each(|nth| ahead.wait(name(nth), record(1)));
        assert_eq!((ahead.waiting.len(), ahead.bytes), (MAX_WAITING, MAX_WAITING));
        (0..99).for_each(|nth| ahead.wait(name(nth), record(MAX_WAITING_BYTES / 8)));
        assert_eq!((ahead.waiting.len(), ahead.bytes), (8, MAX_WAITING_BYTES));
        (0..99).for_each(|_| ahead.wait(name(98), record(3)));
        assert_eq!((ahead.waiting.len(), ahead.bytes), (8, MAX_WAITING_BYTES / 8 * 7 + 3));
    }

    /// A node, and another one that is not known to it.
    struct Scene {
        own: Arc<CertificateNotary>,
        other: Arc<CertificateNotary>,
        checks: CredentialChecks,
    }

    impl Scene {
        fn new() -> Self {
            let authority = Authority::new("test", 1).expect("a CA");
            let notary_of = |name: &str| {
                let identity = authority.issue(&id(name), 1).expect("a certificate");
                Arc::new(CertificateNotary::new(&identity, clock::system))
            };
            let (own, other) = (notary_of("own"), notary_of("other"));
            let checks = CredentialChecks::new(VerificationPool::new(), Arc::clone(&own));
            Self { own, other, checks }
        }

        async fn prepare(&self, asked: &Asked, message: &Message) {
            self.checks.prepare(&mut Ahead::new(), asked, message, now()).await;
        }

        fn credential(&self) -> Message {
            let credential = self.other.credential();
            let name = CredentialName::of(&credential);
            Message::Credential { origin: id("other"), name, credential: Some(credential) }
        }

        /// A record of the other one.
        fn record(&self, sequence: u64) -> Advertisement {
            let version = Version { epoch: 1, sequence, instance: 1 };
            let record = Draft::new(id("other"), version).seal().expect("a record");
            let signature = self.other.sign(record.advertisement().bytes()).expect("a signature");
            let credential = CredentialName::of(&self.other.credential());
            record.advertisement().clone().with_proof(Proof { credential, signature }.encode())
        }

        /// What the driver finds.
        fn verdict(&self, record: &Advertisement) -> Verdict {
            let (proof, credential) = (Proof::decode(record.proof()), self.other.credential());
            self.own.verify(
                &id("other"),
                record.bytes(),
                &proof.expect("a proof"),
                Some(&credential),
            )
        }
    }

    fn id(text: &str) -> NodeId {
        text.parse().expect("an id")
    }

    fn now() -> Instant {
        crate::mesh::clock::now()
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
