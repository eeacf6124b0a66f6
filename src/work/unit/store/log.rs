//! An append-only file of frames that survives crashes at any byte.
//!
//! ```text
//! magic (8 bytes) ‖ frame ‖ frame ‖ …
//! frame: length (u32) ‖ CRC-32 of the body (u32) ‖ body: a MessagePack array of entries
//! ```
//!
//! Numbers are big-endian. An append is one frame and one write, and one `fdatasync` if something
//! depends on it; the entries of a frame are there together or not at all. A frame that was cut off
//! by a crash is the last one, was never acted upon, and is cut away when the file is opened.
//! Anything else that does not fit is damage.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::faults::{before_write, write_all_at};

/// The first bytes of each file; the last one is the version of the format.
const MAGIC: [u8; 8] = *b"RQUNITS1";

/// The length of a frame without its body, in bytes.
const HEADER: usize = 8;

/// The longest body: far more than a spec with the most labels.
const MAX_BODY: usize = 64 * 1024;

/// Room that is reserved on the disk for what a unit appends after its first frame, in bytes, so
/// that the end of a unit can be recorded on a full disk.
const RESERVE: u64 = 4 * 1024;

/// The longest log of a unit that is read: a unit appends a few frames.
const MAX_FILE: u64 = 1 << 20;

/// A log. Its file is open only while something is appended: a store holds more logs than a process
/// may have files open.
#[derive(Debug)]
pub(crate) struct Log {
    /// Where the next frame begins.
    end: u64,
    /// An append failed, and what is on disk is not known.
    failed: bool,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is not a journal of this version")]
    Foreign,
    #[error("it is longer than {max} bytes")]
    TooLong { max: u64 },
    #[error("the frame at byte {at} is damaged")]
    Damaged { at: u64 },
}

impl Log {
    /// Creates a log with its first entries, and syncs it. The caller syncs the directory.
    pub(crate) fn create<E: Serialize>(path: &Path, entries: &[E]) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let mut bytes = MAGIC.to_vec();
        put_frame(&mut bytes, entries)?;
        reserve(&file, bytes.len() as u64 + RESERVE)?;
        write_all_at(&file, path, &bytes, 0)?;
        before_write(path)?;
        file.sync_all()?;
        Ok(Self { end: bytes.len() as u64, failed: false })
    }

    /// Opens a log of at most this length after an append has failed, in bytes. What the append has
    /// left is cut away or, if it is whole, synced: it is acted upon.
    pub(super) fn reopen_within<E: DeserializeOwned>(
        path: &Path,
        max: u64,
    ) -> Result<(Self, Vec<E>), LogError> {
        let opened = Self::open_within(path, max)?;
        before_write(path)?;
        File::open(path)?.sync_all()?;
        Ok(opened)
    }

    /// As [`reopen_within`](Self::reopen_within), for the log of a unit.
    pub(super) fn reopen<E: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<E>), LogError> {
        Self::reopen_within(path, MAX_FILE)
    }

    /// Creates a log of many frames, and syncs it once. The caller syncs the directory.
    pub(super) fn create_of_frames<'a, E: Serialize + 'a>(
        path: &Path,
        frames: impl Iterator<Item = &'a [E]>,
    ) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut file = io::BufWriter::new(file);
        file.write_all(&MAGIC)?;
        before_write(path)?;
        let mut end = MAGIC.len() as u64;
        let mut bytes = Vec::new();
        for entries in frames {
            bytes.clear();
            put_frame(&mut bytes, entries)?;
            file.write_all(&bytes)?;
            end += bytes.len() as u64;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(Self { end, failed: false })
    }

    /// Opens a log, cuts away a frame that was not finished, and returns the entries.
    pub(crate) fn open<E: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<E>), LogError> {
        Self::open_within(path, MAX_FILE)
    }

    /// As [`open`](Self::open), for a log of this length at most, in bytes.
    pub(crate) fn open_within<E: DeserializeOwned>(
        path: &Path,
        max: u64,
    ) -> Result<(Self, Vec<E>), LogError> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        if len > max {
            return Err(LogError::TooLong { max });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (entries, end) = read_frames(&bytes)?;
        if end < bytes.len() as u64 {
            file.set_len(end)?;
            file.sync_all()?;
        }
        Ok((Self { end, failed: false }, entries))
    }

    /// The length, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.end
    }

    /// A log that was opened or created before, and ends at this offset.
    pub(crate) fn known(end: u64) -> Self {
        Self { end, failed: false }
    }

    /// Where the log ends, in bytes. `None` after an append that has failed.
    pub(crate) fn end(&self) -> Option<u64> {
        (!self.failed).then_some(self.end)
    }

    /// Makes the log reject entries until it is opened again.
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }

    /// Whether an append has failed. The log rejects entries until it is opened again.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Appends entries to the file, all or none of them, and syncs them to disk.
    ///
    /// # Errors
    /// The write failed. The log rejects further entries: after a failed sync the content of the file
    /// is unknown until it is opened again.
    pub(crate) fn append<E: Serialize>(&mut self, path: &Path, entries: &[E]) -> io::Result<()> {
        self.write(path, entries, true)
    }

    /// Appends entries to the file, all or none of them. They survive the process, but not a power
    /// failure before the next [`append`](Self::append).
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub(crate) fn append_unsynced<E: Serialize>(
        &mut self,
        path: &Path,
        entries: &[E],
    ) -> io::Result<()> {
        self.write(path, entries, false)
    }

    fn write<E: Serialize>(&mut self, path: &Path, entries: &[E], sync: bool) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier append has failed"));
        }
        let mut frame = Vec::new();
        put_frame(&mut frame, entries)?;
        self.failed = true;
        let file = OpenOptions::new().write(true).open(path)?;
        write_all_at(&file, path, &frame, self.end)?;
        if sync {
            before_write(path)?;
            file.sync_data()?;
        }
        self.end += frame.len() as u64;
        self.failed = false;
        Ok(())
    }
}

/// Reads all frames: the entries, and where the next frame begins.
fn read_frames<E: DeserializeOwned>(bytes: &[u8]) -> Result<(Vec<E>, u64), LogError> {
    if bytes.len() < MAGIC.len() || bytes[..MAGIC.len()] != MAGIC {
        return Err(LogError::Foreign);
    }
    let mut entries = Vec::new();
    let mut at = MAGIC.len();
    loop {
        let rest = &bytes[at..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else { break };
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let crc = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        // A file system may have extended the file before the data arrived.
        if length == 0 && bytes[at..].iter().all(|byte| *byte == 0) {
            break;
        }
        if length == 0 || length > MAX_BODY {
            return Err(LogError::Damaged { at: at as u64 });
        }
        let Some(body) = rest.get(..length) else { break };
        if crc32fast::hash(body) != crc {
            // The last frame may have reached the disk in part.
            if rest.len() == length {
                break;
            }
            return Err(LogError::Damaged { at: at as u64 });
        }
        let decoded: Vec<E> =
            rmp_serde::from_slice(body).map_err(|_| LogError::Damaged { at: at as u64 })?;
        entries.extend(decoded);
        at += HEADER + length;
    }
    Ok((entries, at as u64))
}

fn put_frame<E: Serialize>(bytes: &mut Vec<u8>, entries: &[E]) -> io::Result<()> {
    let body = rmp_serde::to_vec(entries).map_err(io::Error::other)?;
    if body.len() > MAX_BODY {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the entries are too long for a frame",
        ));
    }
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    bytes.extend_from_slice(&body);
    Ok(())
}

/// Reserves blocks up to this length without changing the length of the file. File systems that
/// cannot do that may run full before a unit's end is recorded; the unit then ends when there is
/// room again.
fn reserve(file: &File, len: u64) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        match fallocate(file, FallocateFlags::KEEP_SIZE, 0, len) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (file, len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn log(batches: &[&[&str]]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::create(&path, batches[0]).unwrap();
        batches[1..].iter().for_each(|batch| log.append(&path, batch).unwrap());
        (dir, path)
    }

    fn read(path: &Path) -> Result<Vec<String>, LogError> {
        Log::open(path).map(|(_, entries)| entries)
    }

    #[test]
    fn entries_come_back_in_order_and_more_can_follow() {
        let (_dir, path) = log(&[&["one"], &["two", "three"]]);
        let (mut log, entries) = Log::open::<String>(&path).unwrap();
        assert_eq!(entries, ["one", "two", "three"]);
        log.append(&path, &["four"]).unwrap();
        assert_eq!(read(&path).unwrap().len(), 4);
    }

    #[test]
    fn a_file_cut_at_any_byte_holds_the_whole_frames_before_it() {
        let (_dir, path) = log(&[&["one"], &["two", "three"], &["four"]]);
        let whole = fs::read(&path).unwrap();
        let mut seen = Vec::new();
        for len in MAGIC.len()..=whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let entries = read(&path).unwrap();
            assert!(["one", "two", "three", "four"].iter().zip(&entries).all(|(a, b)| a == b));
            seen.push(entries.len());
            // What is appended then is not hidden by the rest of the cut frame.
            let (mut log, _) = Log::open::<String>(&path).unwrap();
            log.append(&path, &["new"]).unwrap();
            assert_eq!(read(&path).unwrap().last().unwrap(), "new");
        }
        seen.dedup();
        assert_eq!(seen, [0, 1, 3, 4]);
    }

    #[test]
    fn zeros_at_the_end_are_an_unfinished_frame() {
        let (_dir, path) = log(&[&["one"]]);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend([0; 100]);
        fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap(), ["one"]);
    }

    #[test]
    fn a_changed_byte_never_gives_other_entries() {
        let (_dir, path) = log(&[&["one"], &["two", "three"], &["four"]]);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            match read(&path) {
                Ok(entries) => {
                    let expected = ["one", "two", "three", "four"];
                    assert!(
                        entries.len() < 4 && expected.iter().zip(&entries).all(|(a, b)| a == b)
                    );
                }
                Err(LogError::Foreign) => assert!(at < MAGIC.len()),
                Err(LogError::Damaged { at: frame }) => assert!(frame <= at as u64),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn foreign_and_oversized_files_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for content in [&b""[..], b"hello", b"#!/bin/sh\n"] {
            fs::write(&path, content).unwrap();
            assert!(matches!(read(&path), Err(LogError::Foreign)));
        }
        File::create(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(matches!(read(&path), Err(LogError::TooLong { .. })));
    }

    #[test]
    fn an_existing_log_is_not_overwritten() {
        let (_dir, path) = log(&[&["one"]]);
        let error = Log::create(&path, &["two"]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path).unwrap(), ["one"]);
    }
}
