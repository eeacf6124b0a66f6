//! The keys that must no longer be accepted: in memory, and in a log.
//!
//! The log grows with each key and says nothing of those that expire. It is rewritten when the
//! store is opened, and when it has grown to a part of the length that can be read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::super::key::UnitKey;
use super::faults::before_write;
use super::files::sync_parent;
use super::log::{Log, LogError};
use crate::id::NodeId;
use crate::sync::lock;
use crate::work::unit::machine::time::UnitTime;
use crate::work::unit::machine::tombstones::{Death, Tombstones};

/// Maximum length of a log that is read, in bytes: more than twice that of
/// [`MAX_TOMBSTONES`](super::super::limits::MAX_TOMBSTONES) entries.
const MAX_LOG: u64 = 1 << 30;

/// Upper bound of an entry's length in the log, in bytes: 170 for the longest name.
const MAX_ENTRY: u64 = 192;

/// Minimum length at which a log with expired entries is rewritten while the node runs, in bytes.
/// With many keys it is that of the maximum number of entries that count, so that rewriting always
/// makes the log shorter.
const REWRITE_AT: u64 = 64 << 20;

/// How much a log grows before it is rewritten again, in bytes. This bounds the work after a
/// failure and in a log with few expired entries.
const REWRITE_STEP: u64 = REWRITE_AT / 8;

/// Entries in one frame of a log that is rewritten.
const ENTRIES_A_FRAME: usize = 256;

/// The keys that must no longer be accepted.
#[derive(Debug)]
pub(super) struct DeadKeys {
    path: PathBuf,
    /// Locked during writes. Lock order: this one, then `dead`.
    log: Mutex<GrowingLog>,
    dead: Mutex<Tombstones>,
}

#[derive(Debug)]
struct GrowingLog {
    log: Log,
    /// Entries in the log, expired ones included.
    entries: usize,
    /// Length at which it is rewritten, in bytes.
    rewrite_at: u64,
    /// Minimum of that length.
    min_rewrite_at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    key: UnitKey,
    until: UnitTime,
    death: Death,
}

impl DeadKeys {
    /// Reads the log, and rewrites it without the entries that have expired. The caller adds at most
    /// `max` keys that have not.
    ///
    /// # Errors
    /// The log cannot be read or written.
    pub(super) fn open(path: PathBuf, now: UnitTime, max: usize) -> io::Result<Self> {
        let min_rewrite_at = REWRITE_AT.max(max as u64 * MAX_ENTRY);
        let mut dead = Tombstones::default();
        match Log::open_within::<Entry>(&path, MAX_LOG) {
            Ok((_, entries)) => {
                let kept = entries.into_iter().filter(|entry| entry.until > now);
                kept.for_each(|entry| dead.insert(entry.key, entry.until, entry.death));
            }
            Err(LogError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(LogError::Io(error)) => return Err(error),
            Err(error) => {
                let text =
                    format!("{}: {error}; units may not be run again without it", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        let log = GrowingLog {
            log: write_log(&path, &dead)?,
            entries: dead.len(),
            rewrite_at: min_rewrite_at,
            min_rewrite_at,
        };
        Ok(Self { path, log: Mutex::new(log), dead: Mutex::new(dead) })
    }

    /// Records that a key must no longer be accepted, and syncs that to disk. Works again after a
    /// failure once the disk does.
    ///
    /// # Errors
    /// The write failed.
    pub(super) fn add(
        &self,
        key: &UnitKey,
        until: UnitTime,
        death: Death,
        now: UnitTime,
    ) -> io::Result<()> {
        let mut log = lock(&self.log);
        if log.log.has_failed() {
            self.reopen(&mut log, now)?;
        }
        if log.log.len() >= MAX_LOG / 2 {
            // A longer one could not be read after a restart. It gets here only if it cannot be
            // rewritten.
            self.rewrite(&mut log)?;
        }
        log.log.append(&self.path, &[Entry { key: key.clone(), until, death }])?;
        log.entries += 1;
        self.dead().insert(key.clone(), until, death);
        Ok(())
    }

    pub(super) fn get(&self, key: &UnitKey) -> Option<Death> {
        self.dead().get(key)
    }

    /// The number of dead keys of one submitter, and of all.
    pub(super) fn counts(&self, submitter: &NodeId) -> (usize, usize) {
        let dead = self.dead();
        (dead.count(submitter), dead.len())
    }

    /// Forgets keys whose time has passed, and rewrites a long log without them.
    ///
    /// # Errors
    /// The new log could not be written or put in place. The next entry is added to the one that is
    /// found in place then.
    pub(super) fn expire(&self, now: UnitTime) -> io::Result<()> {
        self.dead().expire(now);
        let mut log = lock(&self.log);
        let expired = log.entries > self.dead().len();
        if expired && log.log.len() >= log.rewrite_at { self.rewrite(&mut log) } else { Ok(()) }
    }

    /// Opens the log after a failure, and cuts away what a failed append has left behind.
    fn reopen(&self, log: &mut GrowingLog, now: UnitTime) -> io::Result<()> {
        // A log that was renamed and not synced might be replaced by its predecessor in a power
        // failure, together with what is appended to it.
        sync_parent(&self.path)?;
        let (opened, entries) =
            Log::reopen_within::<Entry>(&self.path, MAX_LOG).map_err(io::Error::other)?;
        (log.log, log.entries) = (opened, entries.len());
        // The failed entry may have reached the disk after all.
        let mut dead = self.dead();
        let kept = entries.into_iter().filter(|entry| entry.until > now);
        kept.for_each(|entry| dead.insert(entry.key, entry.until, entry.death));
        Ok(())
    }

    fn rewrite(&self, log: &mut GrowingLog) -> io::Result<()> {
        // Nothing is added meanwhile: that takes the lock of the log.
        let dead = self.dead().clone();
        log.rewrite_at = log.log.len() + REWRITE_STEP;
        // After a failure either file may be the one that is in place.
        log.log.fail();
        log.log = write_log(&self.path, &dead)?;
        log.entries = dead.len();
        log.rewrite_at = log.min_rewrite_at.max(log.log.len() + REWRITE_STEP);
        Ok(())
    }

    fn dead(&self) -> MutexGuard<'_, Tombstones> {
        lock(&self.dead)
    }
}

/// Replaces the log by one with these keys.
fn write_log(path: &Path, dead: &Tombstones) -> io::Result<Log> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let entries: Vec<Entry> =
        dead.iter().map(|(key, until, death)| Entry { key, until, death }).collect();
    let log = Log::create_of_frames(&beside, entries.chunks(ENTRIES_A_FRAME))?;
    before_write(path)?;
    fs::rename(&beside, path)?;
    sync_parent(path)?;
    Ok(log)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const NOW: UnitTime = UnitTime(0);

    fn key(n: u128) -> UnitKey {
        UnitKey::new(&"submitter".parse().unwrap(), Uuid::from_u128(n))
    }

    #[test]
    fn a_long_log_is_rewritten_without_expired_entries() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");
        let dead = DeadKeys::open(path.clone(), UnitTime(0), 100).unwrap();
        for n in 0..20 {
            let until = UnitTime(if n < 15 { 10 } else { 100 });
            dead.add(&key(n), until, Death::Removed, NOW).unwrap();
        }
        let len = || fs::metadata(&path).unwrap().len();
        let long = len();
        dead.expire(UnitTime(10)).unwrap();
        assert_eq!((dead.counts(&key(0).submitter), len()), ((5, 5), long), "it is short");
        lock(&dead.log).rewrite_at = long;
        dead.expire(UnitTime(10)).unwrap();
        assert!(len() < long / 2, "{} of {long}", len());
        // What is added afterwards is behind what was kept.
        dead.add(&key(20), UnitTime(100), Death::NeverAccepted, UnitTime(10)).unwrap();
        let again = DeadKeys::open(path, UnitTime(10), 100).unwrap();
        assert_eq!(again.counts(&key(0).submitter), (6, 6));
        assert_eq!((again.get(&key(0)), again.get(&key(20))), (None, Some(Death::NeverAccepted)));
    }

    #[test]
    fn a_log_that_cannot_be_rewritten_stays_in_use() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");
        let dead = DeadKeys::open(path.clone(), UnitTime(0), 100).unwrap();
        dead.add(&key(1), UnitTime(10), Death::Removed, NOW).unwrap();
        dead.add(&key(2), UnitTime(100), Death::Removed, NOW).unwrap();
        lock(&dead.log).rewrite_at = 0;
        let blocker = path.with_extension("new");
        fs::create_dir(&blocker).unwrap();
        dead.expire(UnitTime(10)).unwrap_err();
        dead.expire(UnitTime(10)).expect("it is not tried again at once");
        dead.add(&key(3), UnitTime(100), Death::Removed, UnitTime(10)).unwrap();
        assert_eq!(dead.counts(&key(0).submitter), (2, 2), "the expired one does not come back");
        fs::remove_dir(&blocker).unwrap();
        assert_eq!(
            DeadKeys::open(path, UnitTime(10), 100).unwrap().counts(&key(0).submitter),
            (2, 2)
        );
    }
    #[cfg(feature = "testing")]
    #[test]
    fn keys_are_added_behind_a_log_whose_rewriting_failed_anywhere() {
        use super::super::faults::FaultyDisk;

        let mut write = 0;
        loop {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("log");
            let dead = DeadKeys::open(path.clone(), NOW, 100).unwrap();
            dead.add(&key(1), UnitTime(10), Death::Removed, NOW).unwrap();
            dead.add(&key(2), UnitTime(100), Death::Removed, NOW).unwrap();
            lock(&dead.log).rewrite_at = 0;
            let disk = FaultyDisk::new(root.path());
            disk.fail(write..write + 1);
            let rewritten = dead.expire(UnitTime(10)).is_ok();
            disk.fail(0..0);
            dead.add(&key(3), UnitTime(100), Death::Removed, UnitTime(10)).unwrap();
            let again = DeadKeys::open(path, UnitTime(10), 100).unwrap();
            assert_eq!(again.counts(&key(0).submitter), (2, 2), "write {write}");
            if rewritten {
                break;
            }
            write += 1;
        }
        assert!(write >= 3, "{write} writes");
    }
}
