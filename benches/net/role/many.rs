//! What many clients do: at once, one by one, or a few at a time.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::remote::Remote;
use super::workload::{self, Action};
use crate::Result;

/// Streams to all servers at once for so long: the seconds until all was confirmed, and the bytes
/// of each stream.
pub(super) async fn stream<R: Remote>(remotes: Vec<R>, millis: u64) -> Result<Vec<f64>> {
    let start = Instant::now();
    let end = start + Duration::from_millis(millis);
    let tasks: Vec<_> = remotes
        .into_iter()
        .map(|remote| tokio::spawn(async move { workload::send_until(&remote, end).await }))
        .collect();
    let mut bytes = Vec::new();
    for task in tasks {
        bytes.push(task.await?? as f64);
    }
    Ok([start.elapsed().as_secs_f64()].into_iter().chain(bytes).collect())
}

/// Does each after the one before: the microseconds that each took.
pub(super) async fn one_by_one(actions: &[impl Action]) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for action in actions {
        let start = Instant::now();
        action.run().await?;
        took.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took)
}

/// Does all, so many at a time: how many, and the seconds; and what came of them, which is kept
/// until the time is taken.
pub(super) async fn at_once<F, T>(
    actions: impl IntoIterator<Item = F>,
    at_once: usize,
) -> Result<(Vec<f64>, Vec<T>)>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let mut actions = actions.into_iter();
    let mut running = JoinSet::new();
    let mut kept = Vec::new();
    let start = Instant::now();
    loop {
        while running.len() < at_once
            && let Some(action) = actions.next()
        {
            running.spawn(action);
        }
        match running.join_next().await {
            Some(done) => kept.push(done??),
            None => return Ok((vec![kept.len() as f64, start.elapsed().as_secs_f64()], kept)),
        }
    }
}

/// How long connections that were dropped may take to end.
pub(super) const RELEASE: Duration = Duration::from_millis(500);
