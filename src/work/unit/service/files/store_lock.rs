//! Keeping other nodes out of a directory of units.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::mesh::data_dir::datadir::DataDir;
use crate::work::unit::store::make_dir;

/// How often, and after how long, a lock is tried again that a node of this process may still hold
/// for its last write.
const TRIES: u32 = 50;
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Keeps other nodes out of a directory of units, and of the data directory that it is in, as long
/// as a clone lives.
#[derive(Clone, Debug)]
pub(in crate::work::unit::service) struct StoreLock {
    _file: Arc<File>,
    _data_dir: Option<DataDir>,
}

impl StoreLock {
    /// Locks a directory, which is made if it does not exist. Blocks for a second at most.
    ///
    /// # Errors
    /// Another node uses it, or it cannot be made or locked.
    pub(in crate::work::unit::service) fn acquire(
        dir: &Path,
        data_dir: Option<DataDir>,
    ) -> io::Result<Self> {
        make_dir(dir)?;
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(0o600).open(dir.join("lock"))?;
        for _ in 0..TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: Arc::new(file), _data_dir: data_dir }),
                Err(Errno::WOULDBLOCK) => std::thread::sleep(TRY_AGAIN),
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "another node uses it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_for_one_node_and_then_for_the_next() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("units");
        let lock = StoreLock::acquire(&dir, None).unwrap();
        let clone = lock.clone();
        drop(lock);
        let error = StoreLock::acquire(&dir, None).unwrap_err();
        assert_eq!(error.to_string(), "another node uses it");
        drop(clone);
        StoreLock::acquire(&dir, None).unwrap();
    }
}
