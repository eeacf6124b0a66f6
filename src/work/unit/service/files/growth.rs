//! Learning from the system that a unit's files have changed.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::pulse::Pulse;
use crate::sync::lock;
use crate::work::unit::service::tasks::Tasks;

/// One inotify instance for all attempts that run: a user may have few of them.
#[derive(Debug, Default)]
pub(in crate::work::unit::service) struct Growth {
    fd: OnceLock<Option<Arc<OwnedFd>>>,
    watched: Arc<Mutex<BTreeMap<i32, Arc<Pulse>>>>,
}

/// A directory whose changes are reported. Dropped, they are no longer.
#[derive(Debug)]
pub(in crate::work::unit::service) struct DirWatch {
    fd: Arc<OwnedFd>,
    id: i32,
    watched: Arc<Mutex<BTreeMap<i32, Arc<Pulse>>>>,
}

impl Drop for DirWatch {
    fn drop(&mut self) {
        lock(&self.watched).remove(&self.id);
        // The directory may be gone, and its watch with it.
        let _ = inotify::remove_watch(&self.fd, self.id);
    }
}

impl Growth {
    /// Reports changes of the files in a directory. `None` if the system does not: the files then
    /// have to be polled.
    pub(in crate::work::unit::service) fn watch(
        &self,
        tasks: &Tasks,
        dir: &Path,
        pulse: &Arc<Pulse>,
    ) -> Option<DirWatch> {
        let watch = self.try_watch(tasks, dir, pulse);
        if watch.is_none() {
            pulse.set_blind();
        }
        watch
    }

    fn try_watch(&self, tasks: &Tasks, dir: &Path, pulse: &Arc<Pulse>) -> Option<DirWatch> {
        let fd = self.fd.get_or_init(|| self.start(tasks)).clone()?;
        let flags =
            WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let mut watched = lock(&self.watched);
        let id = match inotify::add_watch(&fd, dir, flags) {
            Ok(id) => id,
            Err(error) => {
                tracing::debug!(dir = %dir.display(), %error, "changes are not reported; polling");
                return None;
            }
        };
        watched.insert(id, pulse.clone());
        Some(DirWatch { fd: fd.clone(), id, watched: self.watched.clone() })
    }

    #[allow(
        deprecated,
        reason = "the replacement needs unsafe; the file descriptor is owned and stays open"
    )]
    fn start(&self, tasks: &Tasks) -> Option<Arc<OwnedFd>> {
        let _context = tasks.runtime().enter();
        let started = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(io::Error::from)
            .and_then(|fd| {
                let fd = Arc::new(fd);
                Ok((fd.clone(), AsyncFd::with_interest(ArcFd(fd), tokio::io::Interest::READABLE)?))
            });
        match started {
            Ok((fd, events)) => {
                tasks.spawn(read(events, self.watched.clone()));
                Some(fd)
            }
            Err(error) => {
                tracing::warn!(%error, "changes of files are not reported; units' output is polled");
                None
            }
        }
    }
}

/// A shared file descriptor.
#[derive(Debug)]
struct ArcFd(Arc<OwnedFd>);

impl AsRawFd for ArcFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Passes on what the system reports.
async fn read(events: AsyncFd<ArcFd>, watched: Arc<Mutex<BTreeMap<i32, Arc<Pulse>>>>) {
    loop {
        let Ok(mut ready) = events.readable().await else { return };
        let _ = ready.try_io(|fd| drain(&fd.get_ref().0, &watched));
    }
}

/// Reads all events that are there.
fn drain(fd: &OwnedFd, watched: &Mutex<BTreeMap<i32, Arc<Pulse>>>) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 8 * 1024];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    loop {
        let event = reader.next().map_err(io::Error::from)?;
        let watched = lock(watched);
        if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
            // Some were lost: all waiters look.
            watched.values().for_each(|pulse| {
                pulse.output_grew();
                pulse.file_came();
                pulse.terminate_came();
            });
            continue;
        }
        let Some(pulse) = watched.get(&event.wd()) else { continue };
        match event.file_name().map(std::ffi::CStr::to_bytes) {
            Some(b"stdout" | b"stderr") => pulse.output_grew(),
            Some(b"run" | b"exit") => pulse.file_came(),
            Some(b"terminate") => pulse.terminate_came(),
            _ => {}
        }
    }
}
