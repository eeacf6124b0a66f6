//! Trust in live connections, links and peer connections alike: checked when a connection is
//! adopted, when the certificates are reloaded, when the peer proves a renewed certificate, and
//! when its newest one expires.
//!
//! ```text
//!   handshake ──▶ admit ──▶ Vetted ◀── authenticators from the peer
//!                   ▲          │
//!            stale trust?      ▼
//!   reload ──────────────▶ Vetting ──▶ close, with the reason; own authenticator to the peer
//!                              ▲
//!   notAfter ──────────────────┘
//! ```
//!
//! Everything that takes time (chains, signatures) runs on the threads of the [`VerificationPool`];
//! only a connection whose handshake straddles a reload is judged on the driver's task.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::notary;
use crate::id::NodeId;
use crate::mesh::access::connection::Access;
use crate::mesh::access::gate::Gate;
use crate::mesh::clock;
use crate::mesh::driver::proofs::verification::VerificationPool;
use crate::mesh::report::log::{LogKind, LogLimits};
use crate::mesh::services::certificate;
use crate::mesh::services::connection::Connection;
use crate::mesh::services::ending::{Cause, EndReason};
use crate::policy::Subject;
use crate::router::{Attachment, AttachmentVerdict};
use crate::sync::lock;
use crate::transport::authenticator::{Authenticator, Binding, CredentialHash};
use crate::transport::code::CloseCode;
use crate::transport::credential::Verifier;
use crate::transport::endpoint::{Authenticated, Endpoint};
use crate::transport::frame::Frame;
use crate::transport::standing::{Offered, Standing};
use crate::transport::tls::peer_certificates;
use crate::transport::{Identity, Refusal, RefusalReason};

/// How often connections are looked at whose certificates may have expired.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a connection outlives the trust in its certificate if a renewed one would save it: the
/// proof may be on its way while the last step of a CA rotation reaches this node.
const GRACE: Duration = Duration::from_millis(1_500);
/// How often a proof is offered again that could not be sent.
const RETRY: Duration = Duration::from_secs(1);

/// The connections of a node that are in use; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Vetting(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Arc<Endpoint>,
    pool: VerificationPool,
    logs: LogLimits,
    gate: Gate,
    connections: Mutex<BTreeMap<u64, Weak<Vetted>>>,
    next: AtomicU64,
    /// No connection's certificate expires before this, in seconds since 1970.
    earliest: AtomicU64,
    reloads: watch::Sender<u64>,
    /// When the certificates were last reloaded.
    reloaded_at: Mutex<Option<Instant>>,
}

/// A connection whose other end was found trustworthy. It is watched until this is dropped.
#[derive(Debug)]
pub(crate) struct Vetted {
    node: NodeId,
    connection: Connection,
    standing: Mutex<Standing>,
    /// What the peer may do.
    access: Arc<Access>,
    tag: [u8; 8],
    /// The last second at which the peer's newest certificate is valid.
    good_until: AtomicU64,
    /// The credential of this node that the peer has seen last.
    shown: Mutex<CredentialHash>,
    carrier: OnceLock<Carrier>,
    /// Whether a proof is on its way as a stream.
    proving: AtomicBool,
    /// Held while a proof of the peer is verified: a connection has one job at a time in the pool.
    offers: tokio::sync::Mutex<()>,
    /// Why this node has closed the connection, if that was for trust.
    refusal: OnceLock<Refusal>,
    number: u64,
    of: Weak<Inner>,
}

/// How authenticators reach the peer.
#[derive(Debug)]
enum Carrier {
    /// As frames of the control stream.
    Link(mpsc::WeakSender<Vec<u8>>),
    /// As streams.
    Peer,
}

impl Vetting {
    pub(crate) fn new(endpoint: Arc<Endpoint>, pool: VerificationPool, gate: Gate) -> Self {
        Self(Arc::new(Inner {
            endpoint,
            pool,
            logs: gate.logs().clone(),
            gate,
            connections: Mutex::default(),
            next: AtomicU64::new(0),
            earliest: AtomicU64::new(u64::MAX),
            reloads: watch::Sender::new(0),
            reloaded_at: Mutex::new(None),
        }))
    }

    /// Admits a connection of `node`, which its certificate names. Its handshake was judged by the
    /// trust of its time: where that has changed since, it is judged again. Shortly after a reload
    /// a renewed certificate may be on its way, as for connections that were there before: then the
    /// verdict is due when that time is over.
    ///
    /// # Errors
    /// It is not trusted any more; it is closed.
    pub(crate) fn admit(
        &self,
        authenticated: &Authenticated,
        node: &NodeId,
    ) -> Result<Arc<Vetted>, Refusal> {
        let connection = Connection::new(quinn::Connection::clone(authenticated));
        let binding = Binding::of_peer(&connection);
        // No certificate carries the suffix of an ephemeral's id.
        let standing = Standing::new(node.base(), binding, peer_certificates(&connection));
        let wall = clock::system();
        let vetted = Arc::new(Vetted {
            node: node.clone(),
            good_until: AtomicU64::new(standing.good_until(wall)),
            access: self.0.gate.connection(node, Subject::new(node).with_roles(standing.roles())),
            standing: Mutex::new(standing),
            tag: binding.tag(),
            connection,
            shown: Mutex::new(authenticated.generation.credential),
            carrier: OnceLock::new(),
            proving: AtomicBool::new(false),
            offers: tokio::sync::Mutex::new(()),
            refusal: OnceLock::new(),
            number: self.0.next.fetch_add(1, Ordering::Relaxed),
            of: Arc::downgrade(&self.0),
        });
        // In this order a reload finds the connection here, or this finds the reload.
        lock(&self.0.connections).insert(vetted.number, Arc::downgrade(&vetted));
        if self.0.endpoint.generation().number != authenticated.generation.number {
            match (vetted.judge(&self.0.endpoint), self.0.grace_end()) {
                (Ok(()), _) => {}
                (Err(why), Some(end)) if !is_final(&why.reason) => self.judge_at(&vetted, end),
                (Err(why), _) => {
                    vetted.refuse(why.clone());
                    return Err(why);
                }
            }
        }
        self.0.earliest.fetch_min(vetted.good_until.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(vetted)
    }

    /// Shows another identity from now on: every connection is judged by the new trust, and its
    /// peer gets a proof of the new certificate.
    pub(crate) fn reload(&self, identity: Identity) {
        // First, so that a connection that is judged by the new trust finds its time of grace.
        *lock(&self.0.reloaded_at) = Some(Instant::now());
        self.0.endpoint.reload(identity);
        self.0.reloads.send_modify(|count| *count += 1);
    }

    /// Who may do what.
    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// The connections with a node.
    pub(crate) fn with(&self, node: &NodeId) -> Vec<Arc<Vetted>> {
        let mut all = self.0.live();
        all.retain(|vetted| vetted.node == *node);
        all
    }

    /// Watches the connections until the endpoint's owner is gone.
    pub(crate) async fn run(self) {
        let mut reloads = self.0.reloads.subscribe();
        // A reload may have come before this task ran for the first time.
        reloads.mark_changed();
        let mut look = Instant::now() + LOOK_EVERY;
        let mut condemned: Option<(Instant, Vec<Arc<Vetted>>)> = None;
        loop {
            let grace_ends = condemned.as_ref().map(|(at, _)| *at);
            tokio::select! {
                biased;
                reloaded = reloads.changed() => {
                    if reloaded.is_err() {
                        return;
                    }
                    let waiting = self.judge_all().await;
                    // Those of an earlier reload are among them, and their grace is over when it
                    // would have been.
                    condemned = match (condemned.take(), waiting.is_empty()) {
                        (_, true) => None,
                        (Some((at, _)), false) => Some((at, waiting)),
                        (None, false) => Some((Instant::now() + GRACE, waiting)),
                    };
                    self.prove_to_all().await;
                }
                () = sleep_until(grace_ends.unwrap_or(look)), if grace_ends.is_some() => {
                    for vetted in condemned.take().into_iter().flat_map(|(_, waiting)| waiting) {
                        if let Err(why) = self.0.judge(&vetted).await {
                            vetted.refuse(why);
                        }
                    }
                }
                () = sleep_until(look) => {
                    look = Instant::now() + LOOK_EVERY;
                    self.look().await;
                }
            }
        }
    }

    /// Closes what the current trust does not accept, except where a renewed certificate may be on
    /// its way: gives those.
    async fn judge_all(&self) -> Vec<Arc<Vetted>> {
        let mut waiting = Vec::new();
        for vetted in self.0.live() {
            match self.0.judge(&vetted).await {
                Ok(()) => {}
                Err(why) if is_final(&why.reason) => vetted.refuse(why),
                Err(_) => waiting.push(vetted),
            }
        }
        waiting
    }

    /// Judges a connection at this time, if it is still there.
    fn judge_at(&self, vetted: &Arc<Vetted>, at: Instant) {
        let (of, vetted) = (Arc::downgrade(&self.0), Arc::downgrade(vetted));
        tokio::spawn(async move {
            sleep_until(at).await;
            if let (Some(of), Some(vetted)) = (of.upgrade(), vetted.upgrade())
                && let Err(why) = of.judge(&vetted).await
            {
                vetted.refuse(why);
            }
        });
    }

    async fn prove_to_all(&self) {
        for vetted in self.0.live() {
            vetted.prove(&self.0.endpoint);
            tokio::task::yield_now().await;
        }
    }

    /// Ends the connections whose certificates have expired, and makes up for what had to wait.
    async fn look(&self) {
        let now = clock::unix_secs();
        let expired = now > self.0.earliest.load(Ordering::Relaxed);
        let mut earliest = u64::MAX;
        for vetted in self.0.live() {
            vetted.prove(&self.0.endpoint);
            // One that is being verified at the moment is not waiting.
            let early =
                vetted.standing.try_lock().is_ok_and(|standing| standing.may_judge(clock::now()));
            let due = early || now > vetted.good_until.load(Ordering::Relaxed);
            if due && let Err(why) = self.0.judge(&vetted).await {
                vetted.refuse(why);
            }
            earliest = earliest.min(vetted.good_until.load(Ordering::Relaxed));
        }
        if expired {
            self.0.earliest.store(earliest, Ordering::Relaxed);
        }
    }
}

impl Inner {
    /// As [`Vetted::judge`], in the pool. While the runtime shuts down nothing is found wrong.
    async fn judge(&self, vetted: &Arc<Vetted>) -> Result<(), Refusal> {
        let (vetted, endpoint) = (Arc::clone(vetted), Arc::clone(&self.endpoint));
        self.pool.run(move || vetted.judge(&endpoint)).await.unwrap_or(Ok(()))
    }

    /// When the time is over in which a renewed certificate may be on its way; `None` if it is.
    fn grace_end(&self) -> Option<Instant> {
        let end = (*lock(&self.reloaded_at))? + GRACE;
        (Instant::now() < end).then_some(end)
    }

    fn live(&self) -> Vec<Arc<Vetted>> {
        lock(&self.connections).values().filter_map(Weak::upgrade).collect()
    }
}

impl Vetted {
    /// Lets authenticators travel as frames of a link's control stream.
    pub(crate) fn carry_on_link(&self, outbox: &mpsc::Sender<Vec<u8>>) {
        let _ = self.carrier.set(Carrier::Link(outbox.downgrade()));
        self.prove_if_stale();
    }

    /// Lets authenticators travel as streams of a peer connection.
    pub(crate) fn carry_on_streams(&self) {
        let _ = self.carrier.set(Carrier::Peer);
        self.prove_if_stale();
    }

    fn prove_if_stale(&self) {
        if let Some(of) = self.of.upgrade() {
            self.prove(&of.endpoint);
        }
    }

    /// Takes an authenticator from the peer. One that proves nothing costs the peer the connection.
    pub(crate) async fn offer(self: &Arc<Self>, proof: Authenticator) {
        let Some(of) = self.of.upgrade() else { return };
        let _turn = self.offers.lock().await;
        let vetted = Arc::clone(self);
        of.pool.clone().run(move || vetted.take_offer(&of, proof)).await;
    }

    fn take_offer(&self, of: &Inner, proof: Authenticator) {
        let wall = clock::system();
        let mut standing = self.standing();
        // Read under the lock: a reload that comes now judges this connection when the lock is
        // free.
        let trust = of.endpoint.identity().trust().clone();
        match standing.offer(proof, &trust, wall, clock::now()) {
            Ok(Offered::Accepted) => {
                debug!(node = %self.node, "peer has renewed its certificate");
                self.access.set_roles(standing.roles());
                self.note_good_until(of, standing.good_until(wall));
            }
            Ok(Offered::Known | Offered::Kept | Offered::Early) => {}
            Err(error) => {
                if of.logs.admit(LogKind::Closed, &self.node) {
                    warn!(node = %self.node, %error, "closing a connection");
                }
                self.connection.close(CloseCode::BadCertificate, &error.to_string());
            }
        }
    }

    /// Whether a stub has signed an attachment, by the trust of now. `None` while the node or its
    /// runtime shuts down.
    pub(crate) async fn verify_attachment(
        &self,
        attachment: Box<Attachment>,
    ) -> Option<(Box<Attachment>, AttachmentVerdict)> {
        let of = self.of.upgrade()?;
        let verifier = Verifier::new(of.endpoint.identity().trust().clone());
        let work = move || {
            let verdict = notary::verify_attachment(&verifier, &attachment, clock::system());
            (attachment, verdict)
        };
        of.pool.run(work).await
    }

    /// Tells the connections of one pair of nodes apart.
    pub(crate) fn tag(&self) -> [u8; 8] {
        self.tag
    }

    /// Why this node has closed the connection, if that was for trust.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.refusal.get()
    }

    fn judge(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        let mut standing = self.standing();
        let identity = endpoint.identity();
        let judged = standing.judge(identity.trust(), clock::system());
        let good_until = judged.map_err(|why| why.naming(&identity))?;
        // A certificate that had waited may be the one that counts now.
        self.access.set_roles(standing.roles());
        match self.of.upgrade() {
            Some(of) => self.note_good_until(&of, good_until),
            None => self.good_until.store(good_until, Ordering::Relaxed),
        }
        Ok(())
    }

    fn note_good_until(&self, of: &Inner, good_until: u64) {
        self.good_until.store(good_until, Ordering::Relaxed);
        of.earliest.fetch_min(good_until, Ordering::Relaxed);
    }

    /// Sends a proof of this node's certificate, unless the peer has seen it.
    fn prove(&self, endpoint: &Arc<Endpoint>) {
        let current = endpoint.generation();
        let mut shown = lock(&self.shown);
        if *shown == current.credential || self.connection.close_reason().is_some() {
            return;
        }
        match self.carrier.get() {
            None => {}
            Some(Carrier::Link(outbox)) => {
                let Some(outbox) = outbox.upgrade() else { return };
                let proof =
                    Authenticator::new(&endpoint.identity(), &Binding::own(&self.connection));
                // A full queue, or a system without randomness: the next look makes up for it.
                if proof.is_some_and(|proof| {
                    outbox.try_send(Frame::Authenticator(proof).encode()).is_ok()
                }) {
                    *shown = current.credential;
                }
            }
            Some(Carrier::Peer) => {
                drop(shown);
                let Some(vetted) = self.proof_begins() else { return };
                let (endpoint, connection) = (endpoint.clone(), self.connection.clone());
                tokio::spawn(async move {
                    let proven =
                        certificate::prove(quinn::Connection::clone(&connection), endpoint, RETRY)
                            .await;
                    if let Some(vetted) = vetted.upgrade() {
                        vetted.proof_ended(proven);
                    }
                });
            }
        }
    }

    /// This connection, unless a proof is on its way to its peer already: when there is room for
    /// the stream, that one will be of the certificate of that time.
    fn proof_begins(&self) -> Option<Weak<Self>> {
        let of = self.of.upgrade()?;
        let this = lock(&of.connections).get(&self.number)?.clone();
        (!self.proving.swap(true, Ordering::AcqRel)).then_some(this)
    }

    fn proof_ended(&self, proven: Option<CredentialHash>) {
        if let Some(proven) = proven {
            *lock(&self.shown) = proven;
        }
        self.proving.store(false, Ordering::Release);
    }

    /// Closes the connection with a code and a reason for the peer.
    fn refuse(&self, why: Refusal) {
        if self.connection.close_reason().is_some() {
            return;
        }
        if self.of.upgrade().is_some_and(|of| of.logs.admit(LogKind::Closed, &self.node)) {
            warn!(node = %self.node, %why, "closing a connection");
        }
        let cause = Cause::this(EndReason::NotTrusted(why.clone()));
        self.connection.close_because(cause, why.close_code(), &why.reason.to_string());
        let _ = self.refusal.set(why);
    }

    /// What the peer may do.
    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The connection, with the record of its end.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        lock(&self.standing)
    }
}

impl Drop for Vetted {
    fn drop(&mut self) {
        if let Some(of) = self.of.upgrade() {
            lock(&of.connections).remove(&self.number);
        }
    }
}

/// Whether no renewed certificate would change the verdict.
fn is_final(reason: &RefusalReason) -> bool {
    !matches!(reason, RefusalReason::UnknownCa | RefusalReason::NotPinned | RefusalReason::Expired)
}
