//! Reading a unit's output from its executor.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::out_unit::OutUnit;
use super::session::{SessionEnd, open};
use crate::mesh::SendHalf;
use crate::work::frame::{FrameError, FrameReader};
use crate::work::unit::api::{ResultsError, ResultsOptions, UnitState};
use crate::work::unit::service::error::UnitError;
use crate::work::unit::service::shared::SharedRef;
use crate::work::unit::wire::{MAX_REPLY_FRAME, OutputRequest, Reply, UnitRequest};

/// How long to wait before an executor is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// Reads a unit's output from its executor, across as many streams as it takes.
pub(crate) struct Reading {
    shared: SharedRef,
    unit: Arc<OutUnit>,
    options: ResultsOptions,
    offset: u64,
    attempt: u32,
    /// Of all that was read, if that is all there was.
    hash: Option<Sha256>,
    stream: Option<(SendHalf, FrameReader)>,
    over: bool,
}

impl Reading {
    pub(crate) fn new(shared: SharedRef, unit: Arc<OutUnit>, options: ResultsOptions) -> Self {
        let hash = (options.from == 0).then(Sha256::new);
        Self {
            shared,
            unit,
            options,
            offset: options.from,
            attempt: 0,
            hash,
            stream: None,
            over: false,
        }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece. Cancel safe: what was read is in `self` at each await.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ResultsError> {
        let mut closed = self.shared.closed();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(UnitError::ShutDown.into()),
            next = self.next_open() => next,
        }
    }

    async fn next_open(&mut self) -> Result<Option<Bytes>, ResultsError> {
        loop {
            if self.over {
                return Ok(None);
            }
            let Some((_, reader)) = &mut self.stream else {
                if !self.connect().await? {
                    self.over = true;
                }
                continue;
            };
            let reply = match reader.next(MAX_REPLY_FRAME).await {
                Ok(Some(frame)) => Reply::decode(&frame).map_err(|error| error.to_string()),
                Ok(None) => Err("the executor has ended the stream".to_owned()),
                Err(FrameError::Stream(error)) => match SessionEnd::from(error.clone()) {
                    SessionEnd::NotAllowed => return Err(ResultsError::NotAllowed),
                    _ => Err(error.to_string()),
                },
                Err(error) => Err(error.to_string()),
            };
            match reply {
                Ok(reply) => {
                    if let Some(piece) = self.on_reply(reply)? {
                        return Ok(Some(piece));
                    }
                }
                Err(why) => {
                    self.stream = None;
                    if !self.options.follow {
                        return Err(ResultsError::Unreachable(why));
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn on_reply(&mut self, reply: Reply) -> Result<Option<Bytes>, ResultsError> {
        match reply {
            Reply::Data { attempt, offset, bytes } => {
                self.on_attempt(attempt)?;
                if offset != self.offset {
                    return Err(self.corrupt());
                }
                self.offset += bytes.len() as u64;
                if let Some(hash) = &mut self.hash {
                    hash.update(&bytes);
                }
                Ok(Some(bytes))
            }
            Reply::End { attempt, len, sha256 } => {
                self.on_attempt(attempt)?;
                let hash = self.hash.take().map(|hash| <[u8; 32]>::from(hash.finalize()));
                // An offset behind the end is answered by an end there.
                let matches = hash.is_none() || sha256.is_none() || hash == sha256;
                if len != self.offset || !matches {
                    return Err(self.corrupt());
                }
                (self.stream, self.over) = (None, true);
                Ok(None)
            }
            Reply::Unknown { .. } | Reply::Released { .. } => {
                (self.stream, self.over) = (None, true);
                Err(ResultsError::Gone)
            }
            _ => Err(self.corrupt()),
        }
    }

    /// Records which attempt is read. Another one starts over.
    fn on_attempt(&mut self, attempt: u32) -> Result<(), ResultsError> {
        if self.attempt == 0 || self.attempt == attempt {
            self.attempt = attempt;
            return Ok(());
        }
        (self.attempt, self.offset, self.hash, self.stream) =
            (attempt, 0, Some(Sha256::new()), None);
        Err(ResultsError::Restarted)
    }

    fn corrupt(&mut self) -> ResultsError {
        (self.stream, self.over) = (None, true);
        ResultsError::Corrupt
    }

    /// Opens a stream once the executor has the unit. False if it never had it, or will not have
    /// it.
    ///
    /// # Errors
    /// The executor cannot be reached and is not waited for, or the unit is removed meanwhile.
    async fn connect(&mut self) -> Result<bool, ResultsError> {
        let mut status = self.unit.watch();
        let stream = tokio::select! {
            biased;
            _ = status.wait_for(|status| status.removed) => return Err(UnitError::Removed.into()),
            stream = self.open() => stream?,
        };
        self.stream = stream;
        Ok(self.stream.is_some())
    }

    /// Opens a stream. `None` if there is nothing to read.
    async fn open(&self) -> Result<Option<(SendHalf, FrameReader)>, ResultsError> {
        if !self.wait_until_accepted().await? {
            return Ok(None);
        }
        let request = OutputRequest {
            id: self.unit.id,
            output: self.options.output,
            attempt: self.attempt,
            offset: self.offset,
            follow: self.options.follow,
        };
        loop {
            let mesh = self.shared.mesh()?;
            if self.options.follow {
                mesh.routable(&self.unit.node).await.map_err(|_| UnitError::ShutDown)?;
            }
            match open(&mesh, &self.unit.node, &UnitRequest::Output(request)).await {
                Ok(stream) => return Ok(Some(stream)),
                Err(SessionEnd::Lost(why)) if !self.options.follow => {
                    return Err(ResultsError::Unreachable(why));
                }
                Err(SessionEnd::NoUnits) if !self.options.follow => {
                    return Err(ResultsError::Unreachable("the node takes no units".to_owned()));
                }
                Err(SessionEnd::NotAllowed) => return Err(ResultsError::NotAllowed),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Waits until the executor has the unit. False if it has ended without having been started.
    async fn wait_until_accepted(&self) -> Result<bool, ResultsError> {
        let mut status = self.unit.watch();
        let known = |status: &crate::work::unit::api::UnitStatus| {
            status.state >= UnitState::Accepted || status.removed || !self.options.follow
        };
        let status = status.wait_for(known).await.map_err(|_| UnitError::ShutDown)?;
        if status.removed {
            return Err(UnitError::Removed.into());
        }
        let never = status.is_final() && !status.started;
        Ok(!never && status.state >= UnitState::Accepted)
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading")
            .field("unit", &self.unit.id)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
