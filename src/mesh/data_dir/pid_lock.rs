//! A lock file that one live process holds, with its pid for error messages.
//!
//! The lock is `flock(2)`, so the kernel releases it when the holder dies, however it dies. The
//! holder removes the file on drop, which makes the file's inode part of the check: a lock on a
//! file that is no longer at its path protects nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// How often a lock file may be replaced by others while this process tries to lock it.
const MAX_RACES: usize = 64;

/// An exclusive lock. Dropped, it removes its file and releases the lock.
#[derive(Debug)]
pub(crate) struct PidLock {
    file: File,
    path: PathBuf,
}

/// Why the lock was not acquired. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another live process has it, or another part of this one.
    #[error("locked by {}", holder(*pid))]
    Held {
        /// The holder, if it wrote its pid.
        pid: Option<u32>,
    },
    /// The lock file cannot be created, opened or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub(crate) fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl PidLock {
    /// Locks the file at `path`, which is created if it does not exist. Does not wait.
    pub(crate) fn acquire(path: &Path) -> Result<Self, LockError> {
        for _ in 0..MAX_RACES {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(flags())
                .open(path)?;
            if !file.metadata()?.is_file() {
                return Err(not_a_file().into());
            }
            try_lock(&mut file)?;
            // The previous holder may have removed the file between `open` and `try_lock`.
            if is_at(&file, path)? {
                // The pid is for messages only: a full disk must not keep the lock from its holder.
                let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                return Ok(Self { file, path: path.to_owned() });
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the lock file keeps changing").into())
    }

    /// The error that the lock is held, if it is.
    #[cfg(any(test, feature = "cli"))]
    pub(crate) fn check_held(path: &Path) -> Option<LockError> {
        let mut file = OpenOptions::new().read(true).custom_flags(flags()).open(path).ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        match try_lock(&mut file) {
            Err(error @ LockError::Held { .. }) => Some(error),
            Err(LockError::Io(_)) | Ok(()) => None,
        }
    }
}

impl Drop for PidLock {
    fn drop(&mut self) {
        // Before the lock is released: later, the path may be another process's.
        if is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// In a shared directory, anyone can place a link or a named pipe at the path of a lock file.
fn flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the lock file is not a regular file")
}

fn try_lock(file: &mut File) -> Result<(), LockError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let pid =
                file.take(32).read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse().ok());
            Err(LockError::Held { pid })
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Whether `file` is what `path` leads to.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder_and_names_its_pid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(PidLock::check_held(&path).is_none());
        let lock = PidLock::acquire(&path).unwrap();
        let error = PidLock::acquire(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("locked by process {}", std::process::id()));
        assert!(matches!(PidLock::check_held(&path), Some(LockError::Held { pid: Some(_) })));
        drop(lock);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the file goes with the lock");
        PidLock::acquire(&path).unwrap();
    }

    #[test]
    fn a_file_that_a_dead_process_left_is_not_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        fs::write(&path, "123456789\n").unwrap();
        let _lock = PidLock::acquire(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_lock_file_that_is_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::write(&precious, "text").unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert!(matches!(PidLock::acquire(&path), Err(LockError::Io(_))));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "text");
    }

    #[test]
    fn a_named_pipe_in_the_place_of_a_lock_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(matches!(PidLock::acquire(&path), Err(LockError::Io(_))));
        assert!(PidLock::check_held(&path).is_none());
    }

    #[test]
    fn of_many_that_try_at_once_one_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let holders = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(_lock) = PidLock::acquire(&path) {
                            use std::sync::atomic::Ordering::SeqCst;
                            assert_eq!(holders.fetch_add(1, SeqCst), 0);
                            holders.fetch_sub(1, SeqCst);
                        }
                    }
                });
            }
        });
    }
}
