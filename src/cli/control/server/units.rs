//! Requests about units.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::{sleep, timeout};

use super::super::protocol::{read_chunk, write_chunks, write_end};
use super::super::reception::{MAX_UNIT_STREAMS, Reception};
use super::answer::{
    ANSWER_TIMEOUT, QUESTIONS, answer, answer_while_there, busy, fail, while_there,
};
use crate::cli::process::exit::Failure;
use crate::cli::work::id::IdPrefix;
use crate::cli::work::local::{self, LocalUnits};
use crate::cli::work::payload::{Feed, fed_payload};
use crate::cli::work::request::{ResultsRequest, SubmitRequest, UnitRequest};

/// The shortest time between two statuses of a unit that is watched, except the final one.
const WATCH_PACE: Duration = Duration::from_millis(20);

pub(super) async fn serve<R, W>(
    request: UnitRequest,
    units: &LocalUnits,
    reception: &Reception,
    read: &mut R,
    write: &mut W,
) -> io::Result<()>
where
    R: AsyncBufRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let streams = matches!(
        request,
        UnitRequest::Submit(_) | UnitRequest::Watch { .. } | UnitRequest::Results(_)
    );
    let room = if streams { reception.unit_stream() } else { reception.snapshot().await };
    let Some(_room) = room else { return fail(write, no_room(&request)).await };
    match request {
        UnitRequest::Submit(request) => submit(request, units, read, write).await,
        UnitRequest::Watch { id } => watch(&id, units, read, write).await,
        UnitRequest::Results(request) => results(&request, units, read, write).await,
        UnitRequest::List { filter } => answer_while_there(read, write, units.listed(filter)).await,
        UnitRequest::Quarantined {} => answer(write, units.quarantined()).await,
        UnitRequest::Status { id } => answer(write, units.status(&id)).await,
        UnitRequest::Cancel { id, grace_ms } => {
            let cancel = units.cancel(&id, Duration::from_millis(grace_ms));
            answer_while_there(read, write, cancel).await
        }
        UnitRequest::Release { id, force } => {
            answer_while_there(read, write, units.release(&id, force)).await
        }
        UnitRequest::ReleaseAll { filter, force } => {
            answer_while_there(read, write, units.release_all(&filter, force)).await
        }
    }
}

/// Only a submission would have started something: what watches a unit does not say that the unit
/// was not started.
fn no_room(request: &UnitRequest) -> Failure {
    let streams = format!("{MAX_UNIT_STREAMS} submissions, watches and results of units");
    match request {
        UnitRequest::Submit(_) => busy(&streams),
        UnitRequest::Watch { .. } | UnitRequest::Results(_) => {
            Failure::busy(format!("the node is busy with {streams}; try again later"))
        }
        _ => Failure::busy(format!("the node is busy with {QUESTIONS}; try again later")),
    }
}

/// Submits a unit with the payload that the client sends. A client that goes away before the end of
/// it submits nothing.
async fn submit<R, W>(
    request: SubmitRequest,
    units: &LocalUnits,
    read: &mut R,
    write: &mut W,
) -> io::Result<()>
where
    R: AsyncBufRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    if let Err(failure) = units.check_enabled() {
        return fail(write, failure).await;
    }
    answer(write, Ok(())).await?;
    let (feed, payload) = fed_payload();
    let submission = units.submit(request, payload);
    tokio::select! {
        submitted = submission => answer(write, submitted).await,
        () = receive_payload(read, feed) => Ok(()),
    }
}

/// Passes the payload on. Returns if the client goes away.
async fn receive_payload(read: &mut (impl AsyncBufRead + Unpin), feed: Feed) {
    loop {
        match read_chunk(read).await {
            Ok(Some(chunk)) => feed.put(chunk).await,
            Ok(None) => {
                feed.end().await;
                // A client that says more is as good as gone.
                let _ = read.read_u8().await;
                return;
            }
            Err(_) => return,
        }
    }
}

async fn watch<R, W>(
    id: &IdPrefix,
    units: &LocalUnits,
    read: &mut R,
    write: &mut W,
) -> io::Result<()>
where
    R: AsyncBufRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let unit = match units.find(id) {
        Ok(unit) => unit,
        Err(failure) => return fail(write, failure).await,
    };
    let mut changes = unit.watch();
    loop {
        let Some(status) = while_there(read, changes.next()).await else { return Ok(()) };
        let Some(status) = status else { return fail(write, local::over(&unit)).await };
        let is_final = status.is_final();
        answer(write, Ok(local::view(status))).await?;
        if is_final || while_there(read, sleep(WATCH_PACE)).await.is_none() {
            return Ok(());
        }
    }
}

async fn results<R, W>(
    request: &ResultsRequest,
    units: &LocalUnits,
    read: &mut R,
    write: &mut W,
) -> io::Result<()>
where
    R: AsyncBufRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let unit = match units.find(&request.id) {
        Ok(unit) => unit,
        Err(failure) => return fail(write, failure).await,
    };
    answer(write, Ok(())).await?;
    let mut output = local::output(&unit, request);
    let end = loop {
        let piece: Result<Option<Bytes>, _> = match while_there(read, output.next()).await {
            Some(piece) => piece,
            None => return Ok(()),
        };
        match piece {
            Ok(Some(piece)) => write_chunks(write, &piece).await?,
            Ok(None) => break Ok(local::view(unit.status())),
            Err(error) => break Err(local::results_failure(&error)),
        }
    };
    timeout(ANSWER_TIMEOUT, write_end(write)).await??;
    answer(write, end).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rejected_submission_says_that_nothing_was_started() {
        let request = |line: &str| serde_json::from_str::<UnitRequest>(line).expect("a request");
        let submit = request(
            r#"{"unit":"submit","node":"a","directive":"b:c","key":"0193a5b2-7c4d-7000-8000-000000000001"}"#,
        );
        assert!(no_room(&submit).text.ends_with("of units; nothing was started, try again later"));
        for line in [
            r#"{"unit":"watch","id":"0193"}"#,
            r#"{"unit":"results","id":"0193"}"#,
            r#"{"unit":"list"}"#,
            r#"{"unit":"release","id":"0193","force":false}"#,
        ] {
            let text = no_room(&request(line)).text;
            assert!(text.contains("busy") && !text.contains("started"), "{text}");
        }
    }
}
