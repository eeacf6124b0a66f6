//! Where tests make writes to the disk fail.

#[cfg(all(test, feature = "testing"))]
pub(crate) use injected::{FaultyDisk, before_write, write_all_at, write_at};
#[cfg(not(all(test, feature = "testing")))]
pub(crate) use real::{before_write, write_all_at, write_at};

#[cfg(not(all(test, feature = "testing")))]
mod real {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt as _;
    use std::path::Path;

    /// Called before each change of a file or directory.
    #[inline]
    pub(crate) const fn before_write(_: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Writes all bytes at an offset of the file with this path.
    #[inline]
    pub(crate) fn write_all_at(file: &File, _: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Writes some of the bytes at an offset of the file with this path, and returns how many.
    #[inline]
    pub(crate) fn write_at(file: &File, _: &Path, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }
}

#[cfg(all(test, feature = "testing"))]
mod injected {
    use std::fs::File;
    use std::io;
    use std::ops::Range;
    use std::os::unix::fs::FileExt as _;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    use crate::sync::lock;

    static DISKS: Mutex<Vec<Plan>> = Mutex::new(Vec::new());

    struct Plan {
        root: PathBuf,
        writes: u64,
        fail: Range<u64>,
        full: bool,
    }

    /// A directory in which some writes fail as on a full disk. Dropped, they do not any more.
    pub(crate) struct FaultyDisk {
        root: PathBuf,
    }

    impl FaultyDisk {
        pub(crate) fn new(root: &Path) -> Self {
            lock(&DISKS).push(Plan { root: root.to_owned(), writes: 0, fail: 0..0, full: false });
            Self { root: root.to_owned() }
        }

        /// Counts writes from zero again, and fails these.
        pub(crate) fn fail(&self, writes: Range<u64>) {
            self.with(|plan| (plan.writes, plan.fail) = (0, writes));
        }

        /// Fails all that needs room, and nothing else, until it is called with `false`.
        pub(crate) fn fill(&self, full: bool) {
            self.with(|plan| plan.full = full);
        }

        /// How many writes there were.
        pub(crate) fn writes(&self) -> u64 {
            self.with(|plan| plan.writes)
        }

        fn with<T>(&self, act: impl FnOnce(&mut Plan) -> T) -> T {
            let mut disks = lock(&DISKS);
            let plan = disks.iter_mut().find(|plan| plan.root == self.root);
            act(plan.expect("it is there until it is dropped"))
        }
    }

    impl Drop for FaultyDisk {
        fn drop(&mut self) {
            lock(&DISKS).retain(|plan| plan.root != self.root);
        }
    }

    pub(crate) fn before_write(path: &Path) -> io::Result<()> {
        count_write(path, false)
    }

    fn count_write(path: &Path, needs_room: bool) -> io::Result<()> {
        let mut disks = lock(&DISKS);
        let Some(plan) = disks.iter_mut().find(|plan| path.starts_with(&plan.root)) else {
            return Ok(());
        };
        let write = plan.writes;
        plan.writes += 1;
        let fails = plan.fail.contains(&write) || (plan.full && needs_room);
        if fails { Err(rustix::io::Errno::NOSPC.into()) } else { Ok(()) }
    }

    /// One that fails has written a half.
    pub(crate) fn write_all_at(
        file: &File,
        path: &Path,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        let failed = count_write(path, true);
        let len = if failed.is_ok() { bytes.len() } else { bytes.len() / 2 };
        file.write_all_at(&bytes[..len], offset)?;
        failed
    }

    /// One for which there is no room writes a half, and fails once that is nothing.
    pub(crate) fn write_at(
        file: &File,
        path: &Path,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<usize> {
        match count_write(path, true) {
            Err(error) if bytes.len() < 2 => Err(error),
            Err(_) => file.write_at(&bytes[..bytes.len() / 2], offset),
            Ok(()) => file.write_at(bytes, offset),
        }
    }
}
