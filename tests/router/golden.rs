//! The bytes on the wire, which never change for a message of this version.

use bytes::Bytes;
use receptor_quic::id::Version;
use receptor_quic::router::{
    Advertisement, Attachment, Buckets, CredentialName, Delta, Digest, Draft, Echo, Entry,
    LinkClass, Message, Override, Proof, Record, Stamp,
};

use crate::probe::link;
use crate::sim::id;

const PAGE: &str = include_str!("../../docs/protocol.md");

#[test]
fn the_bytes_of_every_message_are_as_documented() {
    let vectors = [
        ("DIGEST", "9310c41000112233445566778899aabbccddeeff03"),
        (
            "SUMMARY, the only part",
            "9412c09295aa636f6e74726f6c6c6572cf0000019b76daa80007cf0123456789abcdefcedeadbeef95a772656c61792d31cf0000019b76daa801cd012ccffedcba9876543210ce4fc3dab8c3",
        ),
        (
            "SUMMARY, a later part",
            "9412aa636f6e74726f6c6c65729195a772656c61792d31cf0000019b76daa801cd012ccffedcba9876543210ce4fc3dab8c2",
        ),
        (
            "UPDATE",
            "9213c45597a772656c61792d31cf0000019b76daa801cd012ccffedcba9876543210009493aa636f6e74726f6c6c6572000193a6656467652d3100ccfa93a6656467652d32020193a66c6170746f7001cdffffc40481a17601",
        ),
        (
            "DELTA",
            "9c14a772656c61792d31cf0000019b76daa801cd012dcffedcba987654321092cd012cce4fc3dab80091a66c6170746f709193a6656467652d320003c090c4105771f2621c80aa5b2e82529536f46601",
        ),
        ("HAVE", "92159195aa636f6e74726f6c6c6572cf0000019b76daa80007cf0123456789abcdefcedeadbeef"),
        ("WANT", "921692aa636f6e74726f6c6c6572a772656c61792d31"),
        ("NACK", "921791aa636f6e74726f6c6c6572"),
        (
            "ECHO",
            "9718aa636f6e74726f6c6c6572cf0000019b76daa80007cf0123456789abcdef0dcf1122334455667788",
        ),
        ("SYNC-END", "9119"),
        ("BUCKETS, eight of them", "9211c4180000000000005c71a600000000000000000069e73c000000"),
        (
            "SUMMARY, of two buckets",
            "9512c09195a772656c61792d31cf0000019b76daa801cd012ccffedcba9876543210ce4fc3dab8c3c40122",
        ),
        (
            "HAVE, of what does not come by itself",
            "93159195aa636f6e74726f6c6c6572cf0000019b76daa80007cf0123456789abcdefcedeadbeefc3",
        ),
        ("REKEYED", "931ec4107369787465656e2062797465206b6579c41000112233445566778899aabbccddeeff"),
        (
            "UPDATE, signed",
            "9313c45597a772656c61792d31cf0000019b76daa801cd012ccffedcba9876543210009493aa636f6e74726f6c6c6572000193a6656467652d3100ccfa93a6656467652d32020193a66c6170746f7001cdffffc40481a17601c419f78c06aa55a0e2d18b5653884184079a7369676e6174757265",
        ),
        ("CREDENTIAL-WANT", "921c9192a772656c61792d31c410f78c06aa55a0e2d18b5653884184079a"),
        (
            "CREDENTIAL",
            "941da772656c61792d31c410f78c06aa55a0e2d18b5653884184079ac40c636572746966696361746573",
        ),
        ("CREDENTIAL, not there", "941da772656c61792d31c410f78c06aa55a0e2d18b5653884184079ac0"),
        ("ATTACHMENT-WANT", "921a9192a66c6170746f70a772656c61792d31"),
        (
            "ATTACHMENT",
            "941ba66c6170746f70a772656c61792d3193c41896a66c6170746f70a772656c61792d31010203ce6955b900c4097369676e6174757265c40c636572746966696361746573",
        ),
        ("ATTACHMENT, not there", "941ba66c6170746f70a772656c61792d31c0"),
    ];
    for ((name, message), (vector, hex)) in messages().into_iter().zip(vectors) {
        assert_eq!((name, to_hex(&message.encode()).as_str()), (vector, hex));
        assert_on_page(hex);
    }
}

#[test]
fn the_limits_of_messages_are_as_documented() {
    let (_, page) = PAGE.split_once("### Messages").unwrap();
    for (_, message) in messages() {
        let start = format!("| `{:#04x}` |", message.frame_type());
        let row = page.lines().find(|line| line.starts_with(&start)).unwrap();
        let limit = row.trim_end_matches(" |").rsplit("| ").next().unwrap().replace(',', "");
        assert_eq!(limit, Message::max_len(message.frame_type()).to_string(), "{row}");
    }
}

#[test]
fn the_bytes_of_a_record_and_its_id_are_as_documented() {
    let record = relay();
    for text in [
        to_hex(record.advertisement().bytes()),
        record.advertisement().id().to_string(),
        to_hex(leaving().advertisement().bytes()),
        record.addr().to_string(),
    ] {
        assert_on_page(&text);
    }
    assert_eq!(
        to_hex(record.advertisement().bytes()),
        "97a772656c61792d31cf0000019b76daa801cd012ccffedcba9876543210009493aa636f6e74726f6c6c6572000193a6656467652d3100ccfa93a6656467652d32020193a66c6170746f7001cdffffc40481a17601"
    );
    // printf RECORD | xxd -r -p | sha256sum
    assert_eq!(record.advertisement().id().to_string(), "4fc3dab8-df5d-ce92-4685-10d53d5c71a6");
    assert_eq!(to_hex(leaving().advertisement().bytes()), "97a6656467652d310506070390c400");
    assert_eq!(record.addr().to_string(), "4045d2ef356c7f67");
    let late = "99a6656467652d310506070890c40003ae3139322e302e322e313a34343333";
    assert_eq!(to_hex(newcomer().advertisement().bytes()), late);
    assert_on_page(late);
    let digest = Digest::default().with(record.advertisement()).with(leaving().advertisement());
    assert_eq!(format!("{digest:?}"), "aec8c08c13cd1d99f06565508bc658e2");
    assert_on_page(&format!("{digest:?}"));
    assert_eq!(
        Record::decode(&Advertisement::new(record.advertisement().bytes().clone())),
        Ok(record)
    );
}

#[test]
fn the_record_that_a_change_gives_is_as_documented() {
    let result = delta().apply(&relay()).unwrap();
    assert_eq!(&result, later().advertisement());
    // printf RECORD | xxd -r -p | sha256sum
    assert_eq!(result.id().as_simple().to_string(), "5771f2621c80aa5b2e82529536f46601");
    assert_on_page(&to_hex(result.bytes()));
    assert_on_page(&result.id().to_string());
}

pub(crate) fn messages() -> Vec<(&'static str, Message)> {
    vec![
        (
            "DIGEST",
            Message::Digest { digest: Digest(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff), count: 3 },
        ),
        (
            "SUMMARY, the only part",
            Message::Summary { after: None, entries: entries(), last: true, buckets: None },
        ),
        (
            "SUMMARY, a later part",
            Message::Summary {
                after: Some(id("controller")),
                entries: entries()[1..].to_vec(),
                last: false,
                buckets: None,
            },
        ),
        ("UPDATE", Message::Update(relay().advertisement().clone())),
        ("DELTA", Message::Delta(delta().into())),
        ("HAVE", Message::Have(entries()[..1].to_vec())),
        ("WANT", Message::Want(vec![id("controller"), id("relay-1")])),
        ("NACK", Message::Nack(vec![id("controller")])),
        (
            "ECHO",
            Message::Echo(Echo {
                origin: id("controller"),
                version: entries()[0].stamp.version,
                count: 13,
                sum: 0x1122_3344_5566_7788,
            }),
        ),
        ("SYNC-END", Message::SyncEnd),
        ("BUCKETS, eight of them", Message::Buckets(Buckets::of(&[relay(), leaving()], 3))),
        (
            "SUMMARY, of two buckets",
            Message::Summary {
                after: None,
                entries: entries()[1..].to_vec(),
                last: true,
                buckets: Some(
                    Buckets::of(&[relay(), leaving()], 3).differing(&Buckets::of(&[], 3)),
                ),
            },
        ),
        ("HAVE, of what does not come by itself", Message::Offer(entries()[..1].to_vec())),
        (
            "REKEYED",
            Message::Rekeyed {
                key: *b"sixteen byte key",
                digest: Digest(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            },
        ),
        ("UPDATE, signed", Message::Update(relay().with_proof(proof()).advertisement().clone())),
        ("CREDENTIAL-WANT", Message::CredentialWant(vec![(id("relay-1"), credential())])),
        (
            "CREDENTIAL",
            Message::Credential {
                origin: id("relay-1"),
                name: credential(),
                credential: Some(b"certificates".as_slice().into()),
            },
        ),
        (
            "CREDENTIAL, not there",
            Message::Credential { origin: id("relay-1"), name: credential(), credential: None },
        ),
        ("ATTACHMENT-WANT", Message::AttachmentWant(vec![(id("laptop"), id("relay-1"))])),
        (
            "ATTACHMENT",
            Message::Attachment {
                stub: id("laptop"),
                neighbour: id("relay-1"),
                attachment: Some(Box::new(attachment())),
            },
        ),
        (
            "ATTACHMENT, not there",
            Message::Attachment { stub: id("laptop"), neighbour: id("relay-1"), attachment: None },
        ),
    ]
}

pub(crate) fn entries() -> Vec<Entry> {
    let version = |epoch, sequence, instance| Version { epoch, sequence, instance };
    vec![
        Entry {
            origin: id("controller"),
            stamp: Stamp {
                version: version(1_767_225_600_000, 7, 0x0123_4567_89ab_cdef),
                check: 0xdead_beef,
            },
        },
        Entry { origin: id("relay-1"), stamp: relay().stamp() },
    ]
}

fn attachment() -> Attachment {
    let version = Version { epoch: 1, sequence: 2, instance: 3 };
    let body = Attachment::body(&id("laptop"), &id("relay-1"), version, 1_767_225_600);
    let [signature, credential] = [&b"signature"[..], b"certificates"].map(Bytes::from_static);
    Attachment::decode(body, signature, credential).unwrap()
}

fn credential() -> CredentialName {
    CredentialName::of(b"certificates")
}

fn proof() -> Bytes {
    Proof { credential: credential(), signature: b"signature".as_slice().into() }.encode()
}

fn relay() -> Record {
    let draft = Draft {
        origin: id("relay-1"),
        version: Version {
            epoch: 1_767_225_600_001,
            sequence: 300,
            instance: 0xfedc_ba98_7654_3210,
        },
        transit: true,
        leaving: false,
        echo: false,
        links: vec![
            link("controller", LinkClass::Active, 1),
            link("edge-1", LinkClass::Active, 250),
            link("edge-2", LinkClass::Dormant, 1),
            link("laptop", LinkClass::Stub, 65_535),
        ],
        capabilities: vec![0x81, 0xa1, b'v', 0x01].into(),
        over: None,
    };
    draft.seal().unwrap()
}

/// `laptop` is gone, and the link to `edge-2` is up.
fn later() -> Record {
    let mut draft = (*relay()).clone();
    draft.version.sequence += 1;
    draft.links.truncate(3);
    draft.links[2] = link("edge-2", LinkClass::Active, 3);
    draft.seal().unwrap()
}

fn delta() -> Delta {
    Delta::between(&relay(), &later(), usize::MAX).unwrap()
}

fn leaving() -> Record {
    let version = Version { epoch: 5, sequence: 6, instance: 7 };
    Draft { transit: false, leaving: true, ..Draft::new(id("edge-1"), version) }.seal().unwrap()
}

fn newcomer() -> Record {
    let version = Version { epoch: 5, sequence: 6, instance: 7 };
    let over = Override { instance: 3, late: true, place: "192.0.2.1:4433".to_owned() };
    Draft { over: Some(over), ..Draft::new(id("edge-1"), version) }.seal().unwrap()
}

fn assert_on_page(text: &str) {
    assert!(PAGE.contains(&format!("`{text}`")), "not on the page: {text}");
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
