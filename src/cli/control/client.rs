//! The client's side of the control socket.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncWrite, BufReader};
use tokio::net::UnixStream;

use super::protocol::{
    Answer, MAX_ANSWER, Request, read_chunk, read_line, write_chunks, write_end, write_line,
};
use crate::cli::exit::Failure;
use crate::cli::flow::{Sink, Source};
use crate::cli::local::{Hop, PingReply};
use crate::id::NodeId;
use crate::mesh::Convergence;
use crate::work::Directive;

/// Asks a node through its control socket. Each request is a connection of its own.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Client {
    path: PathBuf,
}

impl Client {
    pub(in crate::cli) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(in crate::cli) async fn status(&self) -> Result<Value, Failure> {
        self.ask(&Request::Status {}).await
    }

    pub(in crate::cli) async fn converged(&self, within: Duration) -> Result<Convergence, Failure> {
        let timeout_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        self.ask_for(&Request::Converge { timeout_ms }).await
    }

    pub(in crate::cli) async fn ping(&self, node: &NodeId, timeout: Duration) -> Result<PingReply, Failure> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.ask_for(&Request::Ping { node: node.clone(), timeout_ms }).await
    }

    pub(in crate::cli) async fn trace(&self, node: &NodeId) -> Result<Vec<Hop>, Failure> {
        self.ask_for(&Request::Trace { node: node.clone() }).await
    }

    pub(in crate::cli) async fn explain(&self, node: &NodeId) -> Result<Value, Failure> {
        self.ask(&Request::Explain { node: node.clone() }).await
    }

    /// Makes a call. Dropped, it cancels the call.
    pub(in crate::cli) async fn send(
        &self,
        node: &NodeId,
        directive: &Directive,
        mut payload: impl Source,
        mut responses: impl Sink,
    ) -> Result<(), Failure> {
        let mut stream = self.connect().await?;
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        let request = Request::Send { node: node.clone(), directive: directive.clone() };
        self.request(&mut write, &mut read, &request).await?;
        let upload = async {
            match upload(&mut payload, &mut write).await {
                Ok(()) => payload.gone().await,
                Err(failure) => failure,
            }
        };
        let download = async {
            while let Some(chunk) = read_chunk(&mut read).await.map_err(|error| self.lost(&error))? {
                responses.put(chunk).await?;
            }
            self.answer(&mut read).await.map(drop)
        };
        tokio::select! {
            result = download => result,
            failure = upload => Err(failure),
        }
    }

    async fn ask_for<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        let value = self.ask(request).await?;
        serde_json::from_value(value).map_err(|error| self.lost(&error))
    }

    async fn ask(&self, request: &Request) -> Result<Value, Failure> {
        let mut stream = self.connect().await?;
        let (read, mut write) = stream.split();
        self.request(&mut write, &mut BufReader::new(read), request).await
    }

    async fn request(
        &self,
        write: &mut (impl AsyncWrite + Unpin),
        read: &mut (impl AsyncBufRead + Unpin),
        request: &Request,
    ) -> Result<Value, Failure> {
        // A node that turns the client away has said so, and may be gone before the request is written.
        let _ = write_line(write, request).await;
        self.answer(read).await
    }

    async fn answer(&self, read: &mut (impl AsyncBufRead + Unpin)) -> Result<Value, Failure> {
        let answer: Answer = read_line(read, MAX_ANSWER).await.map_err(|error| self.lost(&error))?;
        answer.into_result()
    }

    async fn connect(&self) -> Result<UnixStream, Failure> {
        UnixStream::connect(&self.path).await.map_err(|error| cannot_connect(&self.path, &error))
    }

    fn lost(&self, error: &dyn fmt::Display) -> Failure {
        Failure::failed(format!("the node behind {} broke off: {error}", self.path.display()))
    }
}

/// Sends the payload. A node that takes no more of it is no failure here: its answer says how the call went.
async fn upload(payload: &mut impl Source, write: &mut (impl AsyncWrite + Unpin)) -> Result<(), Failure> {
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
            Failure::unreachable(format!("no node runs behind {path}: there is no such socket"))
        }
        io::ErrorKind::ConnectionRefused => {
            Failure::unreachable(format!("no node runs behind {path}: nobody serves the socket"))
        }
        io::ErrorKind::PermissionDenied => {
            Failure::refused(format!("{path} may only be used by the node's user, or root"))
        }
        _ => Failure::failed(format!("cannot connect to {path}: {error}")),
    }
}
