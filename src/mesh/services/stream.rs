//! A bidirectional stream to a service on another node.

mod error;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::FirstCause;
use super::ending::{Cause, Ending};
use super::open_streams::{Delivery, Finished, OpenHalf, OpenStreams};
use super::patience::HalfPatience;
use super::usage::{HalfLease, StreamLease};
use super::windows::writers::WriteWait;
use crate::mesh::access::grant::Grant;
use crate::mesh::services::opening::refuse::{ACCEPTED, RefusedOpen};
use crate::sync::lock;
use crate::transport::code::StreamCode;

pub use error::StreamError;

/// A bidirectional stream to a service on another node, ordered and reliable, with backpressure
/// from end to end.
///
/// It implements [`AsyncRead`] and [`AsyncWrite`]. `shutdown` finishes the sending side: the other
/// end reads to the end of what was written. Dropping the stream resets what was not finished and
/// stops what was not read to its end; the other side sees [`StreamError::Reset`] or
/// [`StreamError::Stopped`] with [`StreamCode::Dropped`].
#[derive(Debug)]
pub struct Stream {
    /// The sending half.
    pub send: SendHalf,
    /// The receiving half.
    pub recv: RecvHalf,
}

impl Stream {
    /// A stream that needs no answer: the side that accepted it. `first` is the record of its
    /// connection's end.
    pub(crate) fn new(
        send: quinn::SendStream,
        recv: quinn::RecvStream,
        first: &FirstCause,
    ) -> Self {
        Self {
            send: SendHalf(Box::new(Sending {
                inner: Inner::Open(send),
                sent: 0,
                connection: first.clone(),
                wait: WriteWait::default(),
                open: None,
                patience: HalfPatience::default(),
                _lease: None,
            })),
            recv: RecvHalf(Box::new(Receiving {
                inner: recv,
                first: Bytes::new(),
                received: 0,
                stopped: false,
                answer: Answer::Accepted,
                open: None,
                connection: first.clone(),
                patience: HalfPatience::default(),
                _lease: None,
            })),
        }
    }

    /// A stream whose OPEN header is on its way: what comes first is the answer to it.
    pub(crate) fn opened(
        send: quinn::SendStream,
        recv: quinn::RecvStream,
        first: &FirstCause,
    ) -> Self {
        let mut stream = Self::new(send, recv, first);
        stream.recv.0.answer = Answer::Awaited(Vec::new());
        stream
    }

    /// Begins with data that was read already.
    pub(crate) fn with_first(mut self, first: Bytes) -> Self {
        self.recv.0.first = first;
        self
    }

    /// Counts as a stream of its connection for as long as either half lives.
    pub(crate) fn leased(mut self, lease: StreamLease) -> Self {
        self.send.0._lease = Some(lease.send);
        self.recv.0._lease = Some(lease.recv);
        if let Some(patience) = lease.patience {
            self.send.0.patience = HalfPatience::new(patience.clone());
            self.recv.0.patience = HalfPatience::new(patience);
        }
        self
    }

    /// Has the stream end when it is no longer allowed.
    pub(crate) fn granted(mut self, grant: Option<&Arc<Grant>>) -> Self {
        if let Some(grant) = grant {
            self.send.depend_on(grant);
            self.recv.depend_on(grant);
        }
        self
    }

    /// Has a shutdown of the node wait until both halves have ended.
    pub(crate) fn counted(mut self, streams: &OpenStreams) -> Self {
        self.send.0.open = Some(streams.enter());
        self.recv.0.open = Some(streams.enter());
        self
    }

    /// Has a shutdown not wait for the stream: it waits for what the stream belongs to.
    pub(crate) fn uncounted(mut self) -> Self {
        (self.send.0.open, self.recv.0.open) = (None, None);
        self
    }

    /// Waits until the other side has accepted the stream. Data may be written before: no round
    /// trip is needed.
    ///
    /// Not needed before reading, which waits for the answer by itself. Cancel safe.
    ///
    /// # Errors
    /// [`StreamError::Refused`] says why it was not accepted; else the stream was reset or its
    /// connection lost.
    pub async fn accepted(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| self.recv.poll_answer(cx)).await
    }

    /// The two halves, to be used from two tasks.
    #[must_use]
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }
}

/// The sending half of a [`Stream`]. Dropped before [`finish`](Self::finish), it resets its
/// direction.
#[derive(Debug)]
pub struct SendHalf(Box<Sending>);

/// Boxed, as is the receiving half: a stream is moved some ten times on its way between QUIC and
/// the application, from future to future and through the queue of its service.
#[derive(Debug)]
struct Sending {
    inner: Inner,
    sent: u64,
    connection: FirstCause,
    wait: WriteWait,
    /// Held until it has ended.
    open: Option<OpenHalf>,
    patience: HalfPatience,
    _lease: Option<HalfLease>,
}

/// QUIC's half, by what this side has done with it.
#[derive(Debug)]
enum Inner {
    Open(quinn::SendStream),
    /// Shared with what a shutdown waits for.
    Finished(Arc<FinishedHalf>),
    Reset,
}

/// A half that was finished.
#[derive(Debug)]
struct FinishedHalf(Mutex<quinn::SendStream>);

impl FinishedHalf {
    fn lock(&self) -> MutexGuard<'_, quinn::SendStream> {
        // Nothing panics while it is held.
        lock(&self.0)
    }
}

impl Finished for FinishedHalf {
    fn is_delivered(&self) -> bool {
        // quinn forgets a stream with the last acknowledgement.
        self.lock().priority().is_err()
    }

    fn delivery(&self) -> Delivery {
        let stopped = self.lock().stopped();
        Box::pin(async { drop(stopped.await) })
    }
}

impl Inner {
    /// QUIC's half, as long as more can be written; `sent` is for the error.
    fn writable(&mut self, sent: u64) -> Result<&mut quinn::SendStream, StreamError> {
        match self {
            Self::Open(stream) => Ok(stream),
            Self::Finished(_) | Self::Reset => Err(StreamError::Finished { bytes: sent }),
        }
    }
}

impl SendHalf {
    /// Writes all of `data` without copying it. Waits while the other side's window is full.
    ///
    /// Not cancel safe: if the future is dropped, some of the data may have been written;
    /// [`bytes_sent`](Self::bytes_sent) says how much.
    ///
    /// # Errors
    /// The other side stopped the stream, or the connection was lost. The error says how much of
    /// all data was accepted for sending, a part of `data` included. Nothing more can be written.
    pub async fn write_chunk(&mut self, data: Bytes) -> Result<(), StreamError> {
        let mut rest = [data];
        while !rest[0].is_empty() {
            let written = poll_fn(|cx| {
                self.poll_room(cx, |stream, cx| pin!(stream.write_chunks(&mut rest)).poll(cx))
            });
            let bytes = written.await?.bytes;
            self.count(bytes);
        }
        Ok(())
    }

    /// Writes all of `data`, copying it. As [`write_chunk`](Self::write_chunk) otherwise.
    ///
    /// # Errors
    /// As [`write_chunk`](Self::write_chunk).
    pub async fn write_all(&mut self, data: &[u8]) -> Result<(), StreamError> {
        let mut rest = data;
        while !rest.is_empty() {
            let written = poll_fn(|cx| self.poll_some(cx, rest)).await?;
            rest = &rest[written..];
        }
        Ok(())
    }

    /// Polls one write, or the end of the half. Writes keep nothing in their futures.
    fn poll_room<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(
            &mut quinn::SendStream,
            &mut Context<'_>,
        ) -> Poll<Result<T, quinn::WriteError>>,
    ) -> Poll<Result<T, StreamError>> {
        self.given_up()?;
        let stream = self.0.inner.writable(self.0.sent)?;
        match self.0.wait.poll(cx, self.0.connection.writers(), |cx| write(stream, cx)) {
            Poll::Ready(written) => Poll::Ready(written.map_err(|error| self.explain(error))),
            Poll::Pending => {
                let cause = ready!(self.0.patience.poll(cx));
                Poll::Ready(Err(self.unreachable(cause)))
            }
        }
    }

    /// Writes the start of `data`, as far as there is room.
    fn poll_some(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, StreamError>> {
        let written = ready!(self.poll_room(cx, |stream, cx| pin!(stream.write(data)).poll(cx)))?;
        self.count(written);
        Poll::Ready(Ok(written))
    }

    fn count(&mut self, written: usize) {
        self.0.sent += written as u64;
        self.0.connection.written().add(written as u64);
    }

    /// Writes the OPEN header, which is not counted. Fails with the cause if the peer is given up
    /// first.
    pub(crate) async fn write_header(
        &mut self,
        header: Bytes,
    ) -> Result<Result<(), quinn::WriteError>, Cause> {
        match &mut self.0.inner {
            Inner::Open(stream) => {
                self.0.patience.unless_given_up(stream.write_chunk(header)).await
            }
            Inner::Finished(_) | Inner::Reset => Ok(Err(quinn::WriteError::ClosedStream)),
        }
    }

    /// Writes the answer to an OPEN header, which is not counted.
    ///
    /// An opener that only sends has stopped this direction. What it sent can be read all the same,
    /// so that is not an error.
    pub(crate) async fn answer(&mut self, answer: Bytes) -> Result<(), StreamError> {
        match self.write_header(answer).await {
            Ok(Ok(()) | Err(quinn::WriteError::Stopped(_))) => Ok(()),
            Ok(Err(error)) => Err(self.explain(error)),
            Err(cause) => Err(self.unreachable(cause)),
        }
    }

    /// Counts from here: what was sent before is a header, not the application's data.
    pub(crate) fn count_from_here(&mut self) {
        self.0.sent = 0;
    }

    /// Has the half end when this is no longer allowed.
    pub(crate) fn depend_on(&mut self, grant: &Arc<Grant>) {
        self.0.patience.depend_on(grant);
    }

    /// Says that no more data comes. What was written is still delivered, as long as the node
    /// lives.
    pub fn finish(&mut self) {
        if self.0.patience.is_revoked() && matches!(self.0.inner, Inner::Open(_)) {
            return self.reset(StreamCode::NotAllowed);
        }
        self.0.inner = match std::mem::replace(&mut self.0.inner, Inner::Reset) {
            Inner::Open(mut stream) => {
                // An error means that the other side has stopped it: nothing is left to do.
                let _ = stream.finish();
                let finished = Arc::new(FinishedHalf(Mutex::new(stream)));
                if let Some(open) = self.0.open.take() {
                    open.finish(finished.clone());
                }
                Inner::Finished(finished)
            }
            ended => ended,
        };
    }

    /// Gives up: what was not delivered yet is lost, and the other side's reads fail with `code`.
    pub fn reset(&mut self, code: StreamCode) {
        self.0.open = None;
        match std::mem::replace(&mut self.0.inner, Inner::Reset) {
            Inner::Open(mut stream) => drop(stream.reset(code.to_quic())),
            Inner::Finished(stream) => drop(stream.lock().reset(code.to_quic())),
            Inner::Reset => {}
        }
    }

    /// Waits until the other side has acknowledged everything after [`finish`](Self::finish)
    /// (`None`), or has stopped reading (the code).
    ///
    /// # Errors
    /// The connection was lost first. [`StreamError::Finished`] after [`reset`](Self::reset): there
    /// is nothing to wait for.
    pub async fn stopped(&self) -> Result<Option<StreamCode>, StreamError> {
        let stopped = async {
            match &self.0.inner {
                Inner::Open(stream) => Some(stream.stopped().await),
                Inner::Finished(stream) => {
                    let stopped = stream.lock().stopped();
                    Some(stopped.await)
                }
                Inner::Reset => None,
            }
        };
        match self.0.patience.unless_given_up_elsewhere(stopped).await {
            Ok(Some(Ok(code))) => Ok(code.map(StreamCode::from)),
            Ok(Some(Err(quinn::StoppedError::ConnectionLost(error)))) => Err(self.lost(&error)),
            Ok(Some(Err(quinn::StoppedError::ZeroRttRejected)) | None) => {
                Err(StreamError::Finished { bytes: self.0.sent })
            }
            Err(cause) => Err(StreamError::Lost(Ending::new(cause, self.0.sent))),
        }
    }

    /// How many bytes of data were accepted for sending.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.0.sent
    }

    /// Sets the priority against the other streams of the same connection: higher goes first, 0 is
    /// the default.
    pub fn set_priority(&self, priority: i32) {
        let _ = match &self.0.inner {
            Inner::Open(stream) => stream.set_priority(priority),
            Inner::Finished(stream) => stream.lock().set_priority(priority),
            Inner::Reset => Ok(()),
        };
    }

    /// Fails once the stream has ended because it no longer waits for the peer.
    fn given_up(&mut self) -> Result<(), StreamError> {
        self.0.patience.given_up().map_or(Ok(()), |cause| Err(self.unreachable(cause)))
    }

    fn unreachable(&mut self, cause: Cause) -> StreamError {
        self.0.open = None;
        if self.0.patience.is_revoked() {
            self.reset(StreamCode::NotAllowed);
        }
        StreamError::Lost(Ending::new(cause, self.0.sent))
    }

    fn explain(&mut self, error: quinn::WriteError) -> StreamError {
        self.0.open = None;
        match error {
            quinn::WriteError::Stopped(code) => {
                StreamError::Stopped { code: code.into(), bytes: self.0.sent }
            }
            quinn::WriteError::ConnectionLost(error) => self.lost(&error),
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => {
                StreamError::Finished { bytes: self.0.sent }
            }
        }
    }

    fn lost(&self, error: &quinn::ConnectionError) -> StreamError {
        StreamError::Lost(Ending::new(self.0.connection.of(error), self.0.sent))
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if let Inner::Open(stream) = &mut self.0.inner {
            let code = match self.0.patience.is_revoked() {
                true => StreamCode::NotAllowed,
                false => StreamCode::Dropped,
            };
            let _ = stream.reset(code.to_quic());
        }
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_some(cx, buf).map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

/// The receiving half of a [`Stream`]. Dropping it before the end asks the other side to stop
/// sending.
#[derive(Debug)]
pub struct RecvHalf(Box<Receiving>);

#[derive(Debug)]
struct Receiving {
    inner: quinn::RecvStream,
    /// What came together with what goes before the data.
    first: Bytes,
    received: u64,
    /// Whether this side wants no more.
    stopped: bool,
    answer: Answer,
    connection: FirstCause,
    /// Held until it has ended.
    open: Option<OpenHalf>,
    patience: HalfPatience,
    _lease: Option<HalfLease>,
}

/// What came of the OPEN header.
#[derive(Debug)]
enum Answer {
    /// Not known yet; the bytes of a refusal as far as they came.
    Awaited(Vec<u8>),
    Accepted,
    Refused(RefusedOpen),
}

impl RecvHalf {
    /// The next piece, of at most `max` bytes, without copying; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// The other side reset the stream, or the connection was lost: the data so far is not all
    /// there was to be. [`StreamError::Finished`] after [`stop`](Self::stop).
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_chunk(cx, max)).await
    }

    /// As [`read_chunk`](Self::read_chunk).
    pub(crate) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        if self.0.stopped {
            return Poll::Ready(Err(StreamError::Finished { bytes: self.0.received }));
        }
        if !matches!(self.0.answer, Answer::Accepted) {
            ready!(self.poll_answer(cx))?;
        }
        if !self.0.first.is_empty() && max > 0 {
            let piece = self.0.first.split_to(max.min(self.0.first.len()));
            self.0.received += piece.len() as u64;
            return Poll::Ready(Ok(Some(piece)));
        }
        self.given_up()?;
        // quinn keeps the waker when the future is dropped.
        let read = {
            let mut reading = pin!(self.0.inner.read_chunk(max, true));
            reading.as_mut().poll(cx)
        };
        Poll::Ready(match read {
            Poll::Pending => {
                let cause = ready!(self.0.patience.poll(cx));
                Err(self.lost(cause))
            }
            Poll::Ready(Ok(Some(chunk))) => {
                self.0.received += chunk.bytes.len() as u64;
                Ok(Some(chunk.bytes))
            }
            Poll::Ready(Ok(None)) => {
                self.0.open = None;
                Ok(None)
            }
            Poll::Ready(Err(error)) => Err(self.explain(error)),
        })
    }

    /// Has the half end when this is no longer allowed.
    pub(crate) fn depend_on(&mut self, grant: &Arc<Grant>) {
        self.0.patience.depend_on(grant);
    }

    /// Tells the other side that nothing more will be read. Reads fail from then on, unless the end
    /// was read before.
    pub fn stop(&mut self, code: StreamCode) {
        self.0.open = None;
        // An error means that the end was read before, or a reset.
        if self.0.inner.stop(code.to_quic()).is_ok() {
            self.0.stopped = true;
            self.0.first = Bytes::new();
        }
    }

    /// Puts back what was read last, and counts from here: what was read before is a header, not
    /// the application's data.
    pub(crate) fn begin_with(&mut self, rest: Bytes) {
        self.0.first = match self.0.first.is_empty() {
            true => rest,
            false => Bytes::from([&rest[..], &self.0.first[..]].concat()),
        };
        self.0.received = 0;
    }

    /// How many bytes were read.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.0.received
    }

    /// Reads the answer to the OPEN header, if it was not read before.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.0.stopped {
            return Poll::Ready(Err(StreamError::Finished { bytes: self.0.received }));
        }
        loop {
            let refusal = match &mut self.0.answer {
                Answer::Accepted => return Poll::Ready(Ok(())),
                Answer::Refused(why) => return Poll::Ready(Err(StreamError::Refused(why.clone()))),
                Answer::Awaited(refusal) => refusal,
            };
            if let Some(cause) = self.0.patience.ended() {
                return Poll::Ready(Err(self.lost(cause)));
            }
            let read = {
                let mut reading = pin!(self.0.inner.read_chunk(usize::MAX, true));
                reading.as_mut().poll(cx)
            };
            let Poll::Ready(read) = read else {
                let cause = ready!(self.0.patience.poll(cx));
                return Poll::Ready(Err(self.lost(cause)));
            };
            match read {
                Ok(Some(chunk)) if refusal.is_empty() && chunk.bytes.first() == Some(&ACCEPTED) => {
                    self.0.first = chunk.bytes.slice(1..);
                    self.0.answer = Answer::Accepted;
                }
                Ok(Some(chunk)) if refusal.len() + chunk.bytes.len() < RefusedOpen::MAX_LEN => {
                    refusal.extend_from_slice(&chunk.bytes);
                }
                Ok(_) => {
                    let body = refusal.get(1..).unwrap_or_default();
                    self.0.answer = Answer::Refused(RefusedOpen::decode(body));
                    self.0.open = None;
                }
                Err(error) => return Poll::Ready(Err(self.explain(error))),
            }
        }
    }

    /// Fails once a read has reported that the stream no longer waits for the peer. Until then,
    /// what has arrived is still delivered.
    fn given_up(&mut self) -> Result<(), StreamError> {
        self.0.patience.ended().map_or(Ok(()), |cause| Err(self.lost(cause)))
    }

    fn lost(&mut self, cause: Cause) -> StreamError {
        self.0.open = None;
        if self.0.patience.is_revoked() {
            let _ = self.0.inner.stop(StreamCode::NotAllowed.to_quic());
        }
        StreamError::Lost(Ending::new(cause, self.0.received))
    }

    fn explain(&mut self, error: quinn::ReadError) -> StreamError {
        self.0.open = None;
        match error {
            quinn::ReadError::Reset(code) => {
                StreamError::Reset { code: code.into(), bytes: self.0.received }
            }
            quinn::ReadError::ConnectionLost(error) => {
                StreamError::Lost(Ending::new(self.0.connection.of(&error), self.0.received))
            }
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => StreamError::Finished { bytes: self.0.received },
        }
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        if self.0.patience.is_revoked() {
            // An error means that the end was read before, or that it was stopped.
            let _ = self.0.inner.stop(StreamCode::NotAllowed.to_quic());
        }
    }
}

impl AsyncRead for RecvHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_answer(cx))?;
        if !this.0.first.is_empty() && buf.remaining() > 0 {
            let piece = this.0.first.split_to(buf.remaining().min(this.0.first.len()));
            buf.put_slice(&piece);
            this.0.received += piece.len() as u64;
            return Poll::Ready(Ok(()));
        }
        this.given_up()?;
        let (before, room) = (buf.filled().len(), buf.remaining());
        match this.0.inner.poll_read_buf(cx, buf) {
            Poll::Ready(Ok(())) => {
                let read = buf.filled().len() - before;
                this.0.received += read as u64;
                if read == 0 && room > 0 {
                    this.0.open = None;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(this.explain(error).into())),
            Poll::Pending => {
                let cause = ready!(this.0.patience.poll(cx));
                Poll::Ready(Err(this.lost(cause).into()))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
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

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}
