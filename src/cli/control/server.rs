//! The node's side of the control socket.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::listen::ControlSocket;
use super::protocol::{
    Answer, MAX_REQUEST, Request, line, read_chunk, read_line, write_chunks, write_end, write_line,
};
use crate::cli::exit::Failure;
use crate::cli::flow::{Sink, Source};
use crate::cli::local::{Local, exchange};
use crate::id::NodeId;
use crate::work::Directive;

/// How many clients are served at a time.
const MAX_CLIENTS: usize = 64;

/// How long a request may take to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take to be taken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// After an accept that failed, which is for want of file descriptors: when to try again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves clients for ever. Dropped, it drops what runs for them: calls are cancelled.
pub(in crate::cli) async fn serve(socket: &ControlSocket, local: &Local) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.listener.accept() => match accepted {
                Ok((stream, _)) if clients.len() >= MAX_CLIENTS => {
                    turn_away(&stream, &Failure::failed("the node serves as many clients as it may; try again"));
                }
                Ok((stream, _)) => {
                    clients.spawn(serve_client(stream, local.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket took no connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Says why a client is not served, as far as its socket takes that at once.
fn turn_away(stream: &UnixStream, failure: &Failure) {
    let _ = stream.try_write(&line(&Answer::Failed(failure.clone())));
}

async fn serve_client(mut stream: UnixStream, local: Local) {
    if !stream.peer_cred().is_ok_and(|who| may_use(&who)) {
        tracing::warn!("another user's process tried the control socket");
        return turn_away(&stream, &Failure::refused("the control socket is for the node's user, and root"));
    }
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    // Whatever fails here is between the client and its socket: the client knows.
    let _ = match timeout(REQUEST_TIMEOUT, read_line(&mut read, MAX_REQUEST)).await {
        Ok(Ok(request)) => serve_request(request, &local, &mut read, &mut write).await,
        Ok(Err(error)) => answer(&mut write, Err(Failure::usage(format!("not a request: {error}")))).await,
        Err(_) => answer(&mut write, Err(Failure::usage("no request came"))).await,
    };
}

fn may_use(who: &UCred) -> bool {
    who.uid() == 0 || who.uid() == rustix::process::geteuid().as_raw()
}

async fn serve_request<R, W>(request: Request, local: &Local, read: &mut R, write: &mut W) -> io::Result<()>
where
    R: AsyncBufRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let result = match request {
        Request::Send { node, directive } => return serve_send(&node, directive, local, read, write).await,
        Request::Status {} => while_there(read, local.status()).await,
        Request::Converge { timeout_ms } => {
            let converged = local.converged(Duration::from_millis(timeout_ms));
            while_there(read, converged).await.map(|verdict| verdict.map(|verdict| json(&verdict)))
        }
        Request::Ping { node, timeout_ms } => {
            let ping = local.ping(&node, Duration::from_millis(timeout_ms));
            while_there(read, ping).await.map(|reply| reply.map(|reply| json(&reply)))
        }
        Request::Explain { node } => while_there(read, local.explain(&node)).await,
        Request::Trace { node } => {
            while_there(read, local.trace(&node)).await.map(|hops| hops.map(|hops| json(&hops)))
        }
    };
    match result {
        Some(result) => answer(write, result).await,
        None => Ok(()),
    }
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("plain data is JSON")
}

/// Works for a client as long as it is there.
async fn while_there<T>(read: &mut (impl AsyncBufRead + Unpin), work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        result = work => Some(result),
        // One request a connection: a client that says more is as good as gone.
        _ = read.read_u8() => None,
    }
}

async fn answer(write: &mut (impl AsyncWrite + Unpin), result: Result<Value, Failure>) -> io::Result<()> {
    timeout(ANSWER_TIMEOUT, write_line(write, &Answer::from(result))).await?
}

async fn serve_send<R, W>(
    node: &NodeId,
    directive: Directive,
    local: &Local,
    read: &mut R,
    write: &mut W,
) -> io::Result<()>
where
    R: AsyncBufRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let call = match while_there(read, local.call(node, directive)).await {
        Some(Ok(call)) => call,
        Some(Err(failure)) => return answer(write, Err(failure)).await,
        None => return Ok(()),
    };
    answer(write, Ok(Value::Null)).await?;
    let result = exchange(call, FromClient(read), ToClient(write)).await;
    timeout(ANSWER_TIMEOUT, write_end(write)).await??;
    answer(write, result.map(|()| Value::Null)).await
}

/// The payload, from the client.
struct FromClient<'a, R>(&'a mut R);

impl<R: AsyncBufRead + Unpin + Send> Source for FromClient<'_, R> {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        read_chunk(self.0).await.map_err(|error| client_gone(&error))
    }

    async fn gone(&mut self) -> Failure {
        match self.0.read_u8().await {
            Ok(_) => Failure::usage("data after the end of the payload"),
            Err(error) => client_gone(&error),
        }
    }
}

/// The responses, to the client.
struct ToClient<'a, W>(&'a mut W);

impl<W: AsyncWrite + Unpin + Send> Sink for ToClient<'_, W> {
    async fn put(&mut self, body: Bytes) -> Result<(), Failure> {
        write_chunks(self.0, &body).await.map_err(|error| client_gone(&error))
    }
}

fn client_gone(error: &io::Error) -> Failure {
    Failure::failed(format!("the client broke off: {error}"))
}
