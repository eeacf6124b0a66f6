//! The frames of the service `unit`.
//!
//! Each frame is a big-endian u32 length and a MessagePack array, as in calls. Fields that a later
//! version adds at the end are skipped. Times are durations: how long is left, or how long ago.
//! Decoding is total: it fails, but neither panics nor allocates more than the frame's limit.

mod reply;
mod request;
mod state;

pub(crate) use reply::{MAX_REPLY_FRAME, Reply, StatusReply};
pub(crate) use request::{MAX_REQUEST_FRAME, OutputRequest, Subscription, UnitRequest};

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::frame::{decode, put_length};

/// The name of the service.
pub(crate) const SERVICE: &str = "unit";

/// The most that one frame carries of an output, in bytes: 64 KiB.
pub(crate) const MAX_DATA: usize = 64 * 1024;

/// What one kind of frame is made of.
trait Fields: Sized {
    /// What is expected, for error messages.
    const NAME: &'static str;

    /// Reads the fields. Those that are left are skipped.
    fn read<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Self, A::Error>;
}

/// Decodes a frame without its length.
fn decode_fields<T: Fields>(frame: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    decode::<Decoded<T>>(frame).map(|decoded| decoded.0)
}

struct Decoded<T>(T);

impl<'de, T: Fields> Deserialize<'de> for Decoded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Fields> Visitor<'de> for Reader<T> {
            type Value = Decoded<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::NAME)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Decoded<T>, A::Error> {
                let fields = T::read(&mut seq)?;
                super::super::frame::skip_rest(&mut seq)?;
                Ok(Decoded(fields))
            }
        }

        deserializer.deserialize_seq(Reader(PhantomData))
    }
}

/// Encodes a frame with its length.
fn encode_frame(fields: &impl Serialize) -> Vec<u8> {
    let mut frame = vec![0; 4];
    rmp_serde::encode::write(&mut frame, fields)
        .expect("plain values encode, and a Vec takes them");
    put_length(&mut frame, 0);
    frame
}

fn bytes(id: &Uuid) -> &serde_bytes::Bytes {
    serde_bytes::Bytes::new(id.as_bytes())
}

/// 16 bytes.
fn uuid<'de, A: SeqAccess<'de>>(seq: &mut A, name: &str) -> Result<Uuid, A::Error> {
    let bytes: &serde_bytes::Bytes = super::super::frame::field(seq, name)?;
    Uuid::from_slice(bytes).map_err(serde::de::Error::custom)
}

/// 32 bytes.
fn digest<E: serde::de::Error>(bytes: &[u8]) -> Result<[u8; 32], E> {
    bytes.try_into().map_err(|_| E::custom("a digest has 32 bytes"))
}

#[cfg(test)]
mod tests;
