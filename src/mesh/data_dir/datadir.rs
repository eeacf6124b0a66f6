//! What a node keeps between its runs: its epoch, and the neighbours it knew.
//!
//! Both are small files, replaced atomically: written beside, synced, renamed. A third one, `lock`,
//! keeps a second node out of the directory. Nothing here is needed for correctness, so a full or
//! read-only disk costs the files and not the node: it is logged once, and the files are written
//! when the disk takes them again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tracing::{info, warn};

use super::pid_lock::{LockError, PidLock};
use crate::id::NodeId;
use crate::sync::lock;
use crate::transport::open_regular;

/// Known neighbours leave the manifest after this many seconds without a link.
pub(crate) const FORGET_AFTER_SECS: u64 = 24 * 60 * 60;
/// Maximum number of entries in the manifest; beyond that the ones seen longest ago go first.
pub(crate) const MAX_ENTRIES: usize = 4_096;

/// Maximum size of a file that is read, in bytes: more than a manifest of [`MAX_ENTRIES`] with the
/// longest ids.
const MAX_FILE: u64 = 2 * 1024 * 1024;

/// The neighbours that were linked within a day, with the time they were last seen, in seconds
/// since the Unix epoch.
pub(crate) type Manifest = BTreeMap<NodeId, u64>;

/// A node's directory, locked as long as a clone lives.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// `None` if the directory takes no lock file.
    _lock: Option<PidLock>,
    /// An epoch that is in use and not yet written.
    unsaved_epoch: Mutex<Option<u64>>,
    /// Whether it was logged that the directory cannot be written.
    warned: AtomicBool,
}

impl DataDir {
    /// Opens the directory, creating it if it does not exist, and locks it.
    ///
    /// # Errors
    /// Another process has the lock, or the directory does not exist and cannot be created.
    pub(crate) fn open(path: PathBuf) -> Result<Self, LockError> {
        create_private_dir(&path)?;
        let (lock, unusable) = match PidLock::acquire(&lock_file(&path)) {
            Ok(lock) => (Some(lock), None),
            Err(held @ LockError::Held { .. }) => return Err(held),
            Err(LockError::Io(error)) => (None, Some(error)),
        };
        let warned = AtomicBool::new(false);
        let dir =
            Self(Arc::new(Inner { path, _lock: lock, unsaved_epoch: Mutex::default(), warned }));
        if let Some(error) = unusable {
            dir.warn(&error);
        }
        Ok(dir)
    }

    /// The error that another process uses the directory, if one does.
    #[cfg(feature = "cli")]
    pub(crate) fn check_held(path: &Path) -> Option<LockError> {
        PidLock::check_held(&lock_file(path))
    }

    /// An epoch greater than that of any earlier start that could be read, written before it is
    /// used if the disk permits.
    pub(crate) fn next_epoch(&self, now_ms: u64) -> u64 {
        let before =
            self.read("epoch").and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        let epoch = now_ms.max(before.saturating_add(1));
        *self.unsaved() = Some(epoch);
        if let Err(error) = self.save_epoch() {
            self.warn(&error);
        }
        epoch
    }

    /// The neighbours seen within a day before `now`, in seconds since the Unix epoch.
    pub(crate) fn manifest(&self, now: u64) -> Manifest {
        let Some(text) = self.read("manifest") else { return Manifest::new() };
        let path = self.file("manifest");
        let mut manifest = Manifest::new();
        for (line, entry) in text.lines().enumerate() {
            let parsed = entry.split_once(' ').and_then(|(seen, id)| {
                Some((NodeId::try_from(id).ok()?, seen.parse::<u64>().ok()?))
            });
            match parsed {
                Some((id, seen)) => drop(manifest.insert(id, seen)),
                None => {
                    warn!(path = %path.display(), line = line + 1, "skipped an unreadable line")
                }
            }
        }
        forget(&mut manifest, now);
        manifest
    }

    /// Replaces the manifest, and writes what could not be written before. A failure is logged
    /// once.
    pub(crate) fn save_manifest(&self, manifest: &Manifest) {
        let text: String = manifest.iter().map(|(id, seen)| format!("{seen} {id}\n")).collect();
        let saved =
            self.save_epoch().and_then(|()| replace(&self.file("manifest"), text.as_bytes()));
        match saved {
            Ok(()) if self.0.warned.swap(false, Ordering::Relaxed) => {
                info!(path = %self.0.path.display(), "the data directory can be written again");
            }
            Ok(()) => {}
            Err(error) => self.warn(&error),
        }
    }

    fn save_epoch(&self) -> io::Result<()> {
        let mut unsaved = self.unsaved();
        if let Some(epoch) = *unsaved {
            replace(&self.file("epoch"), format!("{epoch}\n").as_bytes())?;
            *unsaved = None;
        }
        Ok(())
    }

    fn unsaved(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        lock(&self.0.unsaved_epoch)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }

    /// A file's text. One that cannot be read is as good as none.
    fn read(&self, name: &str) -> Option<String> {
        let path = self.file(name);
        match read_bounded(&path) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot read from the data directory");
                None
            }
        }
    }

    fn warn(&self, error: &io::Error) {
        if !self.0.warned.swap(true, Ordering::Relaxed) {
            warn!(
                path = %self.0.path.display(),
                %error,
                "cannot write to the data directory, running without it: the epoch of this start and the neighbours it \
                 links to are lost at the next restart; make room or correct the permissions",
            );
        }
    }
}

/// Creates the directory for this user alone, unless it exists.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Reads a regular file of at most [`MAX_FILE`] bytes.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open_regular(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"));
    }
    Ok(bytes)
}

fn lock_file(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// Drops the entries that are too old or too many.
pub(crate) fn forget(manifest: &mut Manifest, now: u64) {
    manifest.retain(|_, seen| seen.saturating_add(FORGET_AFTER_SECS) > now);
    while manifest.len() > MAX_ENTRIES {
        let oldest = manifest.iter().min_by_key(|(_, seen)| **seen).map(|(id, _)| id.clone());
        oldest.and_then(|id| manifest.remove(&id));
    }
}

/// Replaces a file without writing through a link at either name: in a directory that others can
/// write to, a link could lead to any file of this node's user. For files with one writer at a
/// time: a `NAME.new` beside it is overwritten.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    // A process that was killed may have left one behind.
    let _ = fs::remove_file(&beside);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // The rename itself must survive a power cut, too.
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[test]
    fn epochs_grow_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path().join("deep/er")).unwrap();
        assert_eq!(data.next_epoch(1_000), 1_000);
        assert_eq!(data.next_epoch(500), 1_001, "the clock was set back");
        assert_eq!(data.next_epoch(5_000), 5_000);
    }

    #[test]
    fn the_manifest_is_kept_and_forgets_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path().to_owned()).unwrap();
        assert_eq!(data.manifest(0), Manifest::new());
        let known = Manifest::from([(id("a"), 1_000), (id("b"), 2_000)]);
        data.save_manifest(&known);
        assert_eq!(data.manifest(2_000), known);
        assert_eq!(data.manifest(1_000 + FORGET_AFTER_SECS), Manifest::from([(id("b"), 2_000)]));
    }

    #[test]
    fn a_spoilt_file_costs_only_its_spoilt_lines() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("manifest"), b"10 a\n\xff\xfe garbage\n12 b/c\n11 d\n").unwrap();
        fs::write(dir.path().join("epoch"), b"not a number").unwrap();
        let data = DataDir::open(dir.path().to_owned()).unwrap();
        assert_eq!(data.manifest(12), Manifest::from([(id("a"), 10), (id("d"), 11)]));
        assert_eq!(data.next_epoch(7), 7);
    }

    #[test]
    fn two_nodes_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path().to_owned()).unwrap();
        let error = DataDir::open(dir.path().to_owned()).unwrap_err();
        assert_eq!(error.to_string(), format!("locked by process {}", std::process::id()));
        drop(first);
        DataDir::open(dir.path().to_owned()).unwrap();
    }

    #[test]
    fn a_directory_that_takes_no_files_costs_the_files_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("epoch"), b"9000").unwrap();
        let data = DataDir::open(dir.path().to_owned()).unwrap();
        // Whoever runs this test, root included: a directory is in the way of the file that is
        // written first.
        fs::create_dir(dir.path().join("epoch.new")).unwrap();
        assert_eq!(data.next_epoch(5), 9_001);
        data.save_manifest(&Manifest::from([(id("a"), 1)]));
        assert_eq!(data.manifest(1), Manifest::new());
        // Once the disk takes files again, the epoch in use is written, too.
        fs::remove_dir(dir.path().join("epoch.new")).unwrap();
        data.save_manifest(&Manifest::from([(id("a"), 1)]));
        assert_eq!(fs::read_to_string(dir.path().join("epoch")).unwrap(), "9001\n");
        assert_eq!(data.manifest(1), Manifest::from([(id("a"), 1)]));
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};

        let outside = tempfile::tempdir().unwrap();
        let precious = outside.path().join("precious");
        fs::write(&precious, "text").unwrap();
        let dir = outside.path().join("data");
        let data = DataDir::open(dir.clone()).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        for name in ["epoch", "epoch.new", "manifest", "manifest.new"] {
            symlink(&precious, dir.join(name)).unwrap();
        }
        data.next_epoch(9);
        data.save_manifest(&Manifest::from([(id("a"), 1)]));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "text");
        for name in ["epoch", "manifest"] {
            let written = fs::symlink_metadata(dir.join(name)).unwrap();
            assert!(written.is_file() && written.permissions().mode() & 0o777 == 0o600, "{name}");
        }
    }

    #[test]
    fn a_pipe_or_a_large_file_in_the_directory_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let made =
            std::process::Command::new("mkfifo").arg(dir.path().join("epoch")).status().unwrap();
        assert!(made.success());
        File::create(dir.path().join("manifest")).unwrap().set_len(MAX_FILE + 1).unwrap();
        let data = DataDir::open(dir.path().to_owned()).unwrap();
        assert_eq!((data.next_epoch(5), data.manifest(1)), (5, Manifest::new()));
    }

    #[test]
    fn a_directory_that_takes_no_lock_is_used_without_one() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("lock")).unwrap();
        DataDir::open(dir.path().to_owned()).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_created_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        assert!(matches!(DataDir::open(dir.path().join("file/data")), Err(LockError::Io(_))));
    }
}
