//! Real files: what survives, and what is put aside.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use super::super::job::{Channel, ExitRecord, Usage};
use super::super::spec::UnitSpec;
use crate::work::unit::machine::entry::ExecutorChange;
use crate::work::unit::machine::executor::{Exit, ExitKind, Found, RunFile};
use sha2::Digest as _;

use super::*;

const NOW: UnitTime = UnitTime(1_000);

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let (store, loaded) = open(root.path());
    assert!(loaded.incoming.is_empty() && loaded.quarantined.is_empty());
    let mut unit = store.create_incoming(&key(1), &entries(&[offered()])).unwrap();
    unit.paths().write_payload(0, b"pay").unwrap();
    unit.append(&entries(&[ExecutorChange::Accepted])).unwrap();
    let id = store.id();
    drop((store, unit));
    let (store, loaded) = open(root.path());
    assert_eq!(store.id(), id);
    let [(found, unit, journal)] = &loaded.incoming[..] else { panic!("{loaded:?}") };
    assert_eq!((found, unit.paths().payload_len().unwrap()), (&key(1), 3));
    assert_eq!(journal, &entries(&[offered(), ExecutorChange::Accepted]));
    let mode = fs::metadata(root.path().join("units")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn what_cannot_be_read_is_put_aside_and_the_rest_loads() {
    let root = tempfile::tempdir().unwrap();
    let (store, _) = open(root.path());
    for n in 1..=3 {
        store.create_incoming(&key(n), &entries(&[offered()])).unwrap();
    }
    let of = root.path().join("units/in/node-submitter");
    let log = of.join(key(1).id.to_string()).join("log");
    let mut bytes = fs::read(&log).unwrap();
    bytes[12] ^= 1;
    bytes.extend_from_slice(&[7; 30]);
    fs::write(&log, bytes).unwrap();
    fs::write(of.join("notes.txt"), "mine").unwrap();
    fs::write(of.join(key(8).id.to_string()), "not a directory").unwrap();
    fs::create_dir(root.path().join("units/in/..strange")).unwrap();
    std::os::unix::fs::symlink("/", of.join(key(9).id.to_string())).unwrap();
    // Only root can give a directory to somebody else.
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(of.join(key(2).id.to_string()), Some(12_345), None).unwrap();
    }
    let (_, loaded) = open(root.path());
    let kept: Vec<&UnitKey> = loaded.incoming.iter().map(|(key, ..)| key).collect();
    assert_eq!(kept.last(), Some(&&key(3)));
    assert_eq!(kept.len(), if is_root { 1 } else { 2 });
    let reasons: Vec<&str> = loaded.quarantined.iter().map(|it| it.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "its name is not that of a submitter",
            "log: the frame at byte 8 is damaged",
            "it belongs to user 12345",
            "it is not a directory",
            "it is not a directory",
            "its name is not a UUID",
        ]
    );
    assert!(loaded.quarantined.iter().all(|it| fs::symlink_metadata(&it.path).is_ok()));
}

#[test]
fn a_unit_whose_making_or_removal_was_cut_off_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let (store, _) = open(root.path());
    let unit = store.create_incoming(&key(1), &entries(&[offered()])).unwrap();
    unit.paths().write_payload(0, b"pay").unwrap();
    let dir = root.path().join("units/in/node-submitter").join(key(1).id.to_string());
    fs::remove_file(dir.join("log")).unwrap();
    let (_, loaded) = open(root.path());
    assert!(loaded.incoming.is_empty() && loaded.quarantined.is_empty() && !dir.exists());
}

#[test]
fn tombstones_last_until_their_time_and_not_longer() {
    let root = tempfile::tempdir().unwrap();
    let (store, _) = open(root.path());
    store.add_tombstone(&key(1), NOW.plus(10), Death::Removed, NOW).unwrap();
    store.add_tombstone(&key(2), NOW.plus(1_000), Death::NeverAccepted, NOW).unwrap();
    let (store, _) = open_at(root.path(), NOW.plus(10));
    assert_eq!(
        (store.tombstone(&key(1)), store.tombstone(&key(2))),
        (None, Some(Death::NeverAccepted))
    );
    fs::write(root.path().join("units/tombstones"), "nonsense").unwrap();
    let error =
        UnitStore::open(&root.path().join("units"), Uuid::nil(), NOW, 100, drop).unwrap_err();
    assert!(error.to_string().contains("tombstones: it is not a journal"), "{error}");
}

#[test]
fn tombstones_are_recorded_again_after_a_failed_append() {
    let root = tempfile::tempdir().unwrap();
    let (store, _) = open(root.path());
    let (log, aside) = (root.path().join("units/tombstones"), root.path().join("aside"));
    fs::rename(&log, &aside).unwrap();
    store.add_tombstone(&key(1), NOW.plus(1_000), Death::Removed, NOW).unwrap_err();
    let cut_off = [0, 0, 0, 90, 1, 2];
    fs::write(&log, [fs::read(&aside).unwrap(), cut_off.to_vec()].concat()).unwrap();
    store.add_tombstone(&key(2), NOW.plus(1_000), Death::Removed, NOW).unwrap();
    let (store, _) = open(root.path());
    assert_eq!((store.tombstone(&key(1)), store.tombstone(&key(2))), (None, Some(Death::Removed)));
}

#[test]
fn an_attempt_is_begun_by_one_supervisor_or_made_void() {
    let (_root, _store, unit) = unit();
    assert_eq!(unit.found(1).unwrap(), found(RunFile::Absent, false));
    let lock = unit.lock().unwrap();
    assert_eq!(unit.found(1).unwrap(), found(RunFile::Absent, true));
    unit.begin(1, 77).unwrap();
    assert_eq!(unit.begin(1, 78).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert!(!unit.fence(1).unwrap());
    assert_eq!(unit.found(1).unwrap(), found(RunFile::Supervisor, true));
    let exit = Exit { end: ExitKind::Status(3), terminated: false };
    let record = ExitRecord {
        exit: exit.clone(),
        stdout: Channel::default(),
        stderr: Channel::default(),
        usage: Usage::default(),
    };
    crate::mesh::data_dir::datadir::replace(
        &unit.attempt_path(1).join("exit"),
        &rmp_serde::to_vec(&record).unwrap(),
    )
    .unwrap();
    drop(lock);
    let ended = Found { exit: Some(exit), ..found(RunFile::Supervisor, false) };
    assert_eq!(unit.found(1).unwrap(), ended);
    assert!(unit.fence(2).unwrap());
    assert!(unit.fence(2).unwrap(), "again after a crash");
    assert_eq!(unit.begin(2, 79).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn of_many_that_begin_an_attempt_at_once_one_succeeds() {
    let (_root, _store, unit) = unit();
    let begun = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|n| {
                let unit = &unit;
                scope.spawn(move || {
                    if n % 2 == 0 { unit.begin(1, n).is_ok() } else { unit.fence(1).unwrap() }
                })
            })
            .collect();
        tries.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
    });
    // All fences agree with each other, and with the supervisors.
    let fenced = unit.found(1).unwrap().run == RunFile::Fence;
    let supervisors = begun.iter().step_by(2).filter(|it| **it).count();
    assert_eq!(supervisors, usize::from(!fenced));
    assert!(begun.iter().skip(1).step_by(2).all(|it| *it <= fenced));
}

#[test]
fn a_payload_with_another_digest_is_removed() {
    let (_root, _store, unit) = unit();
    let digest: [u8; 32] = sha2::Sha256::digest(b"payload").into();
    unit.write_payload(0, b"payment").unwrap();
    assert!(!unit.complete_payload(7, &digest).unwrap());
    assert_eq!(unit.payload_len().unwrap(), 0);
    unit.write_payload(0, b"pay").unwrap();
    unit.write_payload(3, b"load").unwrap();
    assert!(!unit.complete_payload(8, &digest).unwrap());
    unit.write_payload(0, b"payload").unwrap();
    assert!(unit.complete_payload(7, &digest).unwrap());
}

/// What a store held.
#[derive(Debug)]
struct Opened {
    incoming: Vec<(UnitKey, UnitDir, Vec<ExecutorEntry>)>,
    quarantined: Vec<Quarantined>,
}

fn open(root: &Path) -> (UnitStore, Opened) {
    open_at(root, NOW)
}

fn open_at(root: &Path, now: UnitTime) -> (UnitStore, Opened) {
    let mut incoming = Vec::new();
    let found = |unit| match unit {
        LoadedUnit::Incoming(key, dir, journal) => incoming.push((key, dir, journal)),
        LoadedUnit::Outgoing(id, ..) => panic!("nothing was submitted here: {id}"),
    };
    let (store, quarantined) =
        UnitStore::open(&root.join("units"), Uuid::from_u128(9), now, 100, found).unwrap();
    (store, Opened { incoming, quarantined })
}

fn unit() -> (tempfile::TempDir, UnitStore, UnitPaths) {
    let root = tempfile::tempdir().unwrap();
    let (store, _) = open(root.path());
    let unit = store.create_incoming(&key(1), &entries(&[offered()])).unwrap();
    (root, store, unit.paths().clone())
}

fn key(n: u128) -> UnitKey {
    UnitKey::new(&"submitter".parse().unwrap(), Uuid::from_u128(n))
}

fn found(run: RunFile, locked: bool) -> Found {
    Found { run, locked, exit: None }
}

fn entries(changes: &[ExecutorChange]) -> Vec<ExecutorEntry> {
    changes.iter().map(|change| ExecutorEntry { at: NOW, change: change.clone() }).collect()
}

fn offered() -> ExecutorChange {
    let spec = UnitSpec {
        directive: "a:b".parse().unwrap(),
        payload_len: 3,
        payload_sha256: [0; 32],
        start_by_ms: 1,
        run_for_ms: None,
        keep_for_ms: 1,
        idempotent: false,
        labels: BTreeMap::new(),
    };
    ExecutorChange::Offered { spec, start_by: NOW }
}

#[test]
fn what_a_failed_submission_left_behind_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let (store, _) = open(root.path());
    let left = root.path().join("units/out").join(key(1).id.to_string());
    fs::create_dir(&left).unwrap();
    fs::write(left.join("payload"), "old").unwrap();
    let reserved = store.reserve_outgoing(key(1).id).unwrap();
    assert!(!reserved.paths().payload_path().exists());
    let begun = reserved.begin(&["entry"]).unwrap();
    // One with a journal is not touched.
    let error = store.reserve_outgoing(key(1).id).unwrap_err();
    assert_eq!((error.kind(), begun.paths().path().exists()), (io::ErrorKind::AlreadyExists, true));
}
