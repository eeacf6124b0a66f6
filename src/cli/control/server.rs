//! The node's side of the control socket.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::listen::ControlSocket;
use super::protocol::{
    Answer, MAX_REQUEST, Request, SendRequest, line, read_chunk, read_line, write_chunks,
    write_end, write_line,
};
use super::reception::{MAX_QUEUED, MAX_SENDS, Reception, Room};
use crate::cli::local::{Local, exchange};
use crate::cli::output::flow::{Sink, Source};
use crate::cli::process::exit::Failure;
use crate::mesh::StatusOptions;
use crate::work::CallOptions;

mod answer;
mod units;

use answer::{ANSWER_TIMEOUT, QUESTIONS, answer, answer_while_there, busy, fail, while_there};

/// How long a request may take to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait after an accept that failed because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The shortest time between two warnings about accepts that failed.
const WARN_PAUSE: Duration = Duration::from_secs(60);

/// Serves clients for ever. Dropped, it drops what runs for them: calls are cancelled.
pub(in crate::cli) async fn serve(socket: &ControlSocket, local: &Local) {
    let reception = Reception::new();
    let mut clients = JoinSet::new();
    let mut warned: Option<Instant> = None;
    loop {
        tokio::select! {
            accepted = socket.listener.accept() => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(serve_client(stream, local.clone(), reception.clone()));
                }
                Err(error) => {
                    if warned.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
                        tracing::warn!(%error, "cannot accept a client of the control socket");
                        warned = Some(Instant::now());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Says why a client is not served, as far as its socket takes that at once.
fn turn_away(stream: &UnixStream, failure: &Failure) {
    let _ = stream.try_write(&line(&Answer::<()>::Failed(failure.clone())));
}

async fn serve_client(mut stream: UnixStream, local: Local, reception: Reception) {
    let arrival = reception.arrive();
    if !stream.peer_cred().is_ok_and(|who| may_use(&who)) {
        tracing::warn!("another user's process tried the control socket");
        return turn_away(
            &stream,
            &Failure::refused("the control socket is for the node's user, and root"),
        );
    }
    if !local.may_be_controlled() {
        return turn_away(&stream, &Failure::refused("not allowed"));
    }
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let request = tokio::select! {
        biased;
        request = timeout(REQUEST_TIMEOUT, read_line(&mut read, MAX_REQUEST)) => request,
        () = arrival.turned_away() => {
            return turn_away(&stream, &busy("many clients that have connected and sent no request"));
        }
    };
    drop(arrival);
    // Whatever fails here is between the client and its socket: the client knows.
    let _ = match request {
        Ok(Ok(request)) => serve_request(request, &local, &reception, &mut read, &mut write).await,
        Ok(Err(error)) => fail(&mut write, Failure::usage(format!("not a request: {error}"))).await,
        Err(_) => {
            let text = format!("no request came within {REQUEST_TIMEOUT:?}");
            fail(&mut write, Failure::usage(text)).await
        }
    };
}

fn may_use(who: &UCred) -> bool {
    who.uid() == 0 || who.uid() == rustix::process::geteuid().as_raw()
}

async fn serve_request<R, W>(
    request: Request,
    local: &Local,
    reception: &Reception,
    read: &mut R,
    write: &mut W,
) -> io::Result<()>
where
    R: AsyncBufRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let room = match &request {
        Request::Send(call) => return serve_send(call, local, reception, read, write).await,
        Request::Unit(request) => {
            let node_units = local.units();
            return units::serve(request.clone(), &node_units, reception, read, write).await;
        }
        Request::Status { max_stubs } => {
            let options = StatusOptions { max_stubs: *max_stubs };
            let Some(_room) = reception.snapshot().await else {
                return too_many_questions(write).await;
            };
            return answer_while_there(read, write, local.status(options)).await;
        }
        Request::Explain { .. } => reception.snapshot().await,
        Request::Converge { .. }
        | Request::Ping { .. }
        | Request::Trace { .. }
        | Request::Policy {}
        | Request::Reload {} => reception.probe().await,
    };
    let Some(_room) = room else { return too_many_questions(write).await };
    answer_while_there(read, write, ask(request, local)).await
}

async fn ask(request: Request, local: &Local) -> Result<Value, Failure> {
    match request {
        Request::Explain { node } => local.explain(&node).await,
        Request::Converge { timeout_ms } => {
            local.converged(Duration::from_millis(timeout_ms)).await.map(|verdict| json(&verdict))
        }
        Request::Ping { node, timeout_ms } => {
            local.ping(&node, Duration::from_millis(timeout_ms)).await.map(|reply| json(&reply))
        }
        Request::Trace { node } => local.trace(&node).await.map(|hops| json(&hops)),
        Request::Policy {} => local.policy().await.map(|shown| json(&shown)),
        Request::Reload {} => local.reload().await.map(|reloaded| json(&reloaded)),
        Request::Status { .. } | Request::Send(_) | Request::Unit(_) => {
            unreachable!("served on their own")
        }
    }
}

async fn too_many_questions(write: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    fail(write, busy(QUESTIONS)).await
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("plain data is JSON")
}

async fn serve_send<R, W>(
    request: &SendRequest,
    local: &Local,
    reception: &Reception,
    read: &mut R,
    write: &mut W,
) -> io::Result<()>
where
    R: AsyncBufRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let deadline = request.timeout().and_then(|limit| Instant::now().checked_add(limit));
    let _room = match wait_for_room(deadline, reception, read, write).await? {
        Some(Ok(room)) => room,
        Some(Err(failure)) => return fail(write, failure).await,
        None => return Ok(()),
    };
    let options = CallOptions {
        deadline: deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())),
        peer_timeout: request.peer_timeout(),
    };
    let call = match while_there(
        read,
        local.call(&request.node, request.directive.clone(), options),
    )
    .await
    {
        Some(Ok(call)) => call,
        Some(Err(failure)) => return fail(write, failure).await,
        None => return Ok(()),
    };
    answer(write, Ok(())).await?;
    let result = exchange(call, FromClient(read), ToClient(write)).await;
    timeout(ANSWER_TIMEOUT, write_end(write)).await??;
    answer(write, result).await
}

/// Room for a call: at once, or after others have ended. `None` if the client went away meanwhile.
async fn wait_for_room(
    deadline: Option<Instant>,
    reception: &Reception,
    read: &mut (impl AsyncBufRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
) -> io::Result<Option<Result<Room, Failure>>> {
    if let Some(room) = reception.send_now() {
        return Ok(Some(Ok(room)));
    }
    let Some(_place) = reception.queue() else {
        let text = format!("{MAX_SENDS} calls, and {MAX_QUEUED} others wait");
        return Ok(Some(Err(busy(&text))));
    };
    timeout(ANSWER_TIMEOUT, write_line(write, &Answer::<()>::Queued {})).await??;
    let room = async {
        match deadline {
            Some(deadline) => timeout_at(deadline, reception.send()).await.ok().flatten(),
            None => reception.send().await,
        }
    };
    let room = while_there(read, room).await;
    Ok(room.map(|room| {
        room.ok_or_else(|| busy(&format!("{MAX_SENDS} calls, until the time limit was over")))
    }))
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
