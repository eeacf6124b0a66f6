//! A link: a QUIC connection to a neighbour, with one task that has four parts.
//!
//! ```text
//!   control stream in ──▶ reader ──▶ inputs ──▶ driver ──▶ outbox ──▶ writer ──▶ control stream out
//!   other streams     ──▶ acceptor ──▶ services
//!   datagrams         ──▶ receiver ──▶ services
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{Instrument, Span, debug, info_span};

use super::bundle::{Bundle, Part};
use super::endings::Endings;
use super::id::LinkId;
use crate::id::{Cost, NodeAddr, NodeId};
use crate::mesh::clock;
use crate::mesh::driver::proofs::verification::{Ahead, Asked, CredentialChecks};
use crate::mesh::input::Input;
use crate::mesh::links::dialling::peer_addr::Carrier;
use crate::mesh::links::trust::vetting::Vetted;
use crate::mesh::services::Services;
use crate::mesh::services::connection::Connection;
use crate::mesh::services::ending::{Cause, EndReason};
use crate::mesh::services::opening::accept::accept_streams;
use crate::mesh::services::usage::Usage;
use crate::mesh::view::LinkView;
use crate::router::{Attachment, DecodeError, Message, RttCost};
use crate::switch::Cookie;
use crate::transport::carrier::{self, Carriers};
use crate::transport::code::CloseCode;
use crate::transport::frame::{Frame, FrameReader, ReadFrameError, SignedStatement};
use crate::transport::handshake::Established;

/// The capacity of a link writer's queue, in frames. The router keeps within its own window; what
/// answers the neighbour's own frames is bounded by this, and a neighbour that asks without reading
/// loses its link.
const MAX_OUTBOX: usize = 256;
/// How long a neighbour has to acknowledge the last frames.
const FAREWELL: Duration = Duration::from_secs(1);
/// The maximum number of bytes that the writer takes at a time.
const WRITE_BATCH: usize = 64 * 1024;

/// What a link uses of its node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) inputs: &'a mpsc::Sender<Input>,
    pub(crate) services: &'a Services,
    pub(crate) checks: &'a CredentialChecks,
    pub(crate) endings: &'a Endings,
    pub(crate) carriers: &'a Carriers,
}

/// A link to a neighbour.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) peer: NodeId,
    /// The hash of its id, made once.
    pub(crate) addr: NodeAddr,
    pub(crate) instance: u64,
    /// Whether the neighbour is a stub.
    pub(crate) stub: bool,
    /// Whether the neighbour carries other nodes' packets.
    pub(crate) transit: bool,
    /// What this end says that the link costs.
    pub(crate) cost: Cost,
    /// What measures that, if anything.
    pub(crate) measured: Option<RttCost>,
    /// What the neighbour said in HELLO.
    pub(crate) their_cost: Cost,
    pub(crate) dialled: bool,
    pub(crate) connection: Connection,
    /// What the neighbour puts into its packets to us.
    pub(crate) cookie_in: Cookie,
    /// What we put into packets to the neighbour.
    pub(crate) cookie_out: Cookie,
    /// The address at which the neighbour sees us.
    pub(crate) observed: SocketAddr,
    /// Where packets to the neighbour go, as last published.
    pub(crate) remote: SocketAddr,
    /// The other end of the TCP connection that carries them. `None` if they go by UDP.
    pub(crate) place: Option<SocketAddr>,
    /// The address of this node that the neighbour sends to, as last published.
    pub(crate) local: Option<IpAddr>,
    pub(crate) since: Instant,
    /// Counts the streams on the link.
    pub(crate) usage: Arc<Usage>,
    /// What is shown of it, made once.
    pub(crate) view: Arc<LinkView>,
    outbox: Option<mpsc::Sender<Vec<u8>>>,
    asked: Asked,
    /// Watches over the trust in the neighbour's certificate for as long as the link lives.
    pub(crate) vetted: Arc<Vetted>,
    span: Span,
}

impl Link {
    /// Starts the task of a link whose HELLO is done.
    pub(crate) fn spawn(
        id: LinkId,
        established: Established,
        vetted: Arc<Vetted>,
        node: &Surroundings<'_>,
        now: Instant,
    ) -> Self {
        let Surroundings { inputs, services, checks, endings, carriers } = *node;
        let Established { connection: _, hello, own, dialled, control, frames } = established;
        let connection = vetted.connection().clone();
        let span = info_span!("link", peer = %hello.id, link = id.0);
        let (outbox, queue) = mpsc::channel(MAX_OUTBOX);
        let usage = Arc::new(Usage::default());
        vetted.carry_on_link(&outbox);
        let asked = Asked::new();
        let examiner = Examiner {
            vetted: vetted.clone(),
            checks: checks.clone(),
            asked: asked.clone(),
            ahead: (!hello.stub && !own.stub).then(Ahead::new),
        };
        let reader = read(id, frames, connection.clone(), examiner, inputs.clone());
        let (stub, endings, inputs_end, ending) =
            (hello.stub, endings.clone(), inputs.clone(), connection.clone());
        let reader = async move {
            reader.await;
            let why = ending.closed().await;
            let turn = endings.turn(stub).await;
            let _ = inputs_end.send(Input::LinkClosed { link: id, why, turn }).await;
        };
        let writer = write(id, control, connection.clone(), queue, inputs.clone());
        let datagrams = services.datagrams.clone();
        let (receiving, from, shared) = (connection.clone(), hello.id.clone(), usage.clone());
        let access = vetted.access().clone();
        let receiver = async move { datagrams.serve(receiving, from, shared, access).await };
        let (accepting, peer, services, shared) =
            (connection.clone(), hello.id.clone(), services.clone(), usage.clone());
        let access = vetted.access().clone();
        let accept = async move {
            accept_streams(&accepting, &peer, &services, &shared, &access).await;
        };
        let parts: [Part; 4] = [
            Box::pin(reader.instrument(span.clone())),
            Box::pin(writer.instrument(span.clone())),
            Box::pin(receiver),
            Box::pin(accept.instrument(span.clone())),
        ];
        tokio::spawn(Bundle::new(parts));
        let remote = connection.remote_address();
        end_with_carrier(&connection, carriers);
        Self {
            id,
            addr: hello.id.addr(),
            peer: hello.id,
            instance: hello.instance,
            stub: hello.stub,
            transit: hello.transit,
            cost: own.cost,
            measured: None,
            their_cost: hello.cost,
            dialled,
            cookie_in: own.cookie,
            cookie_out: hello.cookie,
            observed: hello.observed,
            remote,
            place: carriers.remote(remote),
            local: connection.local_ip(),
            view: Arc::new(LinkView {
                connection: Arc::new(connection.clone()),
                usage: usage.clone(),
            }),
            connection,
            since: now,
            usage,
            outbox: Some(outbox),
            asked,
            vetted,
            span,
        }
    }

    /// The neighbour's address in the network, an IPv4 address unmapped.
    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.place.unwrap_or(self.remote);
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// What its packets travel in.
    pub(crate) fn carrier(&self) -> Carrier {
        if carrier::is_carrier(self.remote) { Carrier::Tls } else { Carrier::Udp }
    }

    /// The address at which the neighbour sees this node's UDP port. `None` if it sees a TCP port.
    pub(crate) fn observed_udp(&self) -> Option<SocketAddr> {
        (self.carrier() == Carrier::Udp).then_some(self.observed)
    }

    /// Queues a frame for the neighbour. A neighbour that does not take its frames loses the link.
    pub(crate) fn send(&self, frame: &Frame) {
        // A closed link stays until its end comes back as an input; its frames may still be coming
        // in.
        if let Some(outbox) = &self.outbox
            && self.connection.close_reason().is_none()
            && outbox.try_send(frame.encode()).is_err()
        {
            self.close(CloseCode::Overloaded, "control frames are not being read");
        }
    }

    /// Queues a message of the router.
    pub(crate) fn send_route(&self, message: &Message) {
        self.asked.note(message);
        self.send(&Frame::Route(message.encode().into()));
    }

    /// Sends nothing more, and closes the connection once the neighbour has what was sent: this
    /// node shuts down.
    pub(crate) fn finish(&mut self) {
        // The neighbour closes as soon as it has read the last frame; that is not the cause.
        self.connection.will_end(Cause::this(EndReason::ShutDown));
        self.outbox = None;
    }

    /// Closes the connection; its end comes back as an input.
    pub(crate) fn close(&self, code: CloseCode, why: &str) {
        debug!(parent: &self.span, %code, why, "closing");
        self.connection.close(code, why);
    }

    /// Closes the connection after the neighbour has left, or its process has gone.
    pub(crate) fn close_because(&self, cause: Cause, code: CloseCode, why: &str) {
        debug!(parent: &self.span, %code, why, "closing");
        self.connection.close_because(cause, code, why);
    }

    /// Bytes that distinguish two connections between the same nodes, the same at both ends.
    pub(crate) fn exporter(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        // It fails only before the handshake is done, and then for all alike.
        let _ =
            self.connection.export_keying_material(&mut bytes, b"EXPORTER receptor-quic link", b"");
        bytes
    }
}

/// Closes a link when its carrier ends, if it has one.
fn end_with_carrier(link: &Connection, carriers: &Carriers) {
    let remote = link.remote_address();
    if carrier::is_carrier(remote) {
        let (ended, link) = (carriers.until_ended(remote), link.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = ended => link.close(CloseCode::Unreachable, "its TCP connection ended"),
                _ = link.closed() => {}
            }
        });
    }
}

/// Verifies certificates and signatures that come in on a link before the driver sees what they
/// belong to.
struct Examiner {
    vetted: Arc<Vetted>,
    checks: CredentialChecks,
    asked: Asked,
    /// `None` if either end is a stub: the driver ignores records on such a link, and none are
    /// kept.
    ahead: Option<Ahead>,
}

async fn read(
    id: LinkId,
    mut frames: FrameReader,
    connection: Connection,
    mut examiner: Examiner,
    inputs: mpsc::Sender<Input>,
) {
    let mut attachments = AttachmentPace::default();
    loop {
        match frames.next().await {
            Ok(Some(Frame::Authenticator(proof))) => examiner.vetted.offer(proof).await,
            Ok(Some(Frame::Attach(signed))) => {
                let SignedStatement { statement, signature, credential } = signed;
                let attachment = match Attachment::decode(statement, signature, credential) {
                    Ok(attachment) => attachment,
                    Err(error) => {
                        debug!(%error, "closing");
                        connection.close(CloseCode::BadFrame, &error.to_string());
                        break;
                    }
                };
                if !attachments.take(clock::now()) {
                    connection.close(CloseCode::Overloaded, "the attachment is proven too often");
                    break;
                }
                let verified = examiner.vetted.verify_attachment(Box::new(attachment)).await;
                let Some((attachment, verdict)) = verified else { break };
                if inputs.send(Input::Attached { link: id, attachment, verdict }).await.is_err() {
                    return;
                }
            }
            Ok(Some(frame)) => match input(id, frame) {
                Ok(Some(input)) => {
                    let Examiner { checks, asked, ahead, .. } = &mut examiner;
                    if let (Input::Route { message, .. }, Some(ahead)) = (&input, ahead) {
                        checks.prepare(ahead, asked, message, clock::now()).await;
                    }
                    if inputs.send(input).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err((code, why)) => {
                    debug!(%code, why, "closing");
                    connection.close(code, &why);
                    break;
                }
            },
            Ok(None) => {
                // Closing is up to the driver, after the frames before this: the last one is the
                // neighbour's withdrawal.
                connection.will_end(Cause::other(EndReason::ShutDown));
                if inputs.send(Input::Finished { link: id }).await.is_err() {
                    return;
                }
                break;
            }
            Err(ReadFrameError::Frame(error)) => {
                debug!(%error, "closing");
                connection.close(error.code(), &error.to_string());
                break;
            }
            Err(ReadFrameError::Stream(_)) => {
                connection.close(CloseCode::BadFrame, "the control stream was reset");
                break;
            }
        }
    }
}

/// Paces the proofs that a stub sends: each costs a certificate chain.
#[derive(Default)]
struct AttachmentPace {
    /// When the allowance is full again.
    full_at: Option<Instant>,
}

impl AttachmentPace {
    /// Proofs in a row, and how long each takes to be allowed again. A stub sends a new proof when
    /// it has lost a neighbour.
    const BURST: u32 = 32;
    const EVERY: Duration = Duration::from_secs(1);

    fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + Self::EVERY;
        self.full_at = Some(full_at);
        full_at <= now + Self::BURST * Self::EVERY
    }
}

/// What a frame is to the driver; nothing, if it is a message of ROUTE2 that this version does not
/// know.
fn input(link: LinkId, frame: Frame) -> Result<Option<Input>, (CloseCode, String)> {
    let Frame::Route(message) = frame else { return Ok(Some(Input::Frame { link, frame })) };
    match Message::decode(&message) {
        Ok(message) => Ok(message.map(|message| Input::Route { link, message })),
        Err(error @ DecodeError::TooLong { .. }) => {
            Err((CloseCode::FrameTooLong, error.to_string()))
        }
        Err(error) => Err((CloseCode::BadFrame, error.to_string())),
    }
}

async fn write(
    id: LinkId,
    mut control: quinn::SendStream,
    connection: Connection,
    mut queue: mpsc::Receiver<Vec<u8>>,
    inputs: mpsc::Sender<Input>,
) {
    let mut batch = Vec::new();
    while let Some(frame) = queue.recv().await {
        batch.extend_from_slice(&frame);
        while batch.len() < WRITE_BATCH
            && let Ok(frame) = queue.try_recv()
        {
            batch.extend_from_slice(&frame);
        }
        if let Err(error) = control.write_all(&batch).await {
            // The loss of the connection is the reader's to report; here, only this half may be
            // over.
            if matches!(error, quinn::WriteError::Stopped(_)) {
                connection.close(CloseCode::BadFrame, "the control stream is not being read");
            }
            return;
        }
        batch.clear();
        if queue.is_empty() && inputs.send(Input::Written { link: id }).await.is_err() {
            return;
        }
    }
    // The driver is done with the link: what was written is delivered before the connection is
    // closed.
    if control.finish().is_ok() {
        let _ = tokio::time::timeout(FAREWELL, control.stopped()).await;
    }
    connection.close(CloseCode::Leaving, "leaving");
}
