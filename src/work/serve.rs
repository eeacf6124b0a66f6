//! One call at the executor: read the CALL frame, run the handler, write the responses.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Instrument as _;

use super::code::Code;
use super::frame::{
    BadCall, CallFrame, FrameError, FrameReader, MAX_CALL_FRAME, ResponseFrame, cut_error_text,
};
use super::handler::{Handler, HandlerError, Request};
use super::payload::Payload;
use super::registry::{Phase, Registry, count};
use super::responder::{LastBody, Responder};
use crate::id::NodeId;
use crate::mesh::access::connection::{Access, NotAllowed};
use crate::mesh::access::grant::Grant;
use crate::mesh::report::log::{LogKind, LogLimits};
use crate::mesh::{Incoming, SendHalf, Stream, StreamError};
use crate::policy::Action;
use crate::sync::lock;
use crate::transport::code::StreamCode;
use crate::work::running::backlog::Waiting;
use crate::work::running::over;

/// How long a caller may take to send its CALL frame after the stream was opened.
const CALL_WAIT: Duration = Duration::from_secs(10);

/// How long the last response of a call that was cut off may wait for a caller who does not read.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// How long a finished stream is watched, so that a shutdown does not lose the last response.
const RECEIPT_WAIT: Duration = Duration::from_secs(5);

impl Registry {
    /// Serves one call on a stream that was just accepted. Complete when the call is over.
    ///
    /// Dropped, it ends the call: the handler is dropped and both directions of the stream are
    /// reset.
    pub(crate) async fn serve(&self, incoming: Incoming) {
        let _inflight = self.enter();
        // A shutdown waits for the call.
        let Incoming { peer, stream, access, .. } = incoming;
        serve(self, peer, stream.uncounted(), &access).await;
    }
}

async fn serve(registry: &Registry, caller: NodeId, stream: Stream, access: &Access) {
    let (send, recv) = stream.split();
    let mut reader = FrameReader::new(recv);
    let responses =
        ResponseSender { send, sent: 0, not_started: false, mid_frame: false, finished: false };
    let call = match read_call(registry.phase(), &mut reader).await {
        Ok(call) => call,
        Err(refusal) => return refuse(registry, &caller, refusal, reader, responses).await,
    };
    // Before anything shows whether somebody handles the directive.
    let allowed =
        access.allow(&Action::call(&call.directive)).map_err(|NotAllowed| Code::NotAllowed);
    let admitted =
        allowed.and_then(|grant| Ok((grant, registry.admit(&caller, call.id, &call.directive)?)));
    let (grant, (handler, place)) = match admitted {
        Ok(admitted) => admitted,
        Err(code) => {
            let refusal = Refusal::Answer(code, code.to_string());
            return refuse(registry, &caller, refusal, reader, responses).await;
        }
    };
    let span = tracing::debug_span!("call", id = %call.id, directive = %call.directive, %caller);
    let served = CallParts { caller, call, reader, responses };
    let mut running = Running::start(handler, served, registry, &span);
    async {
        let outcome = running.run(registry.phase(), &grant).await;
        running.wind_up(&outcome).await;
        // The place is free only now: an aborted handler may be busy up to its next await.
        drop(place);
        outcome.count(registry);
        running.responses.wait_for_receipt().await;
    }
    .instrument(span)
    .await;
}

/// Why nothing was started.
enum Refusal {
    /// Both directions end with this code.
    Reset(StreamCode),
    /// The caller gets a last response.
    Answer(Code, String),
}

async fn read_call(
    mut phase: watch::Receiver<Phase>,
    reader: &mut FrameReader,
) -> Result<CallFrame, Refusal> {
    let frame = tokio::select! {
        biased;
        frame = timeout(CALL_WAIT, reader.next(MAX_CALL_FRAME)) => frame,
        _ = phase.wait_for(|phase| *phase != Phase::Open) => {
            return Err(Refusal::Answer(Code::Leaving, Code::Leaving.to_string()));
        }
    };
    let frame = match frame {
        Ok(Ok(Some(frame))) => frame,
        Ok(Ok(None) | Err(FrameError::TooLong { .. } | FrameError::Truncated)) => {
            return Err(Refusal::Reset(StreamCode::BadHeader));
        }
        Ok(Err(FrameError::Stream(_))) => return Err(Refusal::Reset(StreamCode::Cancelled)),
        Err(_) => return Err(Refusal::Reset(StreamCode::Deadline)),
    };
    CallFrame::decode(&frame).map_err(|error| match error {
        BadCall::Version(_) => Refusal::Answer(Code::BadCall, error.to_string()),
        BadCall::Unreadable(_) => Refusal::Reset(StreamCode::BadHeader),
    })
}

async fn refuse(
    registry: &Registry,
    caller: &NodeId,
    refusal: Refusal,
    mut reader: FrameReader,
    mut responses: ResponseSender,
) {
    let counters = registry.counters();
    match refusal {
        Refusal::Reset(code) => {
            tracing::debug!(%caller, %code, "no call on the stream");
            count(match code {
                StreamCode::Cancelled => &counters.cancelled,
                _ => &counters.bad_calls,
            });
            reader.recv_mut().stop(code);
            responses.send.reset(code);
        }
        Refusal::Answer(code, text) => {
            tracing::debug!(%caller, %code, "refused a call");
            count(match code {
                Code::UnknownDirective => &counters.unknown,
                Code::Overloaded => &counters.overloaded,
                Code::CallerLimit => &counters.caller_limit,
                Code::NotAllowed => &counters.not_allowed,
                Code::Leaving => &counters.left,
                _ => &counters.bad_calls,
            });
            reader.recv_mut().stop(StreamCode::Refused);
            responses.not_started = true;
            responses.send_last_in_time(code, &text, StreamCode::Refused).await;
            responses.wait_for_receipt().await;
        }
    }
}

/// A call at work: the handler's task on one side, the caller's stream on the other.
struct Running {
    work: JoinSet<Result<(), HandlerError>>,
    bodies: mpsc::Receiver<Waiting>,
    last: LastBody,
    end: over::End,
    deadline: Option<Instant>,
    responses: ResponseSender,
    logs: LogLimits,
    caller: NodeId,
}

/// How a call ended.
enum Outcome {
    /// The handler returned or panicked, and the last response was written.
    Answered(Code),
    /// The caller went away.
    Gone(StreamError),
    /// The executor ended it.
    CutOff(StreamCode),
}

/// What a call came with.
struct CallParts {
    caller: NodeId,
    call: CallFrame,
    reader: FrameReader,
    responses: ResponseSender,
}

impl Running {
    fn start(
        handler: Arc<dyn Handler>,
        parts: CallParts,
        registry: &Registry,
        span: &tracing::Span,
    ) -> Self {
        let CallParts { caller, call, reader, responses } = parts;
        let (end, over) = over::pair();
        let (backlog, bodies) = registry.responses().backlog(&caller);
        let last = LastBody::default();
        // A deadline beyond the range of `Instant` is no deadline.
        let deadline = call.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let payload = Payload::new(reader.into_rest(), over.clone());
        let logs = registry.log_limits().clone();
        let request = Request {
            caller: caller.clone(),
            id: call.id,
            directive: call.directive,
            payload,
            deadline,
            logs: logs.clone(),
        };
        let responder = Responder::new(backlog, last.clone(), over);
        let mut work = JoinSet::new();
        // Started within the task, so that a panic on the way to the future is the handler's, too.
        let handling = async move { handler.start(request, responder).await };
        work.spawn(registry.marker().mark(handling).instrument(span.clone()));
        Self { work, bodies, last, end, deadline, responses, logs, caller }
    }

    async fn run(&mut self, mut phase: watch::Receiver<Phase>, grant: &Grant) -> Outcome {
        let deadline = self.deadline;
        tokio::select! {
            biased;
            answered = self.answer() => match answered {
                Ok(code) => Outcome::Answered(code),
                Err(error) => Outcome::Gone(error),
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                Outcome::CutOff(StreamCode::Deadline)
            }
            _ = phase.wait_for(|phase| *phase == Phase::CuttingOff) => Outcome::CutOff(StreamCode::Leaving),
            () = grant.revoked() => Outcome::CutOff(StreamCode::NotAllowed),
        }
    }

    /// Sends what the handler sends, then the last response.
    async fn answer(&mut self) -> Result<Code, StreamError> {
        let result = loop {
            tokio::select! {
                biased;
                error = self.responses.stopped() => return Err(error),
                Some(waiting) = self.bodies.recv() => self.responses.send(waiting).await?,
                Some(result) = self.work.join_next() => break result,
            }
        };
        self.bodies.close();
        while let Ok(waiting) = self.bodies.try_recv() {
            self.responses.send(waiting).await?;
        }
        match self.verdict(result) {
            Ok(()) => {
                let body = std::mem::take(&mut *lock(&self.last));
                self.responses.send_last(Code::Success, None, body).await?;
                Ok(Code::Success)
            }
            Err(HandlerError { code, text }) => {
                if self.logs.admit(LogKind::Call, &self.caller) {
                    tracing::info!(%code, text, "the call failed");
                }
                self.responses.send_last(code, Some(&text), Bytes::new()).await?;
                Ok(code)
            }
        }
    }

    /// A handler's result, or what its task came to. A panic's text stays here: it was not meant
    /// for the caller.
    fn verdict(
        &self,
        result: Result<Result<(), HandlerError>, JoinError>,
    ) -> Result<(), HandlerError> {
        let error = match result {
            Ok(result) => return result,
            Err(error) => error,
        };
        match error.try_into_panic() {
            Ok(panic) => {
                if self.logs.admit(LogKind::Call, &self.caller) {
                    tracing::warn!(panic = panic_text(&*panic), "the handler panicked");
                }
                Err(HandlerError::with_code(Code::Panicked, Code::Panicked.to_string()))
            }
            Err(_) => Err(HandlerError::with_code(
                Code::Leaving,
                "the executor's runtime is shutting down",
            )),
        }
    }

    /// Ends what an outcome leaves behind: the handler's task and the stream.
    async fn wind_up(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Answered(_) => {}
            Outcome::Gone(error) => {
                tracing::debug!(%error, "the caller is gone");
                self.cut_off(StreamCode::Cancelled);
                self.responses.send.reset(StreamCode::Cancelled);
            }
            Outcome::CutOff(why) => {
                tracing::debug!(%why, "the call is cut off");
                self.cut_off(*why);
                let code = match why {
                    StreamCode::Deadline => Code::Deadline,
                    StreamCode::NotAllowed => Code::NotAllowed,
                    _ => Code::Leaving,
                };
                self.responses.send_last_in_time(code, &code.to_string(), *why).await;
            }
        }
        self.work.shutdown().await;
    }

    fn cut_off(&mut self, why: StreamCode) {
        self.bodies.close();
        self.end.cut_off(why);
        self.work.abort_all();
    }
}

impl Outcome {
    fn count(&self, registry: &Registry) {
        let counters = registry.counters();
        count(match self {
            Self::Answered(Code::Success) => &counters.succeeded,
            Self::Answered(Code::Panicked) => &counters.panicked,
            Self::Answered(_) => &counters.failed,
            Self::Gone(StreamError::Stopped { code: StreamCode::Deadline, .. })
            | Self::CutOff(StreamCode::Deadline) => &counters.expired,
            Self::CutOff(StreamCode::NotAllowed) => &counters.not_allowed,
            Self::Gone(_) => &counters.cancelled,
            Self::CutOff(_) => &counters.left,
        });
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

/// Writes responses with serials from 1.
struct ResponseSender {
    send: SendHalf,
    sent: u64,
    /// The last response, which is the only one, says that the call was not started.
    not_started: bool,
    /// A write was given up half-way: nothing that follows would be understood.
    mid_frame: bool,
    finished: bool,
}

impl ResponseSender {
    /// Writes a response, whose memory counts until QUIC has it.
    async fn send(&mut self, waiting: Waiting) -> Result<(), StreamError> {
        let (serial, body) = (self.sent + 1, waiting.body.clone());
        self.write(ResponseFrame { serial, body, ..ResponseFrame::default() }).await
    }

    async fn send_last(
        &mut self,
        code: Code,
        error: Option<&str>,
        body: Bytes,
    ) -> Result<(), StreamError> {
        let (serial, code, error) = (self.sent + 1, Some(code.number()), error.map(cut_error_text));
        let not_started = self.not_started;
        self.write(ResponseFrame { serial, last: true, code, error, body, not_started }).await?;
        self.finished = true;
        self.send.finish();
        Ok(())
    }

    /// The last response if the stream still takes it soon, otherwise the code alone.
    async fn send_last_in_time(&mut self, code: Code, error: &str, otherwise: StreamCode) {
        let sent = !self.mid_frame
            && timeout(LAST_WAIT, self.send_last(code, Some(error), Bytes::new()))
                .await
                .is_ok_and(|sent| sent.is_ok());
        if !sent {
            self.send.reset(otherwise);
        }
    }

    async fn write(&mut self, frame: ResponseFrame) -> Result<(), StreamError> {
        self.mid_frame = true;
        self.send.write_all(&frame.encode_head()).await?;
        if !frame.body.is_empty() {
            self.send.write_chunk(frame.body).await?;
        }
        self.mid_frame = false;
        self.sent += 1;
        Ok(())
    }

    /// Waits until the caller does not want to read more, or is gone. Cancel safe.
    async fn stopped(&self) -> StreamError {
        match self.send.stopped().await {
            Ok(Some(code)) => StreamError::Stopped { code, bytes: self.send.bytes_sent() },
            Ok(None) => StreamError::Finished { bytes: self.send.bytes_sent() },
            Err(error) => error,
        }
    }

    /// Waits until the last response, if there was one, has arrived.
    async fn wait_for_receipt(&self) {
        if self.finished {
            // What it ends with changes nothing any more.
            let _ = timeout(RECEIPT_WAIT, self.send.stopped()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::sync::{Notify, oneshot};

    use super::*;
    use crate::mesh::EndReason;
    use crate::work::loopback::{Pair, incoming, node};
    use crate::work::{CallCounts, CallError, CallOptions, Directive, MAX_RESPONSE, SendError};

    fn directive(text: &str) -> Directive {
        text.parse().unwrap()
    }

    fn options(deadline_ms: u64) -> CallOptions {
        CallOptions { deadline: Some(Duration::from_millis(deadline_ms)), ..CallOptions::default() }
    }

    /// A handler that never returns, tells that it was started, and tells by a closed channel that
    /// it was dropped.
    async fn endless(registry: Registry) -> (Pair, mpsc::Receiver<()>) {
        let (alive, watch) = mpsc::channel(8);
        let handler = move |_: Request, responder: Responder| {
            let alive = alive.clone();
            async move {
                responder.send(Bytes::from_static(b"started")).await?;
                alive.send(()).await?;
                std::future::pending::<()>().await;
                Ok(())
            }
        };
        registry.handle(directive("test:endless"), handler).unwrap();
        (Pair::new(registry).await, watch)
    }

    async fn failing(_: Request, _: Responder) -> Result<(), HandlerError> {
        Err(HandlerError::new("out of paper"))
    }

    async fn panicking(_: Request, responder: Responder) -> Result<(), HandlerError> {
        responder.send(Bytes::from_static(b"so far so good")).await?;
        panic!("a secret");
    }

    #[tokio::test]
    async fn a_handler_that_fails_or_panics_is_an_error_at_the_caller() {
        let registry = Registry::new();
        registry.handle(directive("test:fail"), failing).unwrap();
        registry.handle(directive("test:panic"), panicking).unwrap();
        let early = |_: Request, _: Responder| -> std::future::Ready<Result<(), HandlerError>> {
            panic!("early")
        };
        registry.handle(directive("test:early"), early).unwrap();
        let pair = Pair::new(registry).await;

        let call = pair.call("test:fail", CallOptions::default()).await;
        let expected =
            CallError::Failed { code: Code::Failed, error: "out of paper".to_owned(), serial: 1 };
        assert_eq!(call.collect(0).await, Err(expected));

        let mut call = pair.call("test:panic", CallOptions::default()).await;
        assert_eq!(call.next().await.unwrap().unwrap().body, "so far so good");
        assert_eq!(call.next().await, Err(CallError::Panicked));

        let call = pair.call("test:early", CallOptions::default()).await;
        assert_eq!(call.collect(0).await, Err(CallError::Panicked));

        let call = pair.call("test:none", CallOptions::default()).await;
        assert_eq!(call.collect(0).await, Err(CallError::UnknownDirective));

        pair.registry.idle().await;
        let expected = CallCounts { failed: 1, panicked: 2, unknown: 1, ..CallCounts::default() };
        assert_eq!(pair.registry.counts(), expected);
    }

    #[tokio::test]
    async fn the_request_says_who_calls_and_the_last_response_carries_what_was_set() {
        let registry = Registry::new();
        let who = |mut request: Request, responder: Responder| async move {
            let payload = request.payload.collect(5).await?;
            let left = request.time_left().is_some();
            let text = format!("{} {} {payload:?} {left}", request.caller, request.directive);
            Ok(responder.set_last(text.into())?)
        };
        registry.handle(directive("test:who"), who).unwrap();
        let pair = Pair::new(registry).await;

        let mut call = pair.call("test:who", options(60_000)).await;
        call.payload.write_all(b"hello").await.unwrap();
        call.payload.shutdown().await.unwrap();
        let only = call.next().await.unwrap().unwrap();
        assert_eq!((only.serial, only.last), (1, true));
        assert_eq!(only.body, "caller test:who b\"hello\" true");

        let call = pair.call("test:who", CallOptions::default()).await;
        let error = call.exchange("longer".into(), 100).await.unwrap_err();
        assert!(error.to_string().contains("the payload is longer than the limit"), "{error}");
    }

    #[tokio::test]
    async fn a_written_stream_of_bytes_is_split_into_responses() {
        let registry = Registry::new();
        let write = |_: Request, responder: Responder| async move {
            assert_eq!(
                responder.send(Bytes::from(vec![0; MAX_RESPONSE + 1])).await,
                Err(SendError::TooLong { len: MAX_RESPONSE + 1 })
            );
            let mut writer = responder.writer();
            for _ in 0..4 {
                writer.write_all(&vec![1; 2 * MAX_RESPONSE + 1]).await?;
            }
            writer.shutdown().await?;
            assert!(writer.write_all(b"x").await.is_err());
            Ok(())
        };
        registry.handle(directive("test:write"), write).unwrap();
        let pair = Pair::new(registry).await;
        let mut call = pair.call("test:write", CallOptions::default()).await;
        let mut lens = Vec::new();
        while let Some(response) = call.next().await.unwrap() {
            lens.push(response.body.len());
        }
        let expected = [[MAX_RESPONSE, MAX_RESPONSE, 1]; 4].concat();
        assert_eq!(lens, [&expected[..], &[0]].concat());
    }

    #[tokio::test]
    async fn a_call_beyond_the_limit_is_refused_and_a_place_that_is_free_is_used_again() {
        let (pair, mut alive) = endless(Registry::with_max_running(1)).await;
        let first = pair.call("test:endless", CallOptions::default()).await;
        alive.recv().await.unwrap();
        let running = pair.registry.running();
        assert_eq!(running.len(), 1);
        assert_eq!((running[0].id, &running[0].caller), (first.id(), &node("caller")));

        let second = pair.call("test:endless", CallOptions::default()).await;
        assert_eq!(second.collect(0).await, Err(CallError::Overloaded));
        first.cancel();
        pair.registry.idle().await;
        assert_eq!(pair.registry.running(), []);

        let _third = pair.call("test:endless", CallOptions::default()).await;
        alive.recv().await.unwrap();
        let counts = pair.registry.counts();
        assert_eq!((counts.overloaded, counts.cancelled), (1, 1));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_drops_the_handler_and_tells_what_it_started() {
        let registry = Registry::new();
        let (told, mut hear) = mpsc::channel(1);
        let dropped = Arc::new(Notify::new());
        let on_drop = dropped.clone();
        let handler = move |mut request: Request, responder: Responder| {
            let (told, on_drop) = (told.clone(), on_drop.clone());
            let side = responder.clone();
            tokio::spawn(async move {
                side.cancelled().await;
                told.send((side.is_cancelled(), side.send(Bytes::new()).await)).await
            });
            async move {
                let _guard = NotifyOnDrop(on_drop);
                responder.send(Bytes::new()).await?;
                request.payload.collect(1).await?;
                Ok(())
            }
        };
        registry.handle(directive("test:side"), handler).unwrap();
        let pair = Pair::new(registry).await;
        let mut call = pair.call("test:side", CallOptions::default()).await;
        call.next().await.unwrap();
        let (payload, responses) = call.split();
        drop(responses);
        dropped.notified().await;
        pair.registry.idle().await;
        assert_eq!(hear.recv().await.unwrap(), (true, Err(SendError::Over)));
        assert_eq!(pair.registry.counts().cancelled, 1);
        drop(payload);
    }

    #[tokio::test]
    async fn what_a_clone_sends_after_the_handler_returned_is_refused() {
        let registry = Registry::new();
        let (told, mut hear) = mpsc::channel(1);
        let handler = move |_: Request, responder: Responder| {
            let told = told.clone();
            async move {
                tokio::spawn(async move {
                    responder.cancelled().await;
                    let late =
                        (responder.send(Bytes::new()).await, responder.set_last(Bytes::new()));
                    told.send(late).await
                });
                Ok(())
            }
        };
        registry.handle(directive("test:late"), handler).unwrap();
        let pair = Pair::new(registry).await;
        assert_eq!(
            pair.call("test:late", CallOptions::default()).await.collect(0).await,
            Ok(Bytes::new())
        );
        assert_eq!(hear.recv().await.unwrap(), (Err(SendError::Over), Err(SendError::Over)));
    }

    #[tokio::test]
    async fn a_deadline_ends_the_call_on_both_sides() {
        let (pair, mut alive) = endless(Registry::new()).await;
        let mut call = pair.call("test:endless", options(30)).await;
        let error = loop {
            match call.next().await {
                Ok(response) => assert!(response.is_some()),
                Err(error) => break error,
            }
        };
        assert_eq!(error, CallError::Deadline);
        // The handler is gone as well, or was never begun.
        pair.registry.idle().await;
        assert_eq!(pair.registry.counts().expired, 1);
        pair.registry.remove(&directive("test:endless"));
        while alive.recv().await.is_some() {}
    }

    #[tokio::test]
    async fn the_executor_keeps_the_deadline_by_its_own_clock() {
        let (pair, _alive) = endless(Registry::new()).await;
        let mut stream = pair.served().await;
        let deadline = Some(Duration::from_millis(1));
        let call =
            CallFrame { id: uuid::Uuid::nil(), directive: directive("test:endless"), deadline };
        stream.send.write_all(&call.encode()).await.unwrap();
        let last = last_response(stream).await;
        assert_eq!((last.code, last.error.as_deref()), (Some(6), Some("the deadline passed")));
    }

    #[tokio::test]
    async fn a_deadline_passes_even_if_the_caller_does_not_read() {
        let registry = Registry::new();
        let flood = |_: Request, responder: Responder| async move {
            loop {
                responder.send(Bytes::from(vec![0; MAX_RESPONSE])).await?;
            }
        };
        registry.handle(directive("test:flood"), flood).unwrap();
        let pair = Pair::new(registry).await;
        let _call = pair.call("test:flood", options(30)).await;
        // The first await lets the call begin.
        while pair.registry.counts().expired == 0 {
            tokio::task::yield_now().await;
        }
        pair.registry.idle().await;
    }

    #[tokio::test]
    async fn a_caller_that_does_not_read_finds_the_reason_in_the_reset() {
        for leaving in [false, true] {
            let registry = Registry::new();
            let flood = |_: Request, responder: Responder| async move {
                loop {
                    responder.send(Bytes::from(vec![0; MAX_RESPONSE])).await?;
                }
            };
            registry.handle(directive("test:flood"), flood).unwrap();
            let pair = Pair::new(registry).await;
            let mut stream = pair.served().await;
            let deadline = (!leaving).then_some(Duration::from_millis(30));
            let call =
                CallFrame { id: uuid::Uuid::nil(), directive: directive("test:flood"), deadline };
            stream.send.write_all(&call.encode()).await.unwrap();
            // The answer of the mesh is not there: what is read first are responses.
            while pair.registry.running().is_empty() && pair.registry.counts().expired == 0 {
                tokio::task::yield_now().await;
            }
            if leaving {
                pair.registry.shutdown(Duration::from_millis(30)).await;
            }
            pair.registry.idle().await;
            // The last response found no room in the window, so that the reset has to say it.
            let expected = if leaving { StreamCode::Leaving } else { StreamCode::Deadline };
            let error = last_error(stream).await;
            assert!(
                matches!(error, StreamError::Reset { code, .. } if code == expected),
                "{error:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_shutdown_lets_calls_finish_cuts_off_the_rest_and_refuses_new_ones() {
        let registry = Registry::new();
        let (go, gone) = oneshot::channel::<()>();
        let gone = Arc::new(tokio::sync::Mutex::new(Some(gone)));
        let polite = move |_: Request, responder: Responder| {
            let gone = gone.clone();
            async move {
                responder.send(Bytes::from_static(b"started")).await?;
                gone.lock().await.take().expect("called once").await?;
                Ok(responder.set_last(Bytes::from_static(b"finished"))?)
            }
        };
        registry.handle(directive("test:polite"), polite).unwrap();
        let (pair, mut alive) = endless(registry).await;
        let mut polite = pair.call("test:polite", CallOptions::default()).await;
        polite.next().await.unwrap();
        let mut endless = pair.call("test:endless", CallOptions::default()).await;
        alive.recv().await.unwrap();
        endless.next().await.unwrap();
        // A stream that never says what it wants does not hold up the shutdown.
        let mute = pair.served().await;

        let registry = pair.registry.clone();
        let mut phase = registry.phase();
        let shutdown =
            tokio::spawn(async move { registry.shutdown(Duration::from_millis(200)).await });
        phase.wait_for(|phase| *phase == Phase::Draining).await.unwrap();
        let late = pair.call("test:polite", CallOptions::default()).await;
        assert_eq!(late.collect(0).await, Err(CallError::Leaving { may_have_started: false }));
        go.send(()).unwrap();
        assert_eq!(polite.next().await.unwrap().unwrap().body, "finished");
        assert_eq!(endless.next().await, Err(CallError::Leaving { may_have_started: true }));
        shutdown.await.unwrap();
        let (_send, recv) = mute.split();
        let answer = FrameReader::new(recv).next(1_000).await.unwrap().unwrap();
        let answer = ResponseFrame::decode(&answer).unwrap();
        assert_eq!((answer.code, answer.not_started), (Some(Code::Leaving.number()), true));
        let expected = CallCounts { succeeded: 1, left: 3, ..CallCounts::default() };
        assert_eq!(pair.registry.counts(), expected);
    }

    #[tokio::test]
    async fn what_is_no_call_ends_the_stream_with_a_named_code_and_does_nothing_else() {
        let good = CallFrame {
            id: uuid::Uuid::nil(),
            directive: directive("test:endless"),
            deadline: None,
        }
        .encode();
        let bad_directive =
            rmp_serde::to_vec(&(1, serde_bytes::Bytes::new(&[0; 16]), "no colon", ())).unwrap();
        let short_id =
            rmp_serde::to_vec(&(1, serde_bytes::Bytes::new(&[0; 15]), "a:b", ())).unwrap();
        let framed = |frame: &[u8]| [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
        let cases = [
            vec![],
            good[..3].to_vec(),
            good[..good.len() - 1].to_vec(),
            framed(&[]),
            framed(&good[4..20]),
            framed(&bad_directive),
            framed(&short_id),
            framed(&[0xc1; 40]),
            framed(&[0; MAX_CALL_FRAME + 1]),
            vec![0xff; 4],
        ];
        let (pair, _alive) = endless(Registry::new()).await;
        let count = cases.len() as u64;
        for bytes in cases {
            let mut stream = pair.served().await;
            stream.send.write_all(&bytes).await.unwrap();
            stream.send.finish();
            let error = last_error(stream).await;
            assert!(
                matches!(error, StreamError::Reset { code: StreamCode::BadHeader, bytes: 0 }),
                "{error:?} for {bytes:02x?}"
            );
        }
        pair.registry.idle().await;
        let expected = CallCounts { bad_calls: count, ..CallCounts::default() };
        assert_eq!(pair.registry.counts(), expected);
    }

    #[tokio::test]
    async fn a_call_of_a_later_version_is_answered() {
        let (pair, _alive) = endless(Registry::new()).await;
        let mut stream = pair.served().await;
        stream.send.write_all(&[0, 0, 0, 3, 0x92, 2, 0xc3]).await.unwrap();
        let last = last_response(stream).await;
        assert_eq!(last.code, Some(Code::BadCall.number()));
        assert_eq!(
            last.error.unwrap(),
            "calls of version 2 are not spoken here, only of version 1"
        );
    }

    #[tokio::test]
    async fn a_service_that_is_dropped_drops_the_handler() {
        let (pair, mut alive) = endless(Registry::new()).await;
        let (calling, served) = pair.stream().await;
        let mut call = crate::work::call::call(
            calling,
            directive("test:endless"),
            uuid::Uuid::nil(),
            CallOptions::default(),
        )
        .await
        .unwrap();
        tokio::select! {
            () = pair.registry.serve(incoming(served)) => panic!("the handler is endless"),
            _ = alive.recv() => {}
        }
        pair.registry.remove(&directive("test:endless"));
        assert_eq!(alive.recv().await, None);
        let error = loop {
            match call.next().await {
                Ok(response) => assert!(!response.unwrap().last),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&error, CallError::Lost(ending) if matches!(ending.why, EndReason::Reset(_))),
            "{error:?}"
        );
        assert_eq!(pair.registry.running(), []);
    }

    async fn last_response(stream: Stream) -> ResponseFrame {
        let (_send, recv) = stream.split();
        let mut reader = FrameReader::new(recv);
        loop {
            let frame = reader.next(1 << 20).await.unwrap().expect("there is a last response");
            let response = ResponseFrame::decode(&frame).unwrap();
            if response.last {
                assert_eq!(reader.next(1 << 20).await, Ok(None));
                return response;
            }
        }
    }

    async fn last_error(mut stream: Stream) -> StreamError {
        loop {
            match stream.recv.read_chunk(1024).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended in order"),
                Err(error) => return error,
            }
        }
    }

    struct NotifyOnDrop(Arc<Notify>);

    impl Drop for NotifyOnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
}
