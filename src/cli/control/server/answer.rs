//! Answers to the clients of the control socket.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::timeout;

use super::super::protocol::{Answer, write_line};
use crate::cli::process::exit::Failure;

/// How long an answer may take to be taken.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What keeps the node from answering one more.
pub(super) const QUESTIONS: &str = "as many questions as it answers at a time";

/// Works for a client as long as it is there.
pub(super) async fn while_there<T>(
    read: &mut (impl AsyncBufRead + Unpin),
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        result = work => Some(result),
        // One request a connection: a client that says more is as good as gone.
        _ = read.read_u8() => None,
    }
}

/// Works for a client as long as it is there, and answers it.
pub(super) async fn answer_while_there<T: serde::Serialize>(
    read: &mut (impl AsyncBufRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    work: impl Future<Output = Result<T, Failure>>,
) -> io::Result<()> {
    match while_there(read, work).await {
        Some(result) => answer(write, result).await,
        None => Ok(()),
    }
}

pub(super) async fn answer<T: serde::Serialize>(
    write: &mut (impl AsyncWrite + Unpin),
    result: Result<T, Failure>,
) -> io::Result<()> {
    timeout(ANSWER_TIMEOUT, write_line(write, &Answer::from(result))).await?
}

pub(super) async fn fail(
    write: &mut (impl AsyncWrite + Unpin),
    failure: Failure,
) -> io::Result<()> {
    answer::<()>(write, Err(failure)).await
}

pub(super) fn busy(with: &str) -> Failure {
    Failure::busy(format!("the node is busy with {with}; nothing was started, try again later"))
}
