//! MessagePack in compact arrays, read so that fields of later versions are skipped.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::ser::Serialize;

use crate::id::Version;

/// How deep arrays may nest: a record has three levels; the rest is room for later versions.
const MAX_DEPTH: usize = 16;

/// Bytes that are not a message or a record. The sender's fault; nothing was changed; close its
/// session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not the MessagePack that the format asks for, or a value out of range.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Longer than its type allows.
    #[error("{len} bytes, where {max} are allowed")]
    TooLong {
        /// What it had, in bytes.
        len: usize,
        /// The most that is allowed, in bytes.
        max: usize,
    },
    /// Well formed, but against a rule of the protocol.
    #[error("against the rule: {0}")]
    Rule(&'static str),
}

/// A type that is an array on the wire, to which later versions may add fields at the end.
pub(crate) trait Tolerant<'de>: Sized {
    /// What it is, for errors.
    const NAME: &'static str;

    /// Reads the known fields in order, then [`Fields::finish`].
    fn read<A: SeqAccess<'de>>(fields: Fields<A>) -> Result<Self, A::Error>;
}

/// The fields of an array.
pub(crate) struct Fields<A>(A);

impl<'de, A: SeqAccess<'de>> Fields<A> {
    /// The next field, which must be there.
    pub(crate) fn next<T: Deserialize<'de>>(&mut self, name: &'static str) -> Result<T, A::Error> {
        self.0.next_element()?.ok_or_else(|| de::Error::missing_field(name))
    }

    /// The next field, where it is there and not nil: one that a later version added, or that is
    /// not always written.
    pub(crate) fn optional<T: Deserialize<'de>>(&mut self) -> Result<Option<T>, A::Error> {
        Ok(self.0.next_element::<Option<T>>()?.flatten())
    }

    /// The next field, or its default if there is none: what a version added, and senders may leave
    /// out.
    pub(crate) fn next_or_default<T: Deserialize<'de> + Default>(&mut self) -> Result<T, A::Error> {
        Ok(self.0.next_element()?.unwrap_or_default())
    }

    /// The next three fields as a version.
    pub(crate) fn version(&mut self) -> Result<Version, A::Error> {
        Ok(Version {
            epoch: self.next("epoch")?,
            sequence: self.next("sequence")?,
            instance: self.next("instance")?,
        })
    }

    /// Skips what later versions added.
    pub(crate) fn finish(mut self) -> Result<(), A::Error> {
        while self.0.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Wraps a [`Tolerant`] type where serde wants one that it can deserialize.
pub(crate) struct Read<T>(pub(crate) T);

impl<'de, T: Tolerant<'de>> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer).map(Self)
    }
}

pub(crate) fn read<'de, T: Tolerant<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    struct Array<T>(PhantomData<T>);

    impl<'de, T: Tolerant<'de>> Visitor<'de> for Array<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(T::NAME)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<T, A::Error> {
            T::read(Fields(seq))
        }
    }

    deserializer.deserialize_seq(Array(PhantomData))
}

/// Reads one value that takes all of `bytes`. What it allocates is bounded by their length.
pub(crate) fn decode<'de, T: Tolerant<'de>>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut deserializer = rmp_serde::Deserializer::new(bytes);
    deserializer.set_max_depth(MAX_DEPTH);
    let value =
        read(&mut deserializer).map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if !deserializer.get_ref().is_empty() {
        return Err(DecodeError::Rule("nothing follows the array"));
    }
    Ok(value)
}

/// Writes one value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("plain values in memory always encode")
}
