//! What submitters ask.

use serde::de::{Error as _, SeqAccess};
use uuid::Uuid;

use super::super::super::frame::field;
use super::super::spec::{SpecHash, UnitSpec};
use super::super::unit_output::UnitOutput;
use super::{Fields, bytes, decode_fields, digest, encode_frame, uuid};

/// The longest request: a spec with the most labels has less than 6 KiB.
pub(crate) const MAX_REQUEST_FRAME: usize = 16 * 1024;

/// The version of the requests.
const VERSION: u8 = 1;

/// The first frame of a stream to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UnitRequest {
    /// Accept this unit; the payload follows if the executor asks for it.
    Offer { id: Uuid, start_within_ms: u64, spec: Box<UnitSpec> },
    /// Send what a unit writes.
    Output(OutputRequest),
    /// Report the units that are named in the frames that follow, now and whenever they change.
    Follow,
    /// Cancel a unit.
    Cancel { id: Uuid, grace_ms: u64, start_within_ms: u64 },
    /// Remove a unit once it has ended; with `force`, end it first.
    Release { id: Uuid, force: bool },
    /// Report the caller's units behind this id, in the order of their ids.
    List { after: Option<Uuid>, limit: u16 },
}

/// What is asked of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutputRequest {
    pub(crate) id: Uuid,
    pub(crate) output: UnitOutput,
    /// The attempt that the offset belongs to. 0 if nothing was read before.
    pub(crate) attempt: u32,
    pub(crate) offset: u64,
    pub(crate) follow: bool,
}

const OFFER: u8 = 1;
const OUTPUT: u8 = 2;
const FOLLOW: u8 = 3;
const CANCEL: u8 = 4;
const RELEASE: u8 = 5;
const LIST: u8 = 6;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;

impl UnitRequest {
    /// The frame with its length.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Offer { id, start_within_ms, spec } => {
                let hash = spec.hash();
                let hash = serde_bytes::Bytes::new(&hash.0);
                let spec = spec.encode();
                let spec = serde_bytes::Bytes::new(&spec);
                encode_frame(&(VERSION, OFFER, bytes(id), start_within_ms, hash, spec))
            }
            Self::Output(request) => {
                let OutputRequest { id, output, attempt, offset, follow } = request;
                let output = match output {
                    UnitOutput::Stdout => STDOUT,
                    UnitOutput::Stderr => STDERR,
                };
                encode_frame(&(VERSION, OUTPUT, bytes(id), output, attempt, offset, follow))
            }
            Self::Follow => encode_frame(&(VERSION, FOLLOW)),
            Self::Cancel { id, grace_ms, start_within_ms } => {
                encode_frame(&(VERSION, CANCEL, bytes(id), grace_ms, start_within_ms))
            }
            Self::Release { id, force } => encode_frame(&(VERSION, RELEASE, bytes(id), force)),
            Self::List { after, limit } => {
                encode_frame(&(VERSION, LIST, after.as_ref().map(bytes), limit))
            }
        }
    }

    /// Reads a frame without its length.
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        decode_fields(frame)
    }
}

impl Fields for UnitRequest {
    const NAME: &'static str = "a request about units";

    fn read<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Self, A::Error> {
        let version: u8 = field(seq, "version")?;
        if version != VERSION {
            return Err(A::Error::custom(format_args!("version {version} is not spoken here")));
        }
        let kind: u8 = field(seq, "kind")?;
        Ok(match kind {
            OFFER => {
                let id = uuid(seq, "id")?;
                let start_within_ms = field(seq, "time to start")?;
                let hash: &serde_bytes::Bytes = field(seq, "hash")?;
                let hash = SpecHash(digest(hash)?);
                let spec: &serde_bytes::Bytes = field(seq, "spec")?;
                let spec = UnitSpec::decode(spec).map_err(A::Error::custom)?;
                if spec.hash() != hash {
                    return Err(A::Error::custom("the hash is not that of the spec"));
                }
                Self::Offer { id, start_within_ms, spec: Box::new(spec) }
            }
            OUTPUT => {
                let id = uuid(seq, "id")?;
                let output = match field(seq, "output")? {
                    STDOUT => UnitOutput::Stdout,
                    STDERR => UnitOutput::Stderr,
                    other => {
                        return Err(A::Error::custom(format_args!("there is no output {other}")));
                    }
                };
                let (attempt, offset) = (field(seq, "attempt")?, field(seq, "offset")?);
                Self::Output(OutputRequest {
                    id,
                    output,
                    attempt,
                    offset,
                    follow: field(seq, "follow")?,
                })
            }
            FOLLOW => Self::Follow,
            CANCEL => Self::Cancel {
                id: uuid(seq, "id")?,
                grace_ms: field(seq, "grace")?,
                start_within_ms: field(seq, "time to start")?,
            },
            RELEASE => Self::Release { id: uuid(seq, "id")?, force: field(seq, "force")? },
            LIST => {
                let after: Option<&serde_bytes::Bytes> = field(seq, "id")?;
                let after =
                    after.map(|id| Uuid::from_slice(id)).transpose().map_err(A::Error::custom)?;
                Self::List { after, limit: field(seq, "limit")? }
            }
            other => return Err(A::Error::custom(format_args!("there is no request {other}"))),
        })
    }
}

/// A frame behind [`Follow`](UnitRequest::Follow): report this unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) id: Uuid,
}

impl Subscription {
    /// The frame with its length.
    pub(crate) fn encode(self) -> Vec<u8> {
        encode_frame(&(bytes(&self.id),))
    }

    /// Reads a frame without its length.
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        decode_fields(frame)
    }
}

impl Fields for Subscription {
    const NAME: &'static str = "the id of a unit";

    fn read<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Self, A::Error> {
        Ok(Self { id: uuid(seq, "id")? })
    }
}
