//! Frames in a carrier's stream: the length of a packet in two bytes, most significant first, then
//! the packet.

use super::{HEAD, MAX_PACKET};

/// Why a stream is not a carrier's. What comes after it has no meaning: the carrier is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// No packet is empty.
    #[error("an empty frame")]
    Empty,
    /// No packet is longer than [`MAX_PACKET`].
    #[error("a frame of {0} bytes, at most {MAX_PACKET} are allowed")]
    Oversized(usize),
}

/// Finds the packets in what arrives. It holds one frame at most.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    partial: Vec<u8>,
}

impl Decoder {
    /// Passes the packets that `input` completes to `deliver`.
    ///
    /// # Errors
    /// The stream is not a carrier's. The packets before the error were delivered.
    pub(crate) fn decode(
        &mut self,
        mut input: &[u8],
        mut deliver: impl FnMut(&[u8]),
    ) -> Result<(), FrameError> {
        loop {
            // Frames that are complete are not copied.
            if self.partial.is_empty() {
                let Some(len) = length(input)? else { break };
                let Some(packet) = input.get(HEAD..HEAD + len) else { break };
                deliver(packet);
                input = &input[HEAD + len..];
                continue;
            }
            let wanted = length(&self.partial)?.map_or(HEAD, |len| HEAD + len);
            let missing = wanted.saturating_sub(self.partial.len());
            let taken = missing.min(input.len());
            self.partial.extend_from_slice(&input[..taken]);
            input = &input[taken..];
            if taken < missing {
                return Ok(());
            }
            if wanted > HEAD {
                deliver(&self.partial[HEAD..]);
                self.partial.clear();
            } else {
                // An error is found as soon as the length is there.
                length(&self.partial)?;
            }
        }
        self.partial.extend_from_slice(input);
        Ok(())
    }

    /// Bytes of a frame that is not complete.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn held(&self) -> usize {
        self.partial.len()
    }
}

/// Appends a packet of 1 to [`MAX_PACKET`] bytes as a frame. Others are not appended: no decoder
/// accepts them.
pub(super) fn encode(packet: &[u8], into: &mut Vec<u8>) {
    let Ok(len) = u16::try_from(packet.len()) else { return };
    if (1..=MAX_PACKET).contains(&packet.len()) {
        into.extend_from_slice(&len.to_be_bytes());
        into.extend_from_slice(packet);
    }
}

/// The length of the packet in the frame that begins here. `None` if it has not arrived.
fn length(frame: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(head) = frame.first_chunk::<HEAD>() else { return Ok(None) };
    match usize::from(u16::from_be_bytes(*head)) {
        0 => Err(FrameError::Empty),
        len if len > MAX_PACKET => Err(FrameError::Oversized(len)),
        len => Ok(Some(len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    fn decode(decoder: &mut Decoder, input: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut packets = Vec::new();
        decoder.decode(input, |packet| packets.push(packet.to_vec()))?;
        Ok(packets)
    }

    #[test]
    fn a_frame_is_the_length_in_two_bytes_and_the_packet() {
        let mut stream = Vec::new();
        encode(b"abc", &mut stream);
        encode(b"", &mut stream);
        encode(&[0; MAX_PACKET + 1], &mut stream);
        encode(b"d", &mut stream);
        assert_eq!(stream, [0, 3, b'a', b'b', b'c', 0, 1, b'd']);
        let packets = decode(&mut Decoder::default(), &stream).unwrap();
        assert_eq!(packets, [b"abc".to_vec(), b"d".to_vec()]);
    }

    #[test]
    fn packets_survive_however_the_stream_is_cut() {
        for seed in 0..200 {
            let mut rng = SplitMix64::new(seed);
            let packets: Vec<Vec<u8>> = (0..rng.within(1, 20))
                .map(|nth| vec![nth as u8; rng.within(1, MAX_PACKET as u64) as usize])
                .collect();
            let mut stream = Vec::new();
            packets.iter().for_each(|packet| encode(packet, &mut stream));
            let (mut decoder, mut decoded) = (Decoder::default(), Vec::new());
            let mut rest = stream.as_slice();
            while !rest.is_empty() {
                let most = if rng.chance(0.3) { 3 } else { 30_000 };
                let (part, more) = rest.split_at(rest.len().min(rng.within(1, most) as usize));
                decoded.extend(decode(&mut decoder, part).unwrap());
                assert!(decoder.held() < HEAD + MAX_PACKET, "seed {seed}");
                rest = more;
            }
            assert_eq!(decoded, packets, "seed {seed}");
            assert_eq!(decoder.held(), 0, "seed {seed}");
        }
    }

    #[test]
    fn lengths_that_no_packet_has_are_named_wherever_the_stream_is_cut() {
        let oversized = (MAX_PACKET as u16 + 1).to_be_bytes();
        let error = FrameError::Oversized(MAX_PACKET + 1);
        assert_eq!(decode(&mut Decoder::default(), &oversized), Err(error));
        assert_eq!(decode(&mut Decoder::default(), &[0, 1, 7, 0, 0]), Err(FrameError::Empty));
        let mut decoder = Decoder::default();
        assert_eq!(decode(&mut decoder, &oversized[..1]), Ok(Vec::new()));
        assert_eq!(decode(&mut decoder, &oversized[1..]), Err(error));
        assert_eq!(error.to_string(), "a frame of 8987 bytes, at most 8986 are allowed");
    }
}
