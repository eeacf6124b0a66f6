//! Any bytes, and messages that are nearly good.

use std::path::Path;

use receptor_quic::punch::{
    Answer, Candidate, CandidateKind, Message, NatClass, Offer, PathCookie, ProbeKey, Terms,
};

use crate::fuzzed;
use crate::rng::Rng;
use crate::world::addr;

#[test]
fn any_bytes_are_a_message_or_an_error_and_damaged_messages_too() {
    let candidates = vec![
        Candidate { addr: addr("192.0.2.1:7"), kind: CandidateKind::Host },
        Candidate { addr: addr("[2001:db8::1]:7"), kind: CandidateKind::Mapped },
    ];
    let terms = Terms {
        class: NatClass::Public,
        cookie: PathCookie([3; 8]),
        candidates,
        volleys: true,
        padding: 0,
    };
    let good = [
        Message::Offer(Offer { round: 1, key: ProbeKey([4; 32]), terms: terms.clone() }).encode(),
        Message::Answer(Answer { round: 1, terms }).encode(),
        Message::Request.encode(),
    ];
    let mut rng = Rng::new(1);
    for _ in 0..3_000 {
        let mut bytes = vec![rng.number() as u8];
        let at = rng.below(4) as usize;
        match good.get(at) {
            Some(message) => {
                bytes.extend(message);
                for _ in 0..rng.below(4) {
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] = rng.number() as u8;
                }
            }
            None => bytes.extend((0..rng.below(200)).map(|_| rng.number() as u8)),
        }
        fuzzed::run(&bytes);
    }
}

#[test]
fn kept_inputs_are_read_as_they_should() {
    // The package comes without the corpus.
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if fuzz.exists() {
        let files: Vec<_> = std::fs::read_dir(fuzz.join("corpus/punch"))
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        assert!(!files.is_empty());
        for file in files {
            fuzzed::run(&std::fs::read(file).unwrap());
        }
    }
}
