//! Reading and writing the small PEM files of an identity.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use super::pem::{Foreign, without_bom};

/// The largest PEM file that is read, in bytes. A certificate chain has a few thousand; a large
/// revocation list may have hundreds of thousands.
pub const MAX_PEM_FILE: u64 = 4 * 1024 * 1024;

/// Why a certificate or key file could not be read or written. The caller's or the machine's fault.
///
/// A file that was to be written is left as it was: it has its old content or the new, never half
/// of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: String,
        /// The kind of it.
        kind: io::ErrorKind,
    },
    /// The file has more than [`MAX_PEM_FILE`] bytes.
    #[error("{} has more than {MAX_PEM_FILE} bytes: it cannot be a certificate or a key", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not PEM.
    #[error("{} {problem}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What it is, and how to convert it.
        problem: String,
    },
    /// The file is a pipe, a device or a directory: reading it might never end.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {problem}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: String,
        /// The kind of it.
        kind: io::ErrorKind,
    },
    /// The file is there already, and holds a key that would be lost.
    #[error("{} exists already; move it away to make a new key", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

/// What was read, and where it came from: a path, or a word for what was given in memory.
pub(crate) struct Pem {
    pub(crate) origin: String,
    pub(crate) text: Zeroizing<String>,
}

impl Pem {
    /// Text that was given in memory.
    pub(crate) fn given(what: &str, text: &str) -> Self {
        let text = Zeroizing::new(without_bom(text).to_owned());
        Self { origin: format!("the given {what}"), text }
    }

    /// Reads a file. Invalid UTF-8 is replaced, and fails later as missing PEM.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        let failed = |error: io::Error| FileError::Read {
            path: path.to_owned(),
            problem: error.to_string(),
            kind: error.kind(),
        };
        let file = open_regular(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => FileError::NotAFile { path: path.to_owned() },
            _ => failed(error),
        })?;
        let len = file.metadata().map_err(failed)?.len();
        if len > MAX_PEM_FILE {
            return Err(FileError::TooLarge { path: path.to_owned() });
        }
        // Room for all of it from the start: growing would leave copies of a key behind in freed
        // memory.
        let room = usize::try_from(len + 1).expect("the limit is far below");
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        let read = file.take(MAX_PEM_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        if read as u64 > MAX_PEM_FILE {
            return Err(FileError::TooLarge { path: path.to_owned() });
        }
        if let Some(foreign) = Foreign::of(&bytes) {
            return Err(FileError::NotPem {
                path: path.to_owned(),
                problem: foreign.explain(path),
            });
        }
        let text = Zeroizing::new(without_bom(&String::from_utf8_lossy(&bytes)).to_owned());
        Ok(Self { origin: path.display().to_string(), text })
    }

    /// Reads the file of a private key, and warns if others on the machine may read it too.
    pub(crate) fn read_key(path: &Path) -> Result<Self, FileError> {
        let pem = Self::read(path)?;
        warn_if_others_can_read(path);
        Ok(pem)
    }
}

/// Opens a regular file to be read. A named pipe would wait for a writer, and a device may never
/// end.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    // Some devices act when they are opened, so the kind is checked before, and again after in case
    // it was replaced.
    check_regular(&std::fs::metadata(path)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Opening a named pipe would wait for a writer. Regular files are unaffected.
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    let file = options.open(path)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

fn check_regular(found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_dir() { "a directory" } else { "a device, pipe or socket" };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
}

#[cfg(unix)]
fn warn_if_others_can_read(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    let Ok(metadata) = path.metadata() else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = %format_args!("{mode:04o}"),
            "others on this machine may read the private key; run: chmod 600 {}",
            path.display()
        );
    }
}

#[cfg(not(unix))]
fn warn_if_others_can_read(_: &Path) {}

/// What to do with a file that is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Existing {
    Refuse,
    Replace,
}

/// Who may read a file that is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Owner,
    Everyone,
}

/// Writes a file as a whole: readers see the old content or the new. It is on the disk when this
/// returns.
pub(crate) fn write_atomically(
    path: &Path,
    content: &str,
    access: Access,
    existing: Existing,
) -> Result<(), FileError> {
    let failed = |error: io::Error| FileError::Write {
        path: path.to_owned(),
        problem: error.to_string(),
        kind: error.kind(),
    };
    let temporary = temporary_beside(path);
    let written = write_new(&temporary, content, access).and_then(|()| match existing {
        Existing::Replace => std::fs::rename(&temporary, path),
        // Unlike a rename, a link fails if the name exists, without a race between check and write.
        Existing::Refuse => std::fs::hard_link(&temporary, path),
    });
    if existing == Existing::Refuse || written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    match written {
        Ok(()) => sync_directory(path).map_err(failed),
        Err(error) if existing == Existing::Refuse && path.symlink_metadata().is_ok() => {
            tracing::debug!(path = %path.display(), %error, "not overwritten");
            Err(FileError::Exists { path: path.to_owned() })
        }
        Err(error) => Err(failed(error)),
    }
}

fn temporary_beside(path: &Path) -> PathBuf {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{}.tmp", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

fn write_new(path: &Path, content: &str, access: Access) -> io::Result<()> {
    // A leftover of a killed process with the same id is not in use.
    let _ = std::fs::remove_file(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(match access {
            Access::Owner => 0o600,
            Access::Everyone => 0o644,
        });
    }
    #[cfg(not(unix))]
    let _ = access;
    let mut file = options.open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_and_leaves_nothing_else_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomically(&path, "one", Access::Everyone, Existing::Refuse).unwrap();
        write_atomically(&path, "two", Access::Everyone, Existing::Replace).unwrap();
        assert_eq!(
            write_atomically(&path, "three", Access::Everyone, Existing::Refuse),
            Err(FileError::Exists { path: path.clone() })
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_never_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let [precious, path] = ["precious", "a.key"].map(|name| dir.path().join(name));
        std::fs::write(&precious, "text").unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert_eq!(
            write_atomically(&path, "key", Access::Owner, Existing::Refuse),
            Err(FileError::Exists { path: path.clone() })
        );
        write_atomically(&path, "key", Access::Owner, Existing::Replace).unwrap();
        assert!(path.symlink_metadata().unwrap().is_file());
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "text");
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let path = Path::new("/nonexistent-directory/file");
        let error = write_atomically(path, "", Access::Owner, Existing::Refuse).unwrap_err();
        assert!(
            matches!(&error, FileError::Write { kind: io::ErrorKind::NotFound, .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("/nonexistent-directory/file"), "{error}");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        File::create(&path).unwrap().set_len(MAX_PEM_FILE + 1).unwrap();
        assert_eq!(Pem::read(&path).err(), Some(FileError::TooLarge { path }));
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_der_is_named_with_the_command_that_converts_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.crt");
        std::fs::write(&path, "\u{feff}-----BEGIN X-----\n").unwrap();
        assert_eq!(*Pem::read(&path).unwrap().text, "-----BEGIN X-----\n");
        std::fs::write(&path, crate::transport::identity::testdata::certificate("uri")).unwrap();
        let error = Pem::read(&path).err().unwrap().to_string();
        for part in ["file.crt is a certificate in DER", "openssl x509 -inform DER -in '"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_not_a_regular_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        assert_eq!(Pem::read(&path).err(), Some(FileError::NotAFile { path }));
        #[cfg(unix)]
        {
            let device = PathBuf::from("/dev/zero");
            assert_eq!(Pem::read(&device).err(), Some(FileError::NotAFile { path: device }));
            let link = dir.path().join("link.key");
            std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
            assert_eq!(Pem::read_key(&link).err(), Some(FileError::NotAFile { path: link }));
            let fifo = dir.path().join("fifo");
            let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
            assert!(made.success());
            assert_eq!(Pem::read(&fifo).err(), Some(FileError::NotAFile { path: fifo }));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_atomically(&path, "secret", Access::Owner, Existing::Refuse).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_read_is_taken_with_a_warning() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_atomically(&path, "secret", Access::Owner, Existing::Refuse).unwrap();
        assert_eq!(logged_by(|| assert_eq!(*Pem::read_key(&path).unwrap().text, "secret")), "");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let logged = logged_by(|| assert_eq!(*Pem::read_key(&path).unwrap().text, "secret"));
        for part in ["WARN", "mode=0640", "chmod 600", &path.display().to_string()] {
            assert!(logged.contains(part), "{logged}");
        }
        assert!(!logged.contains("secret"), "{logged}");
    }

    #[cfg(unix)]
    fn logged_by(action: impl FnOnce()) -> String {
        let log = tempfile::NamedTempFile::new().unwrap();
        let file = std::sync::Mutex::new(log.reopen().unwrap());
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(file).finish();
        tracing::subscriber::with_default(subscriber, action);
        std::fs::read_to_string(log.path()).unwrap()
    }
}
