//! Any bytes as a message, as a record, and as a change of a record.

use receptor_quic::NodeId;
use receptor_quic::id::Cost;
use receptor_quic::id::Version;
use receptor_quic::router::{Advertisement, Delta, Draft, Link, LinkClass, Message, Record};

/// What is read of any bytes is written and read again as the same.
pub(crate) fn run(bytes: &[u8]) {
    if let Ok(Some(message)) = Message::decode(bytes) {
        assert!(Message::TYPES.contains(&message.frame_type()));
        let frame = message.encode();
        assert_eq!(Message::decode(&frame).as_ref(), Ok(&Some(message.clone())));
        match &message {
            Message::Update(advertisement) => record(advertisement),
            Message::Delta(delta) => change(delta),
            _ => {}
        }
    }
    record(&Advertisement::new(bytes.to_vec().into()));
}

fn record(advertisement: &Advertisement) {
    let Ok(record) = Record::decode(advertisement) else { return };
    let written = Draft::clone(&record).seal().expect("what was read keeps the rules");
    let read = Advertisement::new(written.advertisement().bytes().clone());
    assert_eq!(*Record::decode(&read).expect("what was written is read"), *record);

    // As it came, with fields that are not known yet, it can be a change if nothing of it is lost.
    let base = base();
    if let Some(delta) = Delta::between(&base, &record, usize::MAX) {
        assert_eq!(delta.apply(&base).as_ref(), Some(advertisement));
    }
    // As the next version of the base, it always is one.
    let mut draft = Draft::clone(&record);
    draft.version = Version { sequence: base.version.sequence + 1, ..base.version };
    draft.links.retain(|link| link.peer != base.origin);
    draft.origin = base.origin.clone();
    // A longer name may take it beyond the longest record.
    let Ok(next) = draft.seal() else { return };
    let delta =
        Delta::between(&base, &next, usize::MAX).expect("a record of this version can be a change");
    assert_eq!(delta.apply(&base).as_ref(), Some(next.advertisement()));
}

fn change(delta: &Delta) {
    let base = base();
    // What comes out is what the change says, or nothing.
    if let Some(result) = delta.apply(&base) {
        assert_eq!(result.id(), delta.id);
    }
    // The same, made to fit: only the id is wrong, unless it was right before.
    let stamp = base.stamp();
    let fitting = Delta {
        origin: base.origin.clone(),
        version: Version { sequence: delta.version.sequence, ..stamp.version },
        base_sequence: stamp.version.sequence,
        base_check: stamp.check,
        ..delta.clone()
    };
    if let Some(result) = fitting.apply(&base) {
        assert_eq!(result.id(), fitting.id);
    }
}

/// The record of the relay in `docs/protocol.md`.
fn base() -> Record {
    let links = [
        ("controller", LinkClass::Active, 1),
        ("edge-1", LinkClass::Active, 250),
        ("edge-2", LinkClass::Dormant, 1),
        ("laptop", LinkClass::Stub, 65_535),
    ];
    let version =
        Version { epoch: 1_767_225_600_001, sequence: 300, instance: 0xfedc_ba98_7654_3210 };
    let links = links.map(|(peer, class, cost)| Link {
        peer: name(peer),
        class,
        cost: Cost::try_from(cost).expect("a cost from 1 to 65,535"),
    });
    let capabilities = b"\x81\xa1v\x01".as_slice().into();
    let draft = Draft { links: links.into(), capabilities, ..Draft::new(name("relay-1"), version) };
    draft.seal().expect("it keeps the rules")
}

fn name(text: &str) -> NodeId {
    NodeId::try_from(text).expect("a valid name")
}
