//! One call at the caller: the payload out, the responses in.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use uuid::Uuid;

use super::code::Code;
use super::frame::{CallFrame, FrameError, FrameReader, MAX_RESPONSE_FRAME, ResponseFrame};
use crate::id::Directive;
use crate::mesh::{EndReason, Ending, RefuseCode, RefusedOpen, SendHalf, Stream, StreamError};
use crate::transport::code::StreamCode;

/// How a call is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// How long the call may take, all in all, from now on: no limit by default.
    ///
    /// It goes along to the executor, which gives up by its own clock; the caller gives up by its
    /// own. Whole milliseconds; parts of one are rounded up.
    pub deadline: Option<Duration>,
    /// How long the call waits for a node that is unreachable: without a route to it and without a
    /// packet from it. From 0.5 s to 10 min; other values are brought within these bounds. By
    /// default, each side has [its own](crate::NodeBuilder::peer_timeout), usually 5 s.
    ///
    /// It is sent to the executor, so that both wait for as long. A longer one carries the call
    /// over longer outages; a shorter one reports a node that is gone earlier, but no earlier than
    /// the mesh notices that. See [`OpenOptions::peer_timeout`](crate::OpenOptions::peer_timeout).
    pub peer_timeout: Option<Duration>,
}

/// Calls `directive` over a stream to the `work` service of another node.
///
/// # Errors
/// The stream ended, or the deadline passed, before the call was on its way. Nothing was started.
pub(crate) async fn call(
    stream: Stream,
    directive: Directive,
    id: Uuid,
    options: CallOptions,
) -> Result<Call, CallError> {
    let deadline = options.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
    let frame = CallFrame { id, directive, deadline: options.deadline };
    let (send, recv) = stream.split();
    let mut payload = PayloadWriter { send, finished: false };
    let responses = Responses {
        reader: FrameReader::new(recv),
        id,
        deadline,
        serial: 0,
        received: 0,
        ended: None,
        timer: None,
    };
    let written = async {
        match payload.send.write_all(&frame.encode()).await {
            // The executor refuses the call: its answer, among the responses, says why.
            Ok(()) | Err(StreamError::Stopped { .. }) => Ok(()),
            Err(error) => Err(CallError::from_stream(error, 0)),
        }
    };
    within(deadline, written).await?;
    payload.send.count_from_here();
    Ok(Call { payload, responses })
}

/// A call that was made: the payload goes out, the responses come in, both at the same time.
///
/// The executor may begin to answer before it has the whole payload, and may wait for the end of
/// the payload before it answers: write the payload from another task than the one that reads, or
/// finish it first where it is small.
///
/// Dropping the call cancels it: the executor drops the handler, or kills the command.
#[derive(Debug)]
pub struct Call {
    /// What the call carries. To be [finished](PayloadWriter::finish).
    pub payload: PayloadWriter,
    /// What comes back.
    pub responses: Responses,
}

impl Call {
    /// The call's id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.responses.id
    }

    /// The two sides, to be used from two tasks.
    #[must_use]
    pub fn split(self) -> (PayloadWriter, Responses) {
        (self.payload, self.responses)
    }

    /// The next response. As [`Responses::next`].
    ///
    /// # Errors
    /// As [`Responses::next`].
    pub async fn next(&mut self) -> Result<Option<Response>, CallError> {
        self.responses.next().await
    }

    /// Cancels the call. As dropping it.
    pub fn cancel(self) {}

    /// Sends `payload`, which is all, and gathers what comes back, at most `limit` bytes. Dropped,
    /// it cancels the call.
    ///
    /// # Errors
    /// As [`Responses::collect`]. Where the executor did not want all of the payload, its answer
    /// says how it went.
    pub async fn exchange(self, payload: Bytes, limit: usize) -> Result<Bytes, CallError> {
        let (mut writer, responses) = self.split();
        let write = async move {
            // Why a write failed is for the responses to say.
            if writer.write_chunk(payload).await.is_ok() {
                writer.finish();
            }
            writer
        };
        let collect = responses.collect(limit);
        let (mut write, mut collect) = (std::pin::pin!(write), std::pin::pin!(collect));
        tokio::select! {
            biased;
            result = &mut collect => result,
            _writer = &mut write => collect.await,
        }
    }

    /// Finishes the payload and gathers what comes back, at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Responses::collect`].
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, CallError> {
        self.payload.finish();
        self.responses.collect(limit).await
    }
}

/// The payload of a call, on its way out. It implements [`AsyncWrite`], whose `shutdown` finishes
/// it.
///
/// Dropped before it is finished, it cuts the payload off: the handler gets an error in place of
/// the end, or the call is [cancelled](CallError::Cancelled) where it has not yet arrived. A write
/// fails with [`StreamError::Stopped`] where the executor wants no more of it; how the call went is
/// in the responses.
#[derive(Debug)]
pub struct PayloadWriter {
    send: SendHalf,
    finished: bool,
}

impl PayloadWriter {
    /// Sends all of `data` without copying it. Waits while the executor reads slowly.
    ///
    /// Not cancel safe: dropped half-way, some of the data may have been sent.
    ///
    /// # Errors
    /// The executor wants no more, or the connection was lost. Nothing more can be sent.
    pub async fn write_chunk(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.send.write_chunk(data).await
    }

    /// Says that this was all of the payload.
    pub fn finish(&mut self) {
        self.finished = true;
        self.send.finish();
    }

    /// How many bytes of the payload were accepted for sending.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.send.bytes_sent()
    }
}

impl AsyncWrite for PayloadWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for PayloadWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.send.reset(StreamCode::Cancelled);
        }
    }
}

/// The responses of a call, as they come. Dropped before the last one, it cancels the call.
#[derive(Debug)]
pub struct Responses {
    reader: FrameReader,
    id: Uuid,
    deadline: Option<Instant>,
    serial: u64,
    /// Bytes of the bodies so far.
    received: u64,
    ended: Option<Result<(), CallError>>,
    /// Runs until the deadline, once a response had to be waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Responses {
    /// The next response; `None` after the last one. Waits for it. Cancel safe.
    ///
    /// # Errors
    /// The call failed: the variant says how. Asked again, it says the same.
    pub async fn next(&mut self) -> Result<Option<Response>, CallError> {
        if let Some(ended) = &self.ended {
            return ended.clone().map(|()| None);
        }
        poll_fn(|cx| self.poll_response(cx)).await.map(Some)
    }

    /// The next response of a call that has not ended.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, CallError>> {
        let frame = match self.poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.poll_deadline(cx));
                Err(CallError::Deadline)
            }
        };
        Poll::Ready(match frame.and_then(|frame| self.accept(frame)) {
            Ok(response) => {
                if response.last {
                    self.ended = Some(Ok(()));
                }
                Ok(response)
            }
            Err(error) => {
                self.end(&error);
                Err(error)
            }
        })
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(cx)
    }

    /// Gathers the bodies of all responses, at most `limit` bytes. Not cancel safe: dropped, it
    /// cancels the call.
    ///
    /// # Errors
    /// The call failed, or there are more than `limit` bytes; then it is cancelled.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, CallError> {
        let mut all = BytesMut::new();
        while let Some(response) = self.next().await? {
            if response.body.len() > limit - all.len() {
                return Err(CallError::TooLong { limit });
            }
            if response.last && all.is_empty() {
                return Ok(response.body);
            }
            all.extend_from_slice(&response.body);
        }
        Ok(all.freeze())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseFrame, CallError>> {
        Poll::Ready(match ready!(self.reader.poll_next(cx, MAX_RESPONSE_FRAME)) {
            Ok(Some(frame)) => {
                ResponseFrame::decode(&frame).map_err(|error| protocol(error.to_string()))
            }
            Ok(None) => Err(CallError::NoLastResponse),
            Err(FrameError::Stream(error)) => Err(CallError::from_stream(error, self.received)),
            Err(error @ (FrameError::TooLong { .. } | FrameError::Truncated)) => {
                Err(protocol(error.to_string()))
            }
        })
    }

    fn accept(&mut self, frame: ResponseFrame) -> Result<Response, CallError> {
        let expected = self.serial + 1;
        if frame.serial != expected {
            return Err(protocol(format!(
                "response {} where {expected} was expected",
                frame.serial
            )));
        }
        self.serial = expected;
        match (frame.last, frame.code.map(Code::from_number)) {
            (false, None) => {}
            (true, Some(Code::Success)) => {}
            (false, Some(_)) => {
                return Err(protocol("a code in a response that is not the last".to_owned()));
            }
            (true, None) => return Err(protocol("a last response without a code".to_owned())),
            (true, Some(code)) => return Err(CallError::from_code(code, frame)),
        }
        self.received += frame.body.len() as u64;
        Ok(Response { serial: frame.serial, last: frame.last, body: frame.body })
    }

    fn end(&mut self, error: &CallError) {
        let why = if *error == CallError::Deadline {
            StreamCode::Deadline
        } else {
            StreamCode::Cancelled
        };
        self.reader.recv_mut().stop(why);
        self.ended = Some(Err(error.clone()));
    }
}

/// Yields what [`next`](Responses::next) returns: an error ends it. A response is not lost if the
/// stream is not polled again; dropping it cancels the call.
impl futures_core::Stream for Responses {
    type Item = Result<Response, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended.is_some() { Poll::Ready(None) } else { self.poll_response(cx).map(Some) }
    }
}

/// As [`Responses`].
impl futures_core::Stream for Call {
    type Item = Result<Response, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.responses).poll_next(cx)
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.reader.recv_mut().stop(StreamCode::Cancelled);
        }
    }
}

/// A response to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// Counts the call's responses, from 1.
    pub serial: u64,
    /// No other follows: the handler did its work. A call that fails ends with a [`CallError`]
    /// instead.
    pub last: bool,
    /// What it carries, at most 64 KiB; the last one often nothing.
    pub body: Bytes,
}

/// Why a call failed. The responses that came before stand.
///
/// [`may_have_started`](Self::may_have_started) says whether the call may have had effects, and
/// [`is_transient`](Self::is_transient) whether another attempt may go better. A retry that must
/// not do the work twice:
///
/// ```
/// use receptor_quic::{CallError, Directive, Node, NodeId};
///
/// async fn once(node: &Node, at: &NodeId, directive: Directive, payload: bytes::Bytes) -> Result<bytes::Bytes, CallError> {
///     loop {
///         let Ok(call) = node.call(at, directive.clone()).await else { continue };
///         match call.exchange(payload.clone(), 1 << 20).await {
///             Err(error) if error.is_transient() && !error.may_have_started() => {}
///             result => return result,
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The node has no handler for the directive: the caller's fault, or the node has changed. The
    /// call was not started.
    #[error("the node does not handle this directive; the call was not started")]
    UnknownDirective,
    /// The node runs as many calls as it may. The call was not started; try again later.
    #[error("the node runs as many calls as it may; the call was not started")]
    Overloaded,
    /// The node runs as many calls of this caller as it may beside those of others; ephemerals that
    /// share a certificate count as one. The call was not started; try again when some of them have
    /// ended.
    #[error("the node runs as many calls of this caller as it may; the call was not started")]
    CallerLimit,
    /// The node does not allow this node the call: its policy says so, and its log names the rule.
    #[error("not allowed; the call {}", if *may_have_started { "may have been started" } else { "was not started" })]
    NotAllowed {
        /// Whether the call may have started: it was cut off when the policy changed.
        may_have_started: bool,
    },
    /// The node did not accept the call's stream. The call was not started; the code says what to
    /// do.
    #[error("{0}; the call was not started")]
    Refused(RefusedOpen),
    /// The executor does not speak this version of calls. The call was not started; upgrade one of
    /// the two nodes.
    #[error("the executor does not support the call: {error}; the call was not started")]
    UnknownVersion {
        /// The executor's words.
        error: String,
    },
    /// The node is shutting down. Try another node, or try again when this one is back.
    #[error("the node is shutting down; the call {}", if *may_have_started { "may have been started" } else { "was not started" })]
    Leaving {
        /// Whether the call may have started: it was cut off when the grace period was over.
        may_have_started: bool,
    },
    /// The handler panicked: a defect on the executor's side.
    #[error("the handler panicked")]
    Panicked,
    /// The handler, or the command, failed.
    #[error("the call failed: {}", failure(error, *code))]
    Failed {
        /// How, in one word.
        code: Code,
        /// What the handler says, or the status and the last words of the command.
        error: String,
        /// The serial of the response that said so.
        serial: u64,
    },
    /// The call was cancelled before it arrived, or by the executor.
    #[error("the call was cancelled; it may have been started")]
    Cancelled,
    /// The deadline passed, here or there. The executor ends the call as well.
    #[error("the deadline passed; the call may have been started")]
    Deadline,
    /// The stream ended without a last response: the executor's side broke off. How the call went
    /// is unknown.
    #[error("the responses ended without a last one; the call may have been started")]
    NoLastResponse,
    /// The stream or the connection was lost. How the call went is unknown, unless
    /// [`may_have_started`](Self::may_have_started) rules it out. The bytes are those of the
    /// responses before.
    #[error("{}", lost(.0))]
    Lost(Ending),
    /// There were more bytes than the limit. The call was cancelled.
    #[error("the responses are longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The executor does not keep to the protocol: its fault. The call was cancelled.
    #[error("the executor broke the protocol: {0}")]
    Protocol(String),
}

impl CallError {
    /// Whether the executor may have started the call, so that it may have had effects.
    ///
    /// `false` only if it certainly has not: it refused the call, its command could not be started,
    /// or it refused this node before it read anything. `true` in all other cases, also where
    /// unknown.
    #[must_use]
    pub fn may_have_started(&self) -> bool {
        match self {
            Self::UnknownDirective
            | Self::Overloaded
            | Self::CallerLimit
            | Self::Refused(_)
            | Self::UnknownVersion { .. } => false,
            Self::Leaving { may_have_started } | Self::NotAllowed { may_have_started } => {
                *may_have_started
            }
            Self::Failed { code, .. } => {
                !matches!(code, Code::CommandNotFound | Code::CommandNotStarted)
            }
            Self::Lost(ending) => may_have_started(ending),
            Self::Panicked
            | Self::Cancelled
            | Self::Deadline
            | Self::NoLastResponse
            | Self::TooLong { .. }
            | Self::Protocol(_) => true,
        }
    }

    /// Whether another attempt may succeed without anybody changing a setting or the program: the
    /// node was overloaded, leaving or unreachable, or the deadline passed. It is safe to repeat
    /// only what may be done twice, or what has certainly [not started](Self::may_have_started).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Overloaded
            | Self::CallerLimit
            | Self::Leaving { .. }
            | Self::Deadline
            | Self::NoLastResponse => true,
            Self::Refused(why) => why.code.is_transient(),
            Self::Lost(ending) => !matches!(ending.why, EndReason::NotTrusted(_)),
            Self::UnknownDirective
            | Self::NotAllowed { .. }
            | Self::UnknownVersion { .. }
            | Self::Panicked
            | Self::Failed { .. }
            | Self::Cancelled
            | Self::TooLong { .. }
            | Self::Protocol(_) => false,
        }
    }

    /// Who ended the call, why, and how many bytes of responses came before, where its stream or
    /// connection ended; `None` if the executor answered, or the caller gave up.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        match self {
            Self::Lost(ending) => Some(ending.clone()),
            Self::Refused(why) => StreamError::Refused(why.clone()).ending(),
            _ => None,
        }
    }

    fn from_code(code: Code, frame: ResponseFrame) -> Self {
        let error = frame.error.unwrap_or_else(|| code.to_string());
        match code {
            Code::UnknownDirective => Self::UnknownDirective,
            Code::Overloaded => Self::Overloaded,
            Code::CallerLimit => Self::CallerLimit,
            Code::BadCall => Self::UnknownVersion { error },
            Code::NotAllowed => Self::NotAllowed { may_have_started: !frame.not_started },
            Code::Leaving => Self::Leaving { may_have_started: !frame.not_started },
            Code::Panicked => Self::Panicked,
            Code::Cancelled => Self::Cancelled,
            Code::Deadline => Self::Deadline,
            _ => Self::Failed { code, error, serial: frame.serial },
        }
    }

    fn from_stream(error: StreamError, received: u64) -> Self {
        match &error {
            StreamError::Refused(why) if why.code == RefuseCode::Leaving => {
                return Self::Leaving { may_have_started: false };
            }
            StreamError::Refused(why) => return Self::Refused(why.clone()),
            StreamError::Reset { code, .. } | StreamError::Stopped { code, .. } => match code {
                StreamCode::BadHeader => return protocol("it could not read the call".to_owned()),
                StreamCode::Deadline => return Self::Deadline,
                StreamCode::Leaving => return Self::Leaving { may_have_started: true },
                StreamCode::Cancelled => return Self::Cancelled,
                StreamCode::NotAllowed => return Self::NotAllowed { may_have_started: true },
                _ => {}
            },
            StreamError::Lost(_) | StreamError::Finished { .. } => {}
        }
        match error.ending() {
            Some(mut ending) => {
                ending.bytes = received;
                Self::Lost(ending)
            }
            // Responses are read until they end, and no longer.
            None => protocol(error.to_string()),
        }
    }
}

fn may_have_started(ending: &Ending) -> bool {
    !ending.in_handshake()
}

fn lost(ending: &Ending) -> String {
    let started =
        if may_have_started(ending) { "it may have been started" } else { "it was not started" };
    format!("the call was lost: {ending}; {started}")
}

async fn within<T>(
    deadline: Option<Instant>,
    step: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    match deadline {
        None => step.await,
        Some(deadline) => timeout_at(deadline, step).await.unwrap_or(Err(CallError::Deadline)),
    }
}

fn protocol(what: String) -> CallError {
    CallError::Protocol(what)
}

/// The error's text, and the code where it says more.
fn failure(error: &str, code: Code) -> String {
    match code.to_string() {
        code if code == error => code,
        code => format!("{error} ({code})"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::mesh::EndedBy;
    use crate::work::loopback::{Pair, STREAM_WINDOW, new_id};
    use crate::work::running::backlog::RESPONSE_QUEUE;
    use crate::work::{HandlerError, MAX_RESPONSE, Registry, Request, Responder};

    async fn echo(mut request: Request, responder: Responder) -> Result<(), HandlerError> {
        while let Some(chunk) = request.payload.read_chunk(MAX_RESPONSE).await? {
            responder.send(chunk).await?;
        }
        Ok(())
    }

    async fn pair() -> Pair {
        let registry = Registry::new();
        registry.handle("test:echo", echo).unwrap();
        Pair::new(registry).await
    }

    #[tokio::test]
    async fn a_payload_comes_back_while_it_is_written_and_little_of_it_is_held_on_the_way() {
        const PIECES: usize = 128;
        let pair = pair().await;
        let (mut payload, mut responses) =
            pair.call("test:echo", CallOptions::default()).await.split();
        let underway = Arc::new(AtomicUsize::new(0));
        let sent_underway = underway.clone();
        let writer = tokio::spawn(async move {
            let mut hash = Sha256::new();
            let mut peak = 0;
            for n in 0..PIECES {
                let piece = Bytes::from(vec![n as u8; MAX_RESPONSE]);
                hash.update(&piece);
                peak =
                    peak.max(sent_underway.fetch_add(piece.len(), Ordering::Relaxed) + piece.len());
                payload.write_chunk(piece).await.unwrap();
            }
            payload.finish();
            (hash.finalize(), peak)
        });
        let mut hash = Sha256::new();
        let mut total = 0;
        while let Some(response) = responses.next().await.unwrap() {
            hash.update(&response.body);
            underway.fetch_sub(response.body.len(), Ordering::Relaxed);
            total += response.body.len();
        }
        let (sent_hash, peak) = writer.await.unwrap();
        assert_eq!((total, hash.finalize()), (PIECES * MAX_RESPONSE, sent_hash));
        // Each direction holds a window at both ends; then the queue, and one piece in each pair of
        // hands.
        let bound = 4 * STREAM_WINDOW as usize + (RESPONSE_QUEUE + 4) * MAX_RESPONSE;
        assert!(peak <= bound, "{peak} bytes were under way, more than {bound}");
    }

    #[tokio::test]
    async fn responses_arrive_before_the_payload_ends_with_serials_from_1() {
        let pair = pair().await;
        let mut call = pair.call("test:echo", CallOptions::default()).await;
        for (serial, text) in [(1, "one"), (2, "two")] {
            call.payload.write_chunk(text.into()).await.unwrap();
            let response = call.next().await.unwrap().unwrap();
            assert_eq!(response, Response { serial, last: false, body: text.into() });
        }
        call.payload.finish();
        let last = call.next().await.unwrap().unwrap();
        assert_eq!(last, Response { serial: 3, last: true, body: Bytes::new() });
        assert_eq!(call.next().await, Ok(None));
        assert_eq!(call.next().await, Ok(None));
    }

    #[tokio::test]
    async fn an_exchange_larger_than_all_windows_does_not_lock_up() {
        let pair = pair().await;
        let payload = Bytes::from(vec![3; 4 << 20]);
        let call = pair.call("test:echo", CallOptions::default()).await;
        assert_eq!(call.exchange(payload.clone(), payload.len()).await, Ok(payload.clone()));
        let call = pair.call("test:echo", CallOptions::default()).await;
        assert_eq!(
            call.exchange(payload, 1 << 20).await,
            Err(CallError::TooLong { limit: 1 << 20 })
        );
        pair.registry.idle().await;
        assert_eq!((pair.registry.counts().succeeded, pair.registry.counts().cancelled), (1, 1));
    }

    #[tokio::test]
    async fn a_payload_that_is_dropped_unfinished_is_an_error_for_the_handler() {
        let pair = pair().await;
        let (mut payload, mut responses) =
            pair.call("test:echo", CallOptions::default()).await.split();
        payload.write_chunk("x".into()).await.unwrap();
        responses.next().await.unwrap();
        drop(payload);
        let Err(CallError::Failed { code: Code::Failed, error, serial: 2 }) =
            responses.next().await
        else {
            panic!("a cut payload must fail the call");
        };
        assert!(error.contains("reset the stream") && error.contains("cancelled"), "{error}");
    }

    #[tokio::test]
    async fn what_breaks_the_protocol_is_an_error_and_never_a_success() {
        let response = |serial, last, code| {
            let frame = ResponseFrame { serial, last, code, ..ResponseFrame::default() };
            frame.encode_head()
        };
        let first = response(1, false, None);
        type Check = fn(&CallError) -> bool;
        let cases: [(Vec<u8>, Check); 8] = [
            (vec![], |error| *error == CallError::NoLastResponse),
            (first.clone(), |error| *error == CallError::NoLastResponse),
            (
                first[..6].to_vec(),
                |error| matches!(error, CallError::Protocol(why) if why.contains("within a frame")),
            ),
            (
                response(2, true, Some(0)),
                |error| matches!(error, CallError::Protocol(why) if why.contains("response 2")),
            ),
            (
                response(1, true, None),
                |error| matches!(error, CallError::Protocol(why) if why.contains("without a code")),
            ),
            (
                response(1, false, Some(0)),
                |error| matches!(error, CallError::Protocol(why) if why.contains("not the last")),
            ),
            (
                vec![0xff; 64],
                |error| matches!(error, CallError::Protocol(why) if why.contains("at most")),
            ),
            (vec![0, 0, 0, 2, 0xc1, 0xc1], |error| matches!(error, CallError::Protocol(_))),
        ];
        let pair = pair().await;
        for (bytes, expected) in cases {
            let (calling, mut served) = pair.stream().await;
            served.send.write_all(&bytes).await.unwrap();
            served.send.finish();
            let id = new_id();
            let call =
                call(calling, "a:b".parse().unwrap(), id, CallOptions::default()).await.unwrap();
            let (_payload, mut responses) = call.split();
            let error = loop {
                match responses.next().await {
                    Ok(Some(response)) => assert!(!response.last),
                    Ok(None) => panic!("a success for {bytes:02x?}"),
                    Err(error) => break error,
                }
            };
            assert!(expected(&error), "{error:?} for {bytes:02x?}");
            assert_eq!(responses.next().await, Err(error));
        }
    }

    #[tokio::test]
    async fn a_lost_connection_is_an_error_that_says_so() {
        let pair = pair().await;
        let mut call = pair.call("test:echo", CallOptions::default()).await;
        call.payload.write_chunk("x".into()).await.unwrap();
        call.next().await.unwrap();
        pair.executor.close(0u32.into(), b"");
        assert!(
            matches!(call.next().await, Err(CallError::Lost(ending)) if ending.by == EndedBy::Other)
        );
        pair.registry.idle().await;
        assert_eq!(pair.registry.counts().cancelled, 1);
    }

    #[test]
    fn codes_of_later_versions_are_failures() {
        let frame =
            ResponseFrame { serial: 4, last: true, code: Some(77), ..ResponseFrame::default() };
        let error = CallError::from_code(Code::Unknown(77), frame);
        let text = "unknown code 77".to_owned();
        assert_eq!(error, CallError::Failed { code: Code::Unknown(77), error: text, serial: 4 });
    }
}
