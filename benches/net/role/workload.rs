//! What a client does with a server, and how long it takes.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::remote::{Reader, Remote, Service, Shooter, Writer};
use crate::Result;

/// What is written at a time, at most.
const PIECE: usize = 1 << 20;
static DATA: [u8; PIECE] = [7; PIECE];
/// The size of a call, and of its reply.
const CALL: usize = 64;

/// Sends `bytes` over so many streams at once, until the server has confirmed all of them: the
/// seconds.
pub(super) async fn stream<R: Remote>(remote: &R, bytes: u64, streams: u64) -> Result<Vec<f64>> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..streams)
        .map(|_| {
            let remote = remote.clone();
            tokio::spawn(async move { send(&remote, bytes / streams).await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(vec![start.elapsed().as_secs_f64()])
}

/// Sends a stream, and waits until it is confirmed.
async fn send<R: Remote>(remote: &R, bytes: u64) -> Result<()> {
    let (mut send, mut recv) = remote.open(Service::Sink).await?;
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(PIECE as u64);
        send.write(Bytes::from_static(&DATA[..piece as usize])).await?;
        left -= piece;
    }
    send.finish();
    confirmed(&mut recv, bytes).await
}

/// Sends a stream until then, and waits until it is confirmed: how many bytes it had.
pub(super) async fn send_until<R: Remote>(remote: &R, end: Instant) -> Result<u64> {
    /// Small enough that all streams end at about the same time.
    const SHORT: usize = 1 << 16;
    let (mut send, mut recv) = remote.open(Service::Sink).await?;
    let mut bytes = 0;
    while Instant::now() < end {
        send.write(Bytes::from_static(&DATA[..SHORT])).await?;
        bytes += SHORT as u64;
    }
    send.finish();
    confirmed(&mut recv, bytes).await?;
    Ok(bytes)
}

async fn confirmed(recv: &mut impl Reader, bytes: u64) -> Result<()> {
    let mut answer = Vec::new();
    while let Some(chunk) = recv.read().await? {
        answer.extend_from_slice(&chunk);
    }
    match answer == bytes.to_be_bytes() {
        true => Ok(()),
        false => Err(format!("{bytes} bytes were sent, and {answer:?} confirmed").into()),
    }
}

/// Sends datagrams of `size` bytes for so many milliseconds, as fast as they go: how many, and the
/// seconds.
pub(super) async fn datagrams(to: impl Shooter, size: usize, millis: u64) -> Result<Vec<f64>> {
    /// Between two looks at the clock.
    const RUN: u32 = 32;
    let start = Instant::now();
    let end = start + Duration::from_millis(millis);
    let mut count = 0.0;
    while Instant::now() < end {
        for _ in 0..RUN {
            to.shoot(&DATA[..size]).await?;
        }
        count += f64::from(RUN);
    }
    Ok(vec![count, start.elapsed().as_secs_f64()])
}

/// What is done over and over.
pub(super) trait Action: Clone + Send + 'static {
    fn run(&self) -> impl Future<Output = Result<()>> + Send;
}

/// A call: 64 bytes there, and the same back.
#[derive(Clone)]
pub(super) struct Call<R>(pub(super) R);

impl<R: Remote> Action for Call<R> {
    async fn run(&self) -> Result<()> {
        let (mut send, mut recv) = self.0.open(Service::Echo).await?;
        send.write(request()).await?;
        send.finish();
        let mut len = 0;
        while let Some(chunk) = recv.read().await? {
            len += chunk.len();
        }
        reply_of(len)
    }
}

/// A message: a stream of so many bytes, which is confirmed.
#[derive(Clone)]
pub(super) struct Message<R>(pub(super) R, pub(super) u64);

impl<R: Remote> Action for Message<R> {
    async fn run(&self) -> Result<()> {
        send(&self.0, self.1).await
    }
}

pub(super) fn reply_of(len: usize) -> Result<()> {
    match len {
        CALL => Ok(()),
        len => Err(format!("a reply of {len} bytes").into()),
    }
}

/// What a call carries.
pub(super) fn request() -> Bytes {
    Bytes::from_static(&DATA[..CALL])
}

/// Does it over and over, so many at once, for so many milliseconds: how often in how many seconds,
/// and the percentiles, from 0 to 100, of how long each took, in microseconds.
pub(super) async fn repeat(action: impl Action, at_once: usize, millis: u64) -> Result<Vec<f64>> {
    let start = Instant::now();
    let end = start + Duration::from_millis(millis);
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let action = action.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                let mut now = Instant::now();
                while now < end || took.is_empty() {
                    action.run().await?;
                    let done = Instant::now();
                    took.push(done - now);
                    now = done;
                }
                Result::Ok(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    let seconds = start.elapsed().as_secs_f64();
    took.sort_unstable();
    let percentile = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    Ok([took.len() as f64, seconds].into_iter().chain((0..=100).map(percentile)).collect())
}
