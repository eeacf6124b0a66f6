//! The client's side of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncWrite, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::owner::{Owners, Untrusted};
use super::protocol::{
    Answer, MAX_ANSWER, Request, SendRequest, read_chunk, read_line, write_chunks, write_end,
    write_line,
};
use crate::cli::local::{Hop, PingReply};
use crate::cli::output::flow::{Sink, Source};
use crate::cli::policy::running::ShownPolicy;
use crate::cli::process::exit::Failure;
use crate::cli::reload::report::Reloaded;
use crate::id::NodeId;
use crate::mesh::{Convergence, StatusOptions};
use crate::work::{CallOptions, Directive};

mod units;

/// How long a client waits for a place in the node's backlog.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Retry interval meanwhile: the system does not notify a client of room in the backlog.
const CONNECT_POLL: Duration = Duration::from_millis(10);
/// Bytes of an answer that are read at a time: the status of a hub is megabytes.
const READ_BUFFER: usize = 256 * 1024;

/// Asks a node through its control socket. Each request is a connection of its own.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Client {
    path: PathBuf,
}

impl Client {
    pub(in crate::cli) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(in crate::cli) async fn status<T: DeserializeOwned>(
        &self,
        options: StatusOptions,
    ) -> Result<T, Failure> {
        self.ask(&Request::Status { max_stubs: options.max_stubs }).await
    }

    pub(in crate::cli) async fn converged(&self, within: Duration) -> Result<Convergence, Failure> {
        self.ask(&Request::Converge { timeout_ms: millis(within) }).await
    }

    pub(in crate::cli) async fn ping(
        &self,
        node: &NodeId,
        timeout: Duration,
    ) -> Result<PingReply, Failure> {
        self.ask(&Request::Ping { node: node.clone(), timeout_ms: millis(timeout) }).await
    }

    pub(in crate::cli) async fn policy(&self) -> Result<ShownPolicy, Failure> {
        self.ask(&Request::Policy {}).await
    }

    pub(in crate::cli) async fn reload(&self) -> Result<Reloaded, Failure> {
        self.ask(&Request::Reload {}).await
    }

    pub(in crate::cli) async fn trace(&self, node: &NodeId) -> Result<Vec<Hop>, Failure> {
        self.ask(&Request::Trace { node: node.clone() }).await
    }

    pub(in crate::cli) async fn explain(&self, node: &NodeId) -> Result<Value, Failure> {
        self.ask(&Request::Explain { node: node.clone() }).await
    }

    /// Makes a call, and calls `queued` if it has to wait for others to end. Dropped, it cancels
    /// the call.
    pub(in crate::cli) async fn send(
        &self,
        node: &NodeId,
        directive: &Directive,
        options: CallOptions,
        mut payload: impl Source,
        mut responses: impl Sink,
        queued: impl FnOnce(),
    ) -> Result<(), Failure> {
        let mut stream = self.connect().await?;
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        let request = SendRequest {
            node: node.clone(),
            directive: directive.clone(),
            timeout_ms: options.deadline.map(millis),
            peer_timeout_ms: options.peer_timeout.map(millis),
        };
        self.request::<Value>(&mut write, &mut read, &Request::Send(request), queued).await?;
        let upload = async {
            match upload(&mut payload, &mut write).await {
                Ok(()) => payload.gone().await,
                Err(failure) => failure,
            }
        };
        let download = async {
            while let Some(chunk) =
                read_chunk(&mut read).await.map_err(|error| self.lost(&error))?
            {
                responses.put(chunk).await?;
            }
            responses.end().await?;
            self.answer::<Value>(&mut read, || {}).await.map(drop)
        };
        tokio::select! {
            result = download => result,
            failure = upload => Err(failure),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        let mut stream = self.connect().await?;
        let (read, mut write) = stream.split();
        let mut read = BufReader::with_capacity(READ_BUFFER, read);
        self.request(&mut write, &mut read, request, || {}).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        write: &mut (impl AsyncWrite + Unpin),
        read: &mut (impl AsyncBufRead + Unpin),
        request: &Request,
        queued: impl FnOnce(),
    ) -> Result<T, Failure> {
        // A node that turns the client away has said so, and may be gone before the request is
        // written.
        let _ = write_line(write, request).await;
        self.answer(read, queued).await
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        read: &mut (impl AsyncBufRead + Unpin),
        queued: impl FnOnce(),
    ) -> Result<T, Failure> {
        let mut queued = Some(queued);
        loop {
            match read_line(read, MAX_ANSWER).await.map_err(|error| self.lost(&error))? {
                Answer::Ok(value) => return Ok(value),
                Answer::Failed(failure) => return Err(failure),
                Answer::Queued {} => {
                    if let Some(queued) = queued.take() {
                        queued();
                    }
                }
            }
        }
    }

    /// Connects, and waits a while if more clients connect at once than the system queues for the
    /// node.
    ///
    /// Nothing is sent unless the directory, the socket and the process that listens belong to a
    /// trusted user.
    async fn connect(&self) -> Result<UnixStream, Failure> {
        let trusted =
            Owners::current().of_socket(&self.path).map_err(|error| self.untrusted(&error))?;
        let deadline = Instant::now() + CONNECT_WAIT;
        loop {
            match UnixStream::connect(&self.path).await {
                Ok(stream) => {
                    let peer =
                        stream.peer_cred().map_err(|error| cannot_connect(&self.path, &error))?;
                    trusted
                        .check_peer(peer.uid(), &self.path)
                        .map_err(|error| self.untrusted(&error))?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return Err(self.backlogged());
                    }
                    sleep(CONNECT_POLL).await;
                }
                Err(error) => return Err(cannot_connect(&self.path, &error)),
            }
        }
    }

    fn untrusted(&self, error: &Untrusted) -> Failure {
        match error {
            Untrusted::Io(error) => cannot_connect(&self.path, error),
            Untrusted::Hostile(why) => Failure::refused(format!(
                "{why}; nothing was sent to the control socket {}",
                self.path.display()
            )),
        }
    }

    fn backlogged(&self) -> Failure {
        Failure::busy(format!(
            "the node behind {} accepted no client within {CONNECT_WAIT:?}; nothing was sent, try again later",
            self.path.display()
        ))
    }

    /// Why an answer could not be read.
    fn lost(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        match error.kind() {
            // Another attempt would get the same answer.
            io::ErrorKind::InvalidData => Failure::failed(format!(
                "cannot parse the answer of the node behind {path}: {error}"
            )),
            _ => Failure::unreachable(format!("lost the node behind {path}: {error}")),
        }
    }
}

/// In whole milliseconds, rounded up.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// Sends the payload. A node that stops reading is not an error here: its answer says how the
/// call went.
async fn upload(
    payload: &mut impl Source,
    write: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Failure> {
    while let Some(piece) = payload.next().await? {
        if write_chunks(write, &piece).await.is_err() {
            return Ok(());
        }
    }
    let _ = write_end(write).await;
    Ok(())
}

fn cannot_connect(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::unreachable(format!("no node is listening on {path}: there is no such socket"))
        }
        io::ErrorKind::ConnectionRefused => {
            Failure::unreachable(format!("no node is listening on {path}: the socket is stale"))
        }
        io::ErrorKind::PermissionDenied => {
            Failure::refused(format!("{path} may only be used by the node's user, or root"))
        }
        _ => Failure::failed(format!("cannot connect to {path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::process::exit::Exit;

    #[tokio::test]
    async fn an_answer_that_cannot_be_parsed_is_not_a_lost_connection() {
        let client = Client::new("/run/node.sock".into());
        let answer = async |bytes: &[u8]| client.answer::<u32>(&mut &bytes[..], || {}).await;
        assert_eq!(answer(b"{\"ok\":7}\n").await, Ok(7));
        for garbled in [&b"{\"ok\":\"x\"}\n"[..], b"{\"ok\":\n", b"\n"] {
            let failure = answer(garbled).await.unwrap_err();
            assert_eq!(failure.exit, Exit::Failed, "{failure}");
            assert!(
                failure
                    .text
                    .starts_with("cannot parse the answer of the node behind /run/node.sock: ")
            );
        }
        assert_eq!(answer(b"{\"ok\":7}").await.unwrap_err().exit, Exit::Unreachable);
    }
}
