//! Any bytes give a message, a skip or an error.

use receptor_quic::router::{Advertisement, DecodeError, Message, Record};

use crate::golden;
use crate::rng::Rng;

/// A change of `a`, up to the removed links.
const DELTA_HEAD: &[u8] = b"\x9c\x14\xa1a\x01\x02\x03\x92\x01\x00\x00";

#[test]
fn random_bytes_never_panic() {
    let mut rng = Rng::new(1);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..rng.below(64)).map(|_| rng.next() as u8).collect();
        decode(&bytes);
    }
}

#[test]
fn random_bytes_behind_a_known_type_never_panic() {
    let mut rng = Rng::new(2);
    for _ in 0..20_000 {
        let mut bytes = vec![0x90 | (1 + rng.below(8)) as u8, 0x10 + rng.below(12) as u8];
        bytes.extend((0..rng.below(48)).map(|_| rng.next() as u8));
        decode(&bytes);
    }
}

#[test]
fn truncated_and_damaged_frames_never_panic() {
    let mut rng = Rng::new(3);
    for (_, message) in golden::messages() {
        let frame = message.encode();
        for len in 0..frame.len() {
            assert!(Message::decode(&frame[..len]).is_err(), "{len} bytes of {message:?}");
        }
        for _ in 0..500 {
            let mut damaged = frame.clone();
            let at = rng.below(frame.len() as u64) as usize;
            damaged[at] ^= 1 << rng.below(8);
            decode(&damaged);
        }
    }
}

#[test]
fn lengths_that_lie_allocate_nothing_and_nesting_has_a_bound() {
    // Arrays, texts and binaries that claim four billion elements.
    for claim in
        [b"\xdd\xff\xff\xff\xff".as_slice(), b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
    {
        for head in [
            b"".as_slice(),
            b"\x92\x13",
            b"\x92\x15",
            b"\x92\x16",
            b"\x92\x3f",
            b"\x95\x12\xc0",
            DELTA_HEAD,
        ] {
            let bytes: Vec<u8> = [head, claim].concat();
            assert!(Message::decode(&bytes).is_err(), "{bytes:02x?}");
            assert!(Record::decode(&Advertisement::new(bytes.into())).is_err());
        }
    }
    let mut deep = vec![0x92, 0x3f];
    deep.extend([0x91; 1_000]);
    deep.push(0xc0);
    assert!(Message::decode(&deep).is_err());
    assert!(matches!(Message::decode(&vec![0; 100_000]), Err(DecodeError::TooLong { .. })));
}

#[test]
fn fields_of_later_versions_are_skipped() {
    for (name, message) in golden::messages() {
        let mut frame = message.encode();
        assert_eq!(frame[0] & 0xf0, 0x90, "{name} is a short array");
        // A field that is not always written is nil where later ones follow.
        if matches!(message, Message::Summary { buckets: None, .. } | Message::Have(_)) {
            frame[0] += 1;
            frame.push(0xc0);
        }
        frame[0] += 2;
        let unsigned = match &message {
            Message::Update(advertisement) => advertisement.proof().is_empty(),
            Message::Delta(delta) => delta.proof.is_empty(),
            _ => false,
        };
        if unsigned {
            // The place of the proof.
            frame[0] += 1;
            frame.extend(b"\xc4\x00");
        }
        frame.extend(b"\x93\x01\xa1x\xc0\x07");
        assert_eq!(Message::decode(&frame), Ok(Some(message)), "{name}");
        frame.push(0);
        assert!(Message::decode(&frame).is_err(), "nothing follows the array");
    }
}

#[test]
fn what_is_encoded_is_decoded_again() {
    for (_, message) in golden::messages() {
        assert_eq!(Message::decode(&message.encode()), Ok(Some(message.clone())));
        assert!(Message::TYPES.contains(&message.frame_type()));
    }
}

#[test]
fn summaries_out_of_order_are_refused() {
    let entries = golden::entries();
    let summary =
        |after, entries, last| Message::Summary { after, entries, last, buckets: None }.encode();
    let reversed: Vec<_> = entries.iter().rev().cloned().collect();
    assert!(matches!(Message::decode(&summary(None, reversed, true)), Err(DecodeError::Rule(_))));
    assert!(matches!(Message::decode(&summary(None, vec![], false)), Err(DecodeError::Rule(_))));
    let after = Some(entries[0].origin.clone());
    assert!(matches!(Message::decode(&summary(after, entries, true)), Err(DecodeError::Rule(_))));
}

fn decode(bytes: &[u8]) {
    if let Ok(Some(Message::Update(advertisement))) = Message::decode(bytes) {
        let _ = Record::decode(&advertisement);
    }
    let _ = Record::decode(&Advertisement::new(bytes.to_vec().into()));
}
