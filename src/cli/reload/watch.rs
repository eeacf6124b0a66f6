//! Noticing that files were replaced: by a tool that renews certificates, or by Kubernetes, which
//! swaps a symbolic link in the directory of a mounted secret.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// How long nothing must change before the files are read: certificate and key are replaced one
/// after the other.
const SETTLED: Duration = Duration::from_millis(500);
/// How long changes may go on before the files are read nevertheless.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Directories whose changes are reported. They are not polled: a file system that reports none,
/// such as NFS when another host writes, takes a reload by command or signal.
#[derive(Debug)]
pub(in crate::cli) struct Watch {
    events: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Watches directories.
    ///
    /// # Errors
    /// The system does not report changes of one of them.
    #[allow(
        deprecated,
        reason = "the replacement needs unsafe; the file descriptor is owned and stays open"
    )]
    pub(in crate::cli) fn of(dirs: &BTreeSet<&Path>) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        for dir in dirs {
            inotify::add_watch(&fd, *dir, flags)?;
        }
        Ok(Self { events: AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)? })
    }

    /// Waits until something has changed and [`SETTLED`]. Cancel safe, except for changes that were
    /// about to settle.
    ///
    /// # Errors
    /// The system reports no further changes.
    pub(in crate::cli) async fn changed(&self) -> io::Result<()> {
        self.event().await?;
        let settle = async {
            loop {
                match timeout(SETTLED, self.event()).await {
                    Ok(event) => event?,
                    Err(_settled) => return Ok(()),
                }
            }
        };
        timeout(MAX_WAIT, settle).await.unwrap_or(Ok(()))
    }

    /// Waits for events, and reads all that are there.
    async fn event(&self) -> io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            match ready.try_io(|fd| drain(fd.get_ref())) {
                Ok(read) => return read,
                Err(_would_block) => {}
            }
        }
    }
}

/// Drains the events. Which files they are about does not matter.
fn drain(fd: &OwnedFd) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4 * 1024];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    let mut found = false;
    loop {
        match reader.next() {
            Ok(_) => found = true,
            // Only then does the runtime wait for the next ones.
            Err(rustix::io::Errno::AGAIN) if found => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_written_or_moved_and_a_swapped_link_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::write(path.join("old"), "").unwrap();
        let watch = Watch::of(&BTreeSet::from([path])).unwrap();
        let change = |name: &str| match name {
            "written" => fs::write(path.join("ca.crt"), "x").unwrap(),
            "moved" => fs::rename(path.join("old"), path.join("ca.key")).unwrap(),
            _ => {
                std::os::unix::fs::symlink("elsewhere", path.join("..data_tmp")).unwrap();
                fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
            }
        };
        for name in ["written", "moved", "swapped"] {
            change(name);
            watch.changed().await.unwrap();
        }
        let quiet = timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(quiet.is_err(), "nothing has changed since");
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_cannot_be_watched() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        assert!(Watch::of(&BTreeSet::from([gone.as_path()])).is_err());
    }
}
