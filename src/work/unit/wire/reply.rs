//! What executors answer.

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess};
use uuid::Uuid;

use super::super::super::frame::field;
use super::super::busy::BusyReason;
use super::super::outcome::{ReportState, UnitRefusal};
use super::state::{self, StateFields};
use super::{Fields, MAX_DATA, bytes, decode_fields, digest, encode_frame, uuid};
use crate::work::unit::machine::entry::StoreId;

/// The longest reply: a full piece of output, or a status with a full error text.
pub(crate) const MAX_REPLY_FRAME: usize = MAX_DATA + 4 * 1024;

/// A frame from the executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Send the payload from this offset.
    Have { store: StoreId, id: Uuid, offset: u64 },
    /// Where a unit stands.
    Status { store: StoreId, id: Uuid, status: StatusReply },
    /// The unit was rejected for good.
    Refused { store: StoreId, id: Uuid, refusal: UnitRefusal },
    /// The request cannot be carried out now.
    Busy { store: StoreId, id: Uuid, reason: BusyReason },
    /// The unit is not known.
    Unknown { store: StoreId, id: Uuid },
    /// The unit was not known, and never will be.
    NeverAccepted { store: StoreId, id: Uuid },
    /// The unit was removed.
    Released { store: StoreId, id: Uuid },
    /// A piece of an attempt's output.
    Data { attempt: u32, offset: u64, bytes: Bytes },
    /// The end of an attempt's output. The digest is there if the whole output is on record.
    End { attempt: u32, len: u64, sha256: Option<[u8; 32]> },
    /// The end of a list, and whether there is more behind it.
    ListEnd { more: bool },
    /// The first answer to a request to follow.
    Following { store: StoreId },
}

/// Where a unit stands. Times are how long ago, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusReply {
    pub(crate) version: u64,
    pub(crate) state: ReportState,
    pub(crate) started: bool,
    pub(crate) since_ms: u64,
    pub(crate) started_ms: Option<u64>,
    pub(crate) stdout_len: u64,
    pub(crate) stderr_len: u64,
}

const HAVE: u8 = 1;
const STATUS: u8 = 2;
const REFUSED: u8 = 3;
const BUSY: u8 = 4;
const UNKNOWN: u8 = 5;
const NEVER_ACCEPTED: u8 = 6;
const RELEASED: u8 = 7;
const DATA: u8 = 8;
const END: u8 = 9;
const LIST_END: u8 = 10;
const FOLLOWING: u8 = 11;

impl Reply {
    /// The frame with its length.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Have { store, id, offset } => {
                encode_frame(&(HAVE, bytes(&store.0), bytes(id), offset))
            }
            Self::Status { store, id, status } => {
                let StatusReply {
                    version,
                    started,
                    since_ms,
                    started_ms,
                    stdout_len,
                    stderr_len,
                    ..
                } = status;
                let StateFields { state, detail, value, text } = state::fields(&status.state);
                encode_frame(&(
                    STATUS,
                    bytes(&store.0),
                    bytes(id),
                    version,
                    state,
                    started,
                    since_ms,
                    detail,
                    value,
                    text,
                    started_ms,
                    stdout_len,
                    stderr_len,
                ))
            }
            Self::Refused { store, id, refusal } => encode_frame(&(
                REFUSED,
                bytes(&store.0),
                bytes(id),
                state::refusal_number(*refusal),
            )),
            Self::Busy { store, id, reason } => {
                encode_frame(&(BUSY, bytes(&store.0), bytes(id), reason.number()))
            }
            Self::Unknown { store, id } => encode_frame(&(UNKNOWN, bytes(&store.0), bytes(id))),
            Self::NeverAccepted { store, id } => {
                encode_frame(&(NEVER_ACCEPTED, bytes(&store.0), bytes(id)))
            }
            Self::Released { store, id } => encode_frame(&(RELEASED, bytes(&store.0), bytes(id))),
            Self::Data { attempt, offset, bytes } => {
                encode_frame(&(DATA, attempt, offset, serde_bytes::Bytes::new(bytes)))
            }
            Self::End { attempt, len, sha256 } => {
                let sha256 = sha256.as_ref().map(|sha256| serde_bytes::Bytes::new(sha256));
                encode_frame(&(END, attempt, len, sha256))
            }
            Self::ListEnd { more } => encode_frame(&(LIST_END, more)),
            Self::Following { store } => encode_frame(&(FOLLOWING, bytes(&store.0))),
        }
    }

    /// Reads a frame without its length.
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        decode_fields(frame)
    }
}

impl Fields for Reply {
    const NAME: &'static str = "an answer about units";

    fn read<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Self, A::Error> {
        let kind: u8 = field(seq, "kind")?;
        match kind {
            DATA => {
                let (attempt, offset) = (field(seq, "attempt")?, field(seq, "offset")?);
                let data: &serde_bytes::Bytes = field(seq, "data")?;
                if data.len() > MAX_DATA {
                    return Err(A::Error::custom("the piece is too long"));
                }
                return Ok(Self::Data { attempt, offset, bytes: Bytes::copy_from_slice(data) });
            }
            END => {
                let (attempt, len) = (field(seq, "attempt")?, field(seq, "length")?);
                let sha256: Option<&serde_bytes::Bytes> = field(seq, "digest")?;
                let sha256 = sha256.map(|sha256| digest(sha256)).transpose()?;
                return Ok(Self::End { attempt, len, sha256 });
            }
            LIST_END => return Ok(Self::ListEnd { more: field(seq, "whether there is more")? }),
            FOLLOWING => return Ok(Self::Following { store: StoreId(uuid(seq, "store")?) }),
            _ => {}
        }
        let (store, id) = (StoreId(uuid(seq, "store")?), uuid(seq, "id")?);
        Ok(match kind {
            HAVE => Self::Have { store, id, offset: field(seq, "offset")? },
            STATUS => Self::Status { store, id, status: read_status(seq)? },
            REFUSED => Self::Refused { store, id, refusal: state::refusal(field(seq, "reason")?) },
            BUSY => {
                // Not sent by versions before 0.1.
                let number: Option<u8> = seq.next_element()?;
                Self::Busy { store, id, reason: BusyReason::from_number(number.unwrap_or(0)) }
            }
            UNKNOWN => Self::Unknown { store, id },
            NEVER_ACCEPTED => Self::NeverAccepted { store, id },
            RELEASED => Self::Released { store, id },
            other => return Err(A::Error::custom(format_args!("there is no answer {other}"))),
        })
    }
}

fn read_status<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<StatusReply, A::Error> {
    let version = field(seq, "version")?;
    let state = field(seq, "state")?;
    let started = field(seq, "whether it was started")?;
    let since_ms = field(seq, "age of the state")?;
    let (detail, value, text) = (field(seq, "detail")?, field(seq, "value")?, field(seq, "text")?);
    let state =
        state::state(&StateFields { state, detail, value, text }).map_err(A::Error::custom)?;
    Ok(StatusReply {
        version,
        state,
        started,
        since_ms,
        started_ms: field(seq, "age of the start")?,
        stdout_len: field(seq, "length of stdout")?,
        stderr_len: field(seq, "length of stderr")?,
    })
}
