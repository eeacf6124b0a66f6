//! The bytes of the frames, as `docs/protocol.md` has them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::busy::BusyReason;
use super::super::outcome::{Failure, Outcome, ReportState, UnitRefusal};
use super::super::spec::UnitSpec;
use super::super::unit_output::UnitOutput;
use super::*;
use crate::work::unit::machine::entry::StoreId;

fn id() -> Uuid {
    Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001)
}

fn store() -> StoreId {
    StoreId(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0009))
}

fn spec() -> UnitSpec {
    UnitSpec {
        directive: "files:list".parse().unwrap(),
        payload_len: 5,
        payload_sha256: [7; 32],
        start_by_ms: 86_400_000,
        run_for_ms: None,
        keep_for_ms: 604_800_000,
        idempotent: false,
        labels: BTreeMap::from([("job".to_owned(), "17".to_owned())]),
    }
}

fn status(state: ReportState) -> StatusReply {
    StatusReply {
        version: 5,
        state,
        started: true,
        since_ms: 12,
        started_ms: Some(300),
        stdout_len: 6,
        stderr_len: 0,
    }
}

fn requests() -> Vec<(&'static str, UnitRequest)> {
    let output =
        OutputRequest { id: id(), output: UnitOutput::Stdout, attempt: 0, offset: 6, follow: true };
    vec![
        (
            "OFFER",
            UnitRequest::Offer { id: id(), start_within_ms: 86_400_000, spec: Box::new(spec()) },
        ),
        ("OUTPUT", UnitRequest::Output(output)),
        ("FOLLOW", UnitRequest::Follow),
        ("CANCEL", UnitRequest::Cancel { id: id(), grace_ms: 2_000, start_within_ms: 60_000 }),
        ("RELEASE", UnitRequest::Release { id: id(), force: true }),
        ("LIST", UnitRequest::List { after: Some(id()), limit: 100 }),
        ("LIST", UnitRequest::List { after: None, limit: 1_000 }),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    let (store, id) = (store(), id());
    let failed = ReportState::Final(Outcome::Failed(Failure::Exit(3)));
    vec![
        ("HAVE", Reply::Have { store, id, offset: 300 }),
        ("STATUS", Reply::Status { store, id, status: status(ReportState::Running) }),
        ("STATUS", Reply::Status { store, id, status: status(failed) }),
        ("REFUSED", Reply::Refused { store, id, refusal: UnitRefusal::Conflict }),
        ("BUSY", Reply::Busy { store, id, reason: BusyReason::DiskReserve }),
        ("UNKNOWN", Reply::Unknown { store, id }),
        ("NEVER-ACCEPTED", Reply::NeverAccepted { store, id }),
        ("RELEASED", Reply::Released { store, id }),
        ("DATA", Reply::Data { attempt: 1, offset: 6, bytes: Bytes::from_static(b"hello") }),
        ("END", Reply::End { attempt: 1, len: 11, sha256: Some([7; 32]) }),
        ("END", Reply::End { attempt: 0, len: 0, sha256: None }),
        ("LIST-END", Reply::ListEnd { more: false }),
        ("FOLLOWING", Reply::Following { store }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_all_frames_are_as_documented() {
    let page = include_str!("../../../../docs/protocol.md");
    let requests = requests().into_iter().map(|(name, request)| (name, request.encode()));
    let replies = replies().into_iter().map(|(name, reply)| (name, reply.encode()));
    let subscription = [("SUBSCRIBE", Subscription { id: id() }.encode())];
    let missing: Vec<String> = requests
        .chain(replies)
        .chain(subscription)
        .map(|(name, bytes)| format!("| {name} | `{}` |", hex(&bytes)))
        .filter(|row| !page.contains(row))
        .collect();
    assert!(missing.is_empty(), "not on the page:\n{}", missing.join("\n"));
}

#[test]
fn frames_come_back_as_they_were() {
    for (_, request) in requests() {
        assert_eq!(UnitRequest::decode(&request.encode()[4..]).unwrap(), request);
    }
    for (_, reply) in replies() {
        assert_eq!(Reply::decode(&reply.encode()[4..]).unwrap(), reply);
    }
    let subscription = Subscription { id: id() };
    assert_eq!(Subscription::decode(&subscription.encode()[4..]).unwrap(), subscription);
}

#[test]
fn every_state_comes_back_as_it_was() {
    let text = || "because".to_owned();
    let outcomes = [
        Outcome::Succeeded,
        Outcome::Failed(Failure::Exit(-1)),
        Outcome::Failed(Failure::Signal(9)),
        Outcome::Failed(Failure::RunTime),
        Outcome::Failed(Failure::OutputLimit),
        Outcome::Failed(Failure::NotStarted(text())),
        Outcome::Failed(Failure::Handler(text())),
        Outcome::Cancelled,
        Outcome::Expired,
        Outcome::Refused(UnitRefusal::TooLong),
        Outcome::Lost,
    ];
    let open = [
        ReportState::Receiving { offset: 77 },
        ReportState::Accepted,
        ReportState::Starting,
        ReportState::Running,
    ];
    for state in open.into_iter().chain(outcomes.map(ReportState::Final)) {
        let reply = Reply::Status { store: store(), id: id(), status: status(state) };
        assert_eq!(Reply::decode(&reply.encode()[4..]).unwrap(), reply);
    }
}

#[test]
fn fields_of_later_versions_are_skipped_and_later_requests_are_not_understood() {
    let later = rmp_serde::to_vec(&(1, 3, "later", (1, 2))).unwrap();
    assert_eq!(UnitRequest::decode(&later).unwrap(), UnitRequest::Follow);
    assert!(UnitRequest::decode(&rmp_serde::to_vec(&(2, 3)).unwrap()).is_err());
    assert!(UnitRequest::decode(&rmp_serde::to_vec(&(1, 99)).unwrap()).is_err());
}

#[test]
fn busy_without_a_reason_or_with_a_later_one_is_unspecified() {
    let unspecified = Reply::Busy { store: store(), id: id(), reason: BusyReason::Unspecified };
    let frame = unspecified.encode();
    assert_eq!(Reply::decode(&frame[4..]).unwrap(), unspecified);
    let mut without = frame[4..frame.len() - 1].to_vec();
    without[0] -= 1;
    assert_eq!(Reply::decode(&without).unwrap(), unspecified);
    let mut later = frame[4..].to_vec();
    *later.last_mut().unwrap() = 99;
    assert_eq!(Reply::decode(&later).unwrap(), unspecified);
}

#[test]
fn a_spec_with_another_hash_is_not_understood() {
    let mut frame =
        UnitRequest::Offer { id: id(), start_within_ms: 1, spec: Box::new(spec()) }.encode();
    let last = frame.len() - 1;
    frame[last] ^= 1;
    assert!(UnitRequest::decode(&frame[4..]).is_err());
}

#[test]
fn every_prefix_and_every_changed_byte_decodes_or_fails_but_never_panics() {
    let requests = requests().into_iter().map(|(_, request)| request.encode());
    let replies = replies().into_iter().map(|(_, reply)| reply.encode());
    for frame in requests.chain(replies) {
        let frame = &frame[4..];
        for len in 0..frame.len() {
            let _ = (UnitRequest::decode(&frame[..len]), Reply::decode(&frame[..len]));
        }
        for at in 0..frame.len() {
            for value in [0x00, 0x7f, 0x80, 0x9f, 0xc0, 0xc4, 0xc6, 0xdc, 0xdd, 0xdf, 0xff] {
                let mut changed = frame.to_vec();
                changed[at] = value;
                let _ = (UnitRequest::decode(&changed), Reply::decode(&changed));
                let _ = Subscription::decode(&changed);
            }
        }
    }
}
