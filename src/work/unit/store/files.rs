//! Files that come into being at once, with their whole content, or not at all; and private
//! directories.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::faults::before_write;

/// Creates a file with this content, and syncs both to disk.
///
/// The content is written to a temporary file and linked to its name, so that no reader sees the
/// file without its content, and only one of several processes that try succeeds.
///
/// # Errors
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if the file is there, or whatever the disk
/// reports.
pub(crate) fn create_exclusively(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = write_beside(path, content)?;
    let linked = before_write(path).and_then(|()| fs::hard_link(&beside, path));
    // The name beside it is of no use in any case. One that stays behind is removed with the unit.
    let _ = fs::remove_file(&beside);
    linked?;
    // A file that may be gone after a power failure must not count as created.
    sync_parent(path).inspect_err(|_| drop(fs::remove_file(path)))
}

/// Writes the content to a new file beside the path, and syncs it to disk.
fn write_beside(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    // A process that died may have left a file of the same name.
    let names = (0..MAX_LEFT_BEHIND).map(|_| beside(path));
    for name in names {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name) {
            Ok(mut file) => {
                let written = before_write(path).and_then(|()| file.write_all(content));
                let written = written.and_then(|()| file.sync_all());
                if written.is_err() {
                    let _ = fs::remove_file(&name);
                }
                return written.map(|()| name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many unfinished files beside it"))
}

/// How many files of processes that died are passed over.
const MAX_LEFT_BEHIND: usize = 1_000;

/// A name that no other process and no other call uses.
fn beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

/// Makes a directory that only this user may enter, and syncs its name to disk.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    if !make_dir_unsynced(path)? {
        return Ok(());
    }
    // One whose name is not synced would not be synced by the next caller either.
    sync_parent(path).inspect_err(|_| drop(fs::remove_dir(path)))
}

/// Makes a directory that only this user may enter. Returns whether it is new.
pub(crate) fn make_dir_unsynced(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::symlink_metadata(path)?.is_dir() {
                return Ok(false);
            }
            let text = format!("{}: not a directory", path.display());
            Err(io::Error::new(io::ErrorKind::NotADirectory, text))
        }
        Err(error) => Err(error),
    }
}

/// Syncs the directory that a name is in.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    before_write(path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
