//! An echoed transfer with a checksum that measures its longest pause.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::cli::process::exit::Failure;
use crate::work::{Call, PayloadWriter, Responses};

/// Payload in bytes.
pub(super) const LEN: u64 = 64 * 1024 * 1024;
/// In pieces of so many bytes.
const PIECE: usize = 64 * 1024;
/// Number of echoed bytes after which the fault is injected.
const TROUBLE_AT: u64 = LEN / 4;

/// The result of a transfer.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) took: Duration,
    /// The longest pause without an echoed byte after the fault.
    pub(super) stall: Duration,
    /// SHA-256 of the payload and of the echo, in hexadecimal.
    pub(super) sent: String,
    pub(super) received: String,
    pub(super) received_len: u64,
}

/// Sends bytes through a call that echoes them, and injects the fault when a quarter has returned.
pub(super) async fn run(
    call: Call,
    trouble: impl FnOnce() -> Result<(), Failure>,
) -> Result<Report, Failure> {
    let start = Instant::now();
    let (writer, responses) = call.split();
    // The checksum reveals whether the upload succeeded, and the responses why it failed.
    let (sent, received) = tokio::join!(upload(writer), download(responses, trouble));
    let (received_len, received, stall) = received?;
    Ok(Report { took: start.elapsed(), stall, sent, received, received_len })
}

async fn upload(mut writer: PayloadWriter) -> String {
    let mut hash = Sha256::new();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for _ in 0..LEN / PIECE as u64 {
        let piece = noise.piece();
        hash.update(&piece);
        if writer.write_chunk(piece).await.is_err() {
            break;
        }
    }
    writer.finish();
    hex(hash)
}

async fn download(
    mut responses: Responses,
    trouble: impl FnOnce() -> Result<(), Failure>,
) -> Result<(u64, String, Duration), Failure> {
    let (mut hash, mut len, mut stall) = (Sha256::new(), 0, Duration::ZERO);
    let mut trouble = Some(trouble);
    let mut last = Instant::now();
    while let Some(response) = responses.next().await.map_err(Failure::failed)? {
        hash.update(&response.body);
        len += response.body.len() as u64;
        let now = Instant::now();
        if trouble.is_none() {
            stall = stall.max(now - last);
        }
        last = now;
        if len >= TROUBLE_AT
            && let Some(trouble) = trouble.take()
        {
            trouble()?;
        }
    }
    match trouble {
        Some(_) => Err(Failure::failed("the transfer ended before its middle")),
        None => Ok((len, hex(hash), stall)),
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes without a pattern (xorshift64).
struct Noise(u64);

impl Noise {
    fn piece(&mut self) -> Bytes {
        let mut piece = Vec::with_capacity(PIECE);
        while piece.len() < PIECE {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            piece.extend_from_slice(&self.0.to_le_bytes());
        }
        piece.into()
    }
}
