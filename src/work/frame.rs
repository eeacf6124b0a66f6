//! The frames of a call on the wire, and reading them from a stream.
//!
//! Each frame is a big-endian u32 length and a MessagePack array. Fields that a later version adds
//! at the end are skipped. Decoding is total: it fails, but neither panics nor allocates more than
//! the frame's limit.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use uuid::Uuid;

use crate::id::Directive;
use crate::mesh::{RecvHalf, StreamError};

/// The most that one response carries, in bytes: 64 KiB.
pub const MAX_RESPONSE: usize = 64 * 1024;

/// The longest error text, in bytes: 4 KiB. A longer one is cut, and says so at its end.
pub const MAX_ERROR_TEXT: usize = 4 * 1024;

/// The version of the CALL frame.
pub(crate) const VERSION: u8 = 1;

/// The longest CALL frame. A call of this version has at most 163 bytes; the rest is for later
/// ones.
pub(crate) const MAX_CALL_FRAME: usize = 4 * 1024;

/// The longest response frame: a full body, a full error text, and what comes around them.
pub(crate) const MAX_RESPONSE_FRAME: usize = MAX_RESPONSE + 2 * MAX_ERROR_TEXT;

/// How deep the values of a frame may nest. The frames of this version need 2; the default of 1024
/// can overflow a stack.
const MAX_DEPTH: usize = 16;

/// How much is asked of the stream at once.
const READ_SIZE: usize = 256 * 1024;

/// `[version, call id, directive, deadline in ms or nil]`, the first frame from the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallFrame {
    pub(crate) id: Uuid,
    pub(crate) directive: Directive,
    pub(crate) deadline: Option<Duration>,
}

impl CallFrame {
    /// The frame with its length.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let id = serde_bytes::Bytes::new(self.id.as_bytes());
        // Rounded up, so that a short deadline is not an expired one.
        let deadline_ms = self.deadline.map(|deadline| {
            u64::try_from(deadline.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
        });
        let mut frame = vec![0; 4];
        rmp_serde::encode::write(&mut frame, &(VERSION, id, self.directive.as_str(), deadline_ms))
            .expect("plain values encode, and a Vec takes them");
        put_length(&mut frame, 0);
        frame
    }

    /// Reads a frame without its length.
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, BadCall> {
        match decode(frame) {
            Ok(AnyCall::Known(call)) => Ok(call),
            Ok(AnyCall::Later(version)) => Err(BadCall::Version(version)),
            Err(error) => Err(BadCall::Unreadable(error.to_string())),
        }
    }
}

/// Why a frame is not a call. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadCall {
    #[error("calls of version {0} are not spoken here, only of version {VERSION}")]
    Version(u8),
    #[error("not a call: {0}")]
    Unreadable(String),
}

enum AnyCall {
    Known(CallFrame),
    Later(u8),
}

impl<'de> Deserialize<'de> for AnyCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = AnyCall;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a call")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<AnyCall, A::Error> {
                let version = field(&mut seq, "version")?;
                if version != VERSION {
                    skip_rest(&mut seq)?;
                    return Ok(AnyCall::Later(version));
                }
                let id: &serde_bytes::Bytes = field(&mut seq, "call id")?;
                let id = Uuid::from_slice(id).map_err(A::Error::custom)?;
                let directive = field(&mut seq, "directive")?;
                let deadline_ms: Option<u64> = field(&mut seq, "deadline")?;
                skip_rest(&mut seq)?;
                Ok(AnyCall::Known(CallFrame {
                    id,
                    directive,
                    deadline: deadline_ms.map(Duration::from_millis),
                }))
            }
        }

        deserializer.deserialize_seq(Fields)
    }
}

/// `[serial, last, code or nil, error or nil, body]`, what comes from the executor. A last response
/// to a call that was not started has one more element, `false`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseFrame {
    pub(crate) serial: u64,
    pub(crate) last: bool,
    pub(crate) code: Option<u32>,
    pub(crate) error: Option<String>,
    pub(crate) body: Bytes,
    /// The executor says that it did not start the call. Such a response has no body.
    pub(crate) not_started: bool,
}

impl ResponseFrame {
    /// The frame with its length, up to the body, which is to follow as it is.
    pub(crate) fn encode_head(&self) -> Vec<u8> {
        debug_assert!(self.body.len() <= MAX_RESPONSE, "a body has at most {MAX_RESPONSE} bytes");
        let mut frame = vec![0; 4];
        rmp_serde::encode::write(
            &mut frame,
            &(self.serial, self.last, self.code, self.error.as_deref()),
        )
        .expect("plain values encode, and a Vec takes them");
        // The array has a fifth element, written by hand so that the body need not be copied.
        frame[4] += 1;
        match self.body.len() {
            len @ 0..=0xff => frame.put_slice(&[0xc4, len as u8]),
            len @ 0x100..=0xffff => {
                frame.put_u8(0xc5);
                frame.put_u16(len as u16);
            }
            len => {
                frame.put_u8(0xc6);
                frame.put_u32(len as u32);
            }
        }
        if self.not_started {
            debug_assert!(self.body.is_empty(), "the body comes before the last element");
            frame[4] += 1;
            frame.put_u8(0xc2);
        }
        put_length(&mut frame, self.body.len());
        frame
    }

    /// Reads a frame without its length. The body is a slice of it.
    pub(crate) fn decode(frame: &Bytes) -> Result<Self, rmp_serde::decode::Error> {
        let fields: ResponseFields<'_> = decode(frame)?;
        if fields.body.len() > MAX_RESPONSE {
            return Err(rmp_serde::decode::Error::custom("the body is too long"));
        }
        Ok(Self {
            serial: fields.serial,
            last: fields.last,
            code: fields.code,
            error: fields.error.map(cut_error_text),
            body: frame.slice_ref(fields.body),
            not_started: fields.started == Some(false),
        })
    }
}

struct ResponseFields<'a> {
    serial: u64,
    last: bool,
    code: Option<u32>,
    error: Option<&'a str>,
    body: &'a [u8],
    started: Option<bool>,
}

impl<'de> Deserialize<'de> for ResponseFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = ResponseFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a response")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<ResponseFields<'de>, A::Error> {
                let serial = field(&mut seq, "serial")?;
                let last = field(&mut seq, "last")?;
                let code = field(&mut seq, "code")?;
                let error = field(&mut seq, "error")?;
                let body: &'de serde_bytes::Bytes = field(&mut seq, "body")?;
                let started = seq.next_element()?;
                skip_rest(&mut seq)?;
                Ok(ResponseFields { serial, last, code, error, body, started })
            }
        }

        deserializer.deserialize_seq(Fields)
    }
}

/// The text within [`MAX_ERROR_TEXT`].
pub(crate) fn cut_error_text(text: &str) -> String {
    const CUT: &str = "… (cut)";
    if text.len() <= MAX_ERROR_TEXT {
        return text.to_owned();
    }
    let end = (0..=MAX_ERROR_TEXT - CUT.len())
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .expect("0 is a boundary");
    format!("{}{CUT}", &text[..end])
}

pub(super) fn decode<'de, T: Deserialize<'de>>(
    frame: &'de [u8],
) -> Result<T, rmp_serde::decode::Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(frame);
    deserializer.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut deserializer)
}

pub(super) fn put_length(frame: &mut [u8], to_follow: usize) {
    let len = u32::try_from(frame.len() - 4 + to_follow).expect("frames are far below 4 GiB");
    frame[..4].copy_from_slice(&len.to_be_bytes());
}

pub(super) fn field<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(
    seq: &mut A,
    name: &str,
) -> Result<T, A::Error> {
    seq.next_element()?.ok_or_else(|| A::Error::custom(format_args!("the {name} is missing")))
}

pub(super) fn skip_rest<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Reads frames from a stream, then hands over the rest of it.
#[derive(Debug)]
pub(crate) struct FrameReader {
    recv: RecvHalf,
    /// Bytes read from the stream and not yet consumed.
    chunk: Bytes,
    /// The start of what is being gathered, when it came in several chunks.
    part: BytesMut,
    /// The length of the current frame, once it is known.
    len: Option<usize>,
}

impl FrameReader {
    pub(crate) fn new(recv: RecvHalf) -> Self {
        Self { recv, chunk: Bytes::new(), part: BytesMut::new(), len: None }
    }

    /// The next frame without its length; `None` where the stream ends between two frames. Cancel
    /// safe.
    ///
    /// A frame that came in one chunk is not copied, any other once.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Option<Bytes>, FrameError> {
        poll_fn(|cx| self.poll_next(cx, limit)).await
    }

    /// As [`next`](Self::next).
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, FrameError>> {
        let len = match self.len {
            Some(len) => len,
            None => {
                let Some(head) = ready!(self.poll_gather(cx, 4))? else {
                    return Poll::Ready(Ok(None));
                };
                let head: [u8; 4] = head[..].try_into().expect("4 bytes were asked for");
                let len = u32::from_be_bytes(head) as usize;
                if len > limit {
                    return Poll::Ready(Err(FrameError::TooLong { len, limit }));
                }
                *self.len.insert(len)
            }
        };
        let frame = ready!(self.poll_gather(cx, len))?.ok_or(FrameError::Truncated)?;
        self.len = None;
        Poll::Ready(Ok(Some(frame)))
    }

    /// The stream behind the last frame, which it counts from.
    pub(crate) fn into_rest(mut self) -> RecvHalf {
        self.recv.begin_with(self.chunk);
        self.recv
    }

    pub(crate) fn recv_mut(&mut self) -> &mut RecvHalf {
        &mut self.recv
    }

    /// The next `len` bytes; `None` if the stream ends before the first of them.
    fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
        len: usize,
    ) -> Poll<Result<Option<Bytes>, FrameError>> {
        loop {
            if self.part.is_empty() && self.chunk.len() >= len {
                return Poll::Ready(Ok(Some(self.chunk.split_to(len))));
            }
            if !self.chunk.is_empty() {
                self.part.reserve(len - self.part.len());
                let taken = self.chunk.split_to(self.chunk.len().min(len - self.part.len()));
                self.part.extend_from_slice(&taken);
            }
            if self.part.len() == len {
                return Poll::Ready(Ok(Some(std::mem::take(&mut self.part).freeze())));
            }
            match ready!(self.recv.poll_chunk(cx, READ_SIZE))? {
                Some(chunk) => self.chunk = chunk,
                None if self.part.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(FrameError::Truncated)),
            }
        }
    }
}

/// Why no frame could be read. The stream is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {len} bytes; at most {limit} are allowed")]
    TooLong { len: usize, limit: usize },
    #[error("the stream ended within a frame")]
    Truncated,
    #[error(transparent)]
    Stream(#[from] StreamError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> CallFrame {
        CallFrame {
            id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001),
            directive: "files:list".parse().unwrap(),
            deadline: Some(Duration::from_millis(1500)),
        }
    }

    fn response(body: &[u8]) -> ResponseFrame {
        ResponseFrame { serial: 1, body: Bytes::copy_from_slice(body), ..ResponseFrame::default() }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn assert_on_page(bytes: &[u8]) {
        let hex = hex(bytes);
        assert!(
            include_str!("../../docs/protocol.md").contains(&format!("`{hex}`")),
            "not on the page: {hex}"
        );
    }

    #[test]
    fn the_bytes_of_a_call_are_as_documented() {
        let bytes = call().encode();
        assert_eq!(
            hex(&bytes),
            "00000022".to_owned()
                + "9401"
                + "c41001920000000070008000000000000001"
                + "aa66696c65733a6c697374"
                + "cd05dc"
        );
        assert_on_page(&bytes);
        assert_eq!(CallFrame::decode(&bytes[4..]), Ok(call()));
        let bytes = CallFrame { deadline: None, ..call() }.encode();
        assert_eq!(
            hex(&bytes),
            "00000020".to_owned()
                + "9401"
                + "c41001920000000070008000000000000001"
                + "aa66696c65733a6c697374"
                + "c0"
        );
        assert_on_page(&bytes);
    }

    #[test]
    fn the_bytes_of_responses_are_as_documented() {
        assert_eq!(
            hex(&response(b"hello").encode_head()),
            "0000000c".to_owned() + "9501c2c0c0" + "c405"
        );
        let last = ResponseFrame {
            last: true,
            code: Some(1),
            error: Some("no".to_owned()),
            serial: 300,
            ..ResponseFrame::default()
        };
        assert_eq!(hex(&last.encode_head()), "0000000b".to_owned() + "95cd012cc301a26e6f" + "c400");
        let success =
            ResponseFrame { last: true, code: Some(0), serial: 2, ..ResponseFrame::default() };
        assert_eq!(hex(&success.encode_head()), "00000007".to_owned() + "9502c300c0" + "c400");
        let refused = ResponseFrame {
            last: true,
            code: Some(7),
            serial: 1,
            not_started: true,
            ..ResponseFrame::default()
        };
        assert_eq!(
            hex(&refused.encode_head()),
            "00000008".to_owned() + "9601c307c0" + "c400" + "c2"
        );
        assert_eq!(
            ResponseFrame::decode(&refused.encode_head().split_off(4).into()).unwrap(),
            refused
        );
        for response in [response(b"hello"), last, success, refused] {
            assert_on_page(&response.encode_head());
        }
    }

    #[test]
    fn a_response_of_any_length_comes_back_as_it_was_and_its_body_is_not_copied() {
        for len in [0, 1, 0xff, 0x100, 0xffff, MAX_RESPONSE] {
            let response = response(&vec![7; len]);
            let frame =
                Bytes::from([&response.encode_head()[..], &response.body].concat()).slice(4..);
            let decoded = ResponseFrame::decode(&frame).unwrap();
            assert_eq!(decoded, response);
            if len > 0 {
                assert!(frame.as_ptr_range().contains(&decoded.body.as_ptr()));
            }
        }
    }

    #[test]
    fn fields_of_later_versions_are_skipped() {
        let id = serde_bytes::Bytes::new(&[0; 16]);
        let call = rmp_serde::to_vec(&(VERSION, id, "a:b", (), "later", (1, 2))).unwrap();
        assert_eq!(CallFrame::decode(&call).unwrap().directive.as_str(), "a:b");
        let call = rmp_serde::to_vec(&(2, "all different")).unwrap();
        assert_eq!(CallFrame::decode(&call), Err(BadCall::Version(2)));
        let response =
            rmp_serde::to_vec(&(1, true, 0, (), serde_bytes::Bytes::new(b"x"), true, "later"))
                .unwrap();
        assert_eq!(ResponseFrame::decode(&response.into()).unwrap().body, "x");
    }

    #[test]
    fn every_prefix_and_every_changed_byte_decodes_or_fails_but_never_panics() {
        let call = call().encode().split_off(4);
        let response = [&response(b"hello").encode_head()[4..], b"hello"].concat();
        for frame in [call, response] {
            for len in 0..frame.len() {
                assert!(CallFrame::decode(&frame[..len]).is_err());
                assert!(ResponseFrame::decode(&Bytes::copy_from_slice(&frame[..len])).is_err());
            }
            for at in 0..frame.len() {
                for value in 0..=255 {
                    let mut changed = frame.clone();
                    changed[at] = value;
                    let _ = CallFrame::decode(&changed);
                    let _ = ResponseFrame::decode(&changed.into());
                }
            }
        }
    }

    #[test]
    fn a_deep_nest_of_arrays_is_an_error() {
        let frame = [&[0x96, 1, 0xc2, 0xc0, 0xc0, 0xc4, 0][..], &[0x91; 60_000]].concat();
        assert!(ResponseFrame::decode(&frame.into()).is_err());
    }

    #[test]
    fn a_long_error_text_is_cut_between_characters() {
        let text = "ä".repeat(MAX_ERROR_TEXT);
        let cut = cut_error_text(&text);
        assert!(cut.len() <= MAX_ERROR_TEXT && cut.ends_with("… (cut)"));
        assert_eq!(cut_error_text("short"), "short");
    }
}
